/**
 * Follows the feed: over a WebSocket, else Server-Sent Events, else a long poll. Comes back by itself, and resumes.
 *
 * Close codes below 4500 (but 1009) say to come back, the others not to; 4501, that the session ended.
 */

import { pause } from "./backoff";
import { addressOf, base } from "./root";
import type { Schemas } from "./types";

export type Frame = NonNullable<Schemas["ServerMessage"]>;
export type Way = "ws" | "sse" | "poll";
export type Link = "connecting" | "live" | "offline" | "refused" | "ended";

const SILENCE = 60_000;
const PATIENCE = 5_000;
const WAYS: Way[] = ["ws", "ws", "ws", "sse", "poll"];
const BETTER = 120_000;
/** The server says something every 25 s: after so long without a word a connection that looks open may be dead. */
const DOUBT = 30_000;

export interface Listener {
  /** A frame came that is not older than what came before. */
  frame(frame: Frame): void;
  /** What was missed is no longer kept: fetch again; the feed goes on from its own cursor. */
  reset(): void;
  link(state: Link): void;
  /** What has to be said first, if anything. */
  greeting?(): object | null;
}

export interface Transports {
  WebSocket: typeof WebSocket;
  EventSource: typeof EventSource;
  fetch: typeof fetch;
}

export class Feed {
  #cursor: string | null = null;
  #failures = 0;
  /** Attempts in a row that never opened: what does not get through may be in the way of a proxy. */
  #closed = 0;
  /** Whether a better way is tried in place of one that works: that it fails is no news. */
  #probing = false;
  #back: ReturnType<typeof setTimeout> | undefined;
  #stop: () => void = () => {};
  #timer: ReturnType<typeof setTimeout> | undefined;
  #socket: WebSocket | null = null;
  #presence: { id: number; state: Record<string, unknown> } | null = null;
  #stopped = false;
  #heard = 0;

  constructor(
    private readonly listener: Listener,
    private readonly transports: Transports = { WebSocket, EventSource, fetch: fetch.bind(globalThis) },
    private readonly origin: string = base(),
  ) {}

  /** Begins to follow after a cursor. */
  start(cursor: string): void {
    if (this.#cursor !== null) return;
    this.#cursor = cursor;
    this.#connect();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#back);
    this.#stop();
  }

  /** Goes on after a stop. */
  resume(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    this.#failures = this.#closed = 0;
    this.renew();
  }

  /** Tries at once, for example because somebody looks at the page again. */
  hurry(): void {
    if (this.#socket?.readyState !== 1 || Date.now() - this.#heard > DOUBT) this.renew();
  }

  /** Connects anew, for example because the network is another one: what is open may be dead and not know it. */
  renew(): void {
    if (this.#stopped || this.#cursor === null) return;
    clearTimeout(this.#timer);
    this.#stop();
    this.#connect();
  }

  /** Shows this page on a note, or on none. */
  look(id: number | null, state: Record<string, unknown>): void {
    if (this.#presence && this.#presence.id !== id)
      this.#tell({ type: "presence", id: this.#presence.id, state: null });
    this.#presence = id === null ? null : { id, state };
    if (this.#presence) this.#tell({ type: "presence", ...this.#presence });
  }

  #tell(message: object): void {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  #connect(): void {
    this.listener.link("connecting");
    clearTimeout(this.#back);
    const open = { ws: () => this.#webSocket(), sse: () => this.#eventSource(), poll: () => this.#poll() };
    const way = WAYS[this.#closed % WAYS.length] as Way;
    if (way !== "ws") this.#probing = false;
    open[way]();
    if (way === "ws") return;
    // Only a WebSocket shows who is looking: it is tried again after a while.
    this.#back = setTimeout(() => {
      this.#stop();
      this.#closed = 0;
      this.#probing = true;
      this.#connect();
    }, BETTER);
  }

  #query(more: Record<string, string> = {}): string {
    return new URLSearchParams({ since: this.#cursor ?? "", content: "false", ...more }).toString();
  }

  #take(frame: Frame): void {
    this.#failures = 0;
    this.#heard = Date.now();
    if ("cursor" in frame) this.#cursor = frame.cursor;
    if (frame.type === "ready" || frame.type === "heartbeat") this.listener.link("live");
    if (frame.type === "reset") this.listener.reset();
    else this.listener.frame(frame);
  }

  /** A connection was lost, or could not be made. */
  #again(opened: boolean): void {
    if (this.#stopped) return;
    if (opened) this.#probing = false;
    if (!this.#probing) this.listener.link("offline");
    this.#closed = opened ? 0 : this.#closed + 1;
    this.#timer = setTimeout(() => this.#connect(), pause(this.#failures++));
  }

  #webSocket(): void {
    const socket = new this.transports.WebSocket(`${this.origin.replace("http", "ws")}/ws?${this.#query()}`);
    let silence: ReturnType<typeof setTimeout>;
    let opened = false;
    const ended = (code?: number): void => {
      clearTimeout(silence);
      socket.onclose = socket.onmessage = socket.onerror = null;
      socket.close();
      this.#socket = null;
      if (code === undefined || (code < 4500 && code !== 1009)) {
        this.#again(opened);
        return;
      }
      this.#stopped = true;
      this.listener.link(code === 4501 ? "ended" : "refused");
    };
    const heard = (within: number): void => {
      clearTimeout(silence);
      silence = setTimeout(ended, within);
    };
    heard(PATIENCE);
    socket.onopen = () => {
      opened = true;
      this.#socket = socket;
      heard(SILENCE);
      const greeting = this.listener.greeting?.();
      if (greeting) this.#tell(greeting);
      if (this.#presence) this.#tell({ type: "presence", ...this.#presence });
    };
    socket.onmessage = ({ data }) => {
      heard(SILENCE);
      this.#take(JSON.parse(data as string) as Frame);
    };
    socket.onclose = ({ code }) => ended(code);
    this.#stop = () => {
      clearTimeout(silence);
      socket.onclose = socket.onmessage = socket.onerror = null;
      socket.close();
      this.#socket = null;
    };
  }

  #eventSource(): void {
    const source = new this.transports.EventSource(addressOf(`/events?${this.#query()}`));
    let silence: ReturnType<typeof setTimeout>;
    let opened = false;
    const ended = (): void => {
      clearTimeout(silence);
      source.close();
      this.#again(opened);
    };
    const heard = (within: number): void => {
      clearTimeout(silence);
      silence = setTimeout(ended, within);
    };
    heard(PATIENCE);
    source.onmessage = ({ data }) => {
      opened = true;
      heard(SILENCE);
      this.#take(JSON.parse(data as string) as Frame);
    };
    source.onerror = ended;
    this.#stop = () => {
      clearTimeout(silence);
      source.close();
    };
  }

  async #poll(): Promise<void> {
    const abort = new AbortController();
    this.#stop = () => abort.abort();
    let opened = false;
    try {
      while (!this.#stopped) {
        const answer = await this.transports.fetch(addressOf(`/changes?${this.#query({ timeout: "20" })}`), {
          signal: abort.signal,
        });
        if (!answer.ok) break;
        const told = (await answer.json()) as { cursor: string; reset: boolean; changes: Frame[] };
        opened = true;
        if (told.reset) this.#take({ type: "reset", cursor: told.cursor });
        for (const change of told.changes) this.#take(change);
        this.#take({ type: "heartbeat", cursor: told.cursor });
      }
    } catch {
      if (abort.signal.aborted) return;
    }
    this.#again(opened);
  }
}
