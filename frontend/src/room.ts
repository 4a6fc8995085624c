/**
 * The shared text of one note: a Yjs document, kept in step with the server over the y-websocket protocol.
 *
 * The server sends back what it has stored. What was sent and has not come back is not saved.
 */

import { signal } from "@preact/signals";
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { uint32 } from "lib0/random";
import * as awarenessProtocol from "y-protocols/awareness";
import * as syncProtocol from "y-protocols/sync";
import * as Y from "yjs";
import { pause } from "./backoff";
import { splice } from "./splice";

const SYNC = 0;
const AWARENESS = 1;
const AUTH = 2;
const QUERY_AWARENESS = 3;
const PATIENCE = 5_000;
/** Milliseconds after which a connection has proved to last. */
export const STABLE = 5_000;
/** What was sent is acknowledged within milliseconds: after so long without a word the connection is dead. */
const OVERDUE = 10_000;
/** A client says who it is every 15 s, and hears itself: so long a silence is none. */
const SILENCE = 40_000;
/** The server may give the awareness client of a closed connection to somebody else after this time. */
const CLIENT_KEPT = 25_000;
/** The bytes of an update without any change. */
const NOTHING = 2;

export type State = "connecting" | "live" | "offline" | "paused" | "gone" | "refused";

export interface Who {
  name: string;
  /** Of the colours that the page has for people. */
  hue: number;
}

const same = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, index) => byte === b[index]);

export class Room {
  readonly doc = new Y.Doc();
  readonly text = this.doc.getText("content");
  readonly awareness = new awarenessProtocol.Awareness(this.doc);
  readonly state = signal<State>("connecting");
  /** Whether something was typed here that the server has not stored. */
  readonly unsaved = signal(false);
  /** Whether the text is that of the server, as of now or of the last time. */
  readonly ready = signal(false);
  /** Whether the server said that what is typed here reaches nobody. */
  readonly denied = signal(false);
  /** The text as a string. */
  readonly content = signal("");
  /** The text before the first word that the server may not have; null if that is not known. */
  ancestor: string | null = null;
  /** Whether what is here must not be sent, as another tab has moved it into a draft. */
  superseded: () => boolean = () => false;
  /** What keeps the text in the browser: what comes from there at first was not typed now, and later in another tab. */
  store: unknown = this;
  /** When the server was heard last. */
  heard = performance.now();
  #socket: WebSocket | null = null;
  #sent: Uint8Array[] = [];
  #begun = false;
  #synced = false;
  #failures = 0;
  #live: number | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #closed = false;
  /** When the last connection ended. */
  #left = Number.POSITIVE_INFINITY;
  #ownState: Record<string, unknown> | null = null;

  constructor(
    private readonly url: string,
    who: Who,
    private readonly transport: typeof WebSocket = WebSocket,
  ) {
    this.awareness.setLocalStateField("user", who);
    this.#ownState = this.awareness.getLocalState();
    this.doc.on("update", (update: Uint8Array, origin: unknown) => {
      const before = this.content.peek();
      this.content.value = this.text.toString();
      if (origin === this || (origin === this.store && !this.#begun)) return;
      if (!this.unsaved.value) this.ancestor = before;
      this.unsaved.value = true;
      if (this.#synced) this.#say(update);
    });
    this.awareness.on(
      "update",
      (changed: { added: number[]; updated: number[]; removed: number[] }, origin: unknown) => {
        const own = this.doc.clientID;
        if (origin === this) {
          // Another connection uses this client's id, so the server ignores the states that are sent from here.
          if (changed.added.includes(own) || changed.updated.includes(own)) this.#takeNewClient();
          // The server took this client for gone.
          else if (changed.removed.includes(own)) this.#tellStates([own]);
          return;
        }
        this.#ownState = this.awareness.getLocalState();
        this.#tellStates([...changed.added, ...changed.updated, ...changed.removed]);
      },
    );
  }

  /** Takes a text that was kept here: there is none of the server's to wait for. */
  kept(): void {
    this.content.value = this.text.toString();
    if (this.doc.store.clients.size > 0) this.ready.value = true;
  }

  connect(): void {
    if (this.#closed || this.#socket) return;
    this.#begun = true;
    clearTimeout(this.#timer);
    if (this.superseded()) {
      this.state.value = "paused";
      return;
    }
    this.state.value = "connecting";
    if (performance.now() - this.#left > CLIENT_KEPT) {
      awarenessProtocol.removeAwarenessStates(this.awareness, [this.doc.clientID], this);
      this.#takeNewClient();
    }
    const socket = new this.transport(this.url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#heard(PATIENCE);
    socket.onopen = () => {
      this.#heard(OVERDUE);
      const step = encoding.createEncoder();
      encoding.writeVarUint(step, SYNC);
      syncProtocol.writeSyncStep1(step, this.doc);
      socket.send(encoding.toUint8Array(step));
      if (this.awareness.getLocalState()) this.#tellStates([this.doc.clientID]);
    };
    socket.onmessage = ({ data }) => {
      this.heard = performance.now();
      this.#take(new Uint8Array(data as ArrayBuffer));
      if (this.#socket === socket) this.#heard(this.#sent.length && !this.denied.peek() ? OVERDUE : SILENCE);
    };
    socket.onclose = ({ code }) => this.#lost(code);
  }

  /** Makes the text another one, by an edit of what differs. */
  write(wanted: string): void {
    const { start, end, text } = splice(this.text.toString(), wanted);
    this.doc.transact(() => {
      this.text.delete(start, end - start);
      this.text.insert(start, text);
    });
  }

  /** The note is not there any more. */
  lose(): void {
    clearTimeout(this.#timer);
    this.#drop();
    this.state.value = "gone";
  }

  /** Connects at once, or anew: what is open may be dead and not know it. `again` is for what was refused, too. */
  renew(again = false): void {
    if (this.#closed || (this.state.value === "refused" && !again)) return;
    this.#drop();
    this.connect();
  }

  /** Stays away until it is to connect anew. */
  pause(): void {
    clearTimeout(this.#timer);
    this.#drop();
    this.state.value = "paused";
  }

  /** Leaves the room. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    awarenessProtocol.removeAwarenessStates(this.awareness, [this.doc.clientID], "closed");
    this.#drop();
    this.awareness.destroy();
    this.doc.destroy();
  }

  #drop(): void {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = null;
    this.#live = null;
    this.#synced = false;
    this.#sent = [];
    this.denied.value = false;
    if (!socket) return;
    this.#left = performance.now();
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #heard(within: number): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), within);
  }

  #lost(code?: number): void {
    if (this.#live !== null && performance.now() - this.#live >= STABLE) this.#failures = 0;
    this.#drop();
    const others = [...this.awareness.getStates().keys()].filter((client) => client !== this.doc.clientID);
    awarenessProtocol.removeAwarenessStates(this.awareness, others, this);
    if (code === 4503 || code === 4504) this.state.value = "gone";
    else if (code !== undefined && (code >= 4500 || code === 1009)) this.state.value = "refused";
    else {
      this.state.value = "offline";
      this.#timer = setTimeout(() => this.connect(), pause(this.#failures++));
    }
  }

  #take(message: Uint8Array): void {
    const decoder = decoding.createDecoder(message);
    switch (decoding.readVarUint(decoder)) {
      case SYNC:
        this.#sync(decoder);
        break;
      case AWARENESS:
        this.#takeStates(decoding.readVarUint8Array(decoder));
        break;
      case AUTH:
        this.denied.value = true;
        break;
      case QUERY_AWARENESS:
        this.#tellStates([...this.awareness.getStates().keys()]);
    }
  }

  /** Applies awareness states. A message that cannot be read is ignored: the connection and its timers go on. */
  #takeStates(states: Uint8Array): void {
    try {
      awarenessProtocol.applyAwarenessUpdate(this.awareness, states, this);
    } catch {
      // The next message of the same clients replaces it.
    }
  }

  #sync(decoder: decoding.Decoder): void {
    const kind = decoding.readVarUint(decoder);
    const payload = decoding.readVarUint8Array(decoder);
    if (kind === syncProtocol.messageYjsSyncStep1) {
      if (this.superseded()) {
        this.pause();
        return;
      }
      // What the server lacks; from here on, what is typed follows.
      const missing = Y.encodeStateAsUpdate(this.doc, payload);
      this.#synced = true;
      if (missing.length > NOTHING) this.#say(missing, syncProtocol.messageYjsSyncStep2);
      return;
    }
    Y.applyUpdate(this.doc, payload, this);
    if (kind === syncProtocol.messageYjsSyncStep2) {
      this.#live ??= performance.now();
      this.state.value = "live";
      this.content.value = this.text.toString();
      this.ready.value = true;
    } else if (this.#sent[0] && same(this.#sent[0], payload)) {
      this.#sent.shift();
    }
    if (this.state.value === "live" && this.#sent.length === 0) this.unsaved.value = false;
  }

  #say(update: Uint8Array, kind: number = syncProtocol.messageYjsUpdate): void {
    const message = encoding.createEncoder();
    encoding.writeVarUint(message, SYNC);
    encoding.writeVarUint(message, kind);
    encoding.writeVarUint8Array(message, update);
    if (this.#sent.length === 0) this.#heard(OVERDUE);
    this.#sent.push(update);
    this.#socket?.send(encoding.toUint8Array(message));
  }

  /** Changes the id of this client, in the document and in the awareness. */
  #takeNewClient(): void {
    this.#left = Number.POSITIVE_INFINITY;
    this.doc.clientID = this.awareness.clientID = uint32();
    this.awareness.setLocalState(this.#ownState);
  }

  #tellStates(clients: number[]): void {
    if (this.#socket?.readyState !== 1) return;
    const message = encoding.createEncoder();
    encoding.writeVarUint(message, AWARENESS);
    encoding.writeVarUint8Array(message, awarenessProtocol.encodeAwarenessUpdate(this.awareness, clients));
    this.#socket.send(encoding.toUint8Array(message));
  }
}
