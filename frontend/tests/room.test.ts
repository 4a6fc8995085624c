import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Awareness, encodeAwarenessUpdate } from "y-protocols/awareness";
import * as syncProtocol from "y-protocols/sync";
import * as Y from "yjs";
import { Room } from "../src/room";

class FakeSocket {
  static all: FakeSocket[] = [];
  readyState = 0;
  binaryType = "";
  sent: Uint8Array[] = [];
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  constructor(readonly url: string) {
    FakeSocket.all.push(this);
  }
  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }
  drop(code = 1006): void {
    this.readyState = 3;
    this.onclose?.({ code });
  }
  send(data: Uint8Array): void {
    this.sent.push(data);
  }
  close(): void {
    this.readyState = 3;
  }
  say(kind: number, payload: Uint8Array): void {
    const message = encoding.createEncoder();
    encoding.writeVarUint(message, 0);
    encoding.writeVarUint(message, kind);
    encoding.writeVarUint8Array(message, payload);
    const bytes = encoding.toUint8Array(message);
    this.onmessage?.({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer });
  }
  deny(reason: string): void {
    const message = encoding.createEncoder();
    encoding.writeVarUint(message, 2);
    encoding.writeVarUint(message, 0);
    encoding.writeVarString(message, reason);
    const bytes = encoding.toUint8Array(message);
    this.onmessage?.({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer });
  }
  announce(states: Uint8Array): void {
    const message = encoding.createEncoder();
    encoding.writeVarUint(message, 1);
    encoding.writeVarUint8Array(message, states);
    const bytes = encoding.toUint8Array(message);
    this.onmessage?.({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer });
  }
  /** The ids and states of the awareness clients in the last awareness message that was sent. */
  get announced(): [number, unknown][] {
    const message = this.sent.filter((data) => data[0] === 1).at(-1);
    if (!message) return [];
    const decoder = decoding.createDecoder(message);
    decoding.readVarUint(decoder);
    const states = decoding.createDecoder(decoding.readVarUint8Array(decoder));
    return Array.from({ length: decoding.readVarUint(states) }, () => {
      const client = decoding.readVarUint(states);
      decoding.readVarUint(states);
      return [client, JSON.parse(decoding.readVarString(states))];
    });
  }
  /** The synchronisation messages that were sent: kind and payload. */
  get synced(): [number, Uint8Array][] {
    return this.sent.flatMap((data) => {
      const decoder = decoding.createDecoder(data);
      if (decoding.readVarUint(decoder) !== 0) return [];
      return [[decoding.readVarUint(decoder), decoding.readVarUint8Array(decoder)] as [number, Uint8Array]];
    });
  }
}

const [STEP_1, STEP_2, UPDATE] = [
  syncProtocol.messageYjsSyncStep1,
  syncProtocol.messageYjsSyncStep2,
  syncProtocol.messageYjsUpdate,
];
const last = (): FakeSocket => FakeSocket.all.at(-1) as FakeSocket;

function server(text: string): Y.Doc {
  const doc = new Y.Doc();
  doc.getText("content").insert(0, text);
  return doc;
}

function room(): Room {
  const made = new Room("ws://test/sync/1", { name: "Ann", hue: 1 }, FakeSocket as unknown as typeof WebSocket);
  made.connect();
  return made;
}

/** Connects a room to a server that has a document. */
function greet(doc: Y.Doc): FakeSocket {
  const socket = last();
  socket.open();
  socket.say(STEP_1, Y.encodeStateVector(doc));
  const asked = socket.synced.find(([kind]) => kind === STEP_1)?.[1];
  socket.say(STEP_2, Y.encodeStateAsUpdate(doc, asked));
  return socket;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.999);
  FakeSocket.all = [];
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe("a room", () => {
  it("takes over the server's text, and has nothing unsaved", () => {
    const made = room();
    expect([made.ready.value, made.state.value]).toEqual([false, "connecting"]);
    const socket = greet(server("hello"));
    expect([made.ready.value, made.state.value, made.content.value]).toEqual([true, "live", "hello"]);
    expect(made.unsaved.value).toBe(false);
    expect(socket.synced.map(([kind]) => kind)).toEqual([STEP_1]);
  });

  it("is unsaved until the server sends back what was typed", () => {
    const made = room();
    const socket = greet(server("hello"));
    made.text.insert(5, "!");
    made.text.insert(6, "?");
    const [first, second] = socket.synced.filter(([kind]) => kind === UPDATE).map(([, update]) => update);
    expect(made.unsaved.value).toBe(true);
    socket.say(UPDATE, first as Uint8Array);
    expect(made.unsaved.value).toBe(true);
    socket.say(UPDATE, second as Uint8Array);
    expect(made.unsaved.value).toBe(false);
    expect(made.content.value).toBe("hello!?");
  });

  it("brings what another tab stored, and not what was stored before it came", () => {
    const store = {};
    const doc = server("hello");
    const made = new Room("ws://test/sync/1", { name: "Ann", hue: 1 }, FakeSocket as unknown as typeof WebSocket);
    made.store = store;
    Y.applyUpdate(made.doc, Y.encodeStateAsUpdate(doc), store);
    expect(made.unsaved.value).toBe(false);
    made.connect();
    const socket = greet(doc);
    const other = server("");
    Y.applyUpdate(other, Y.encodeStateAsUpdate(doc));
    other.getText("content").insert(5, "!");
    Y.applyUpdate(made.doc, Y.encodeStateAsUpdate(other), store);
    expect([made.unsaved.value, made.content.value]).toEqual([true, "hello!"]);
    const sent = socket.synced.filter(([kind]) => kind === UPDATE).map(([, update]) => update);
    expect(sent).toHaveLength(1);
    socket.say(UPDATE, sent[0] as Uint8Array);
    expect(made.unsaved.value).toBe(false);
  });

  it("does not take the words of others for an answer", () => {
    const made = room();
    const doc = server("hello");
    const socket = greet(doc);
    made.text.insert(5, "!");
    const state = Y.encodeStateVector(doc);
    doc.getText("content").insert(0, "> ");
    socket.say(UPDATE, Y.encodeStateAsUpdate(doc, state));
    expect([made.unsaved.value, made.content.value]).toEqual([true, "> hello!"]);
  });

  it("brings what was typed offline when it is back, and waits for the answer", () => {
    const made = room();
    const doc = server("hello");
    greet(doc);
    last().drop();
    expect(made.state.value).toBe("offline");
    made.text.insert(5, " offline");
    expect(made.unsaved.value).toBe(true);
    vi.advanceTimersByTime(500);
    expect(FakeSocket.all.length).toBe(2);
    const socket = greet(doc);
    const brought = socket.synced.find(([kind]) => kind === STEP_2)?.[1] as Uint8Array;
    expect(made.unsaved.value).toBe(true);
    Y.applyUpdate(doc, brought);
    expect(doc.getText("content").toString()).toBe("hello offline");
    socket.say(UPDATE, brought);
    expect(made.unsaved.value).toBe(false);
  });

  it("says nothing before the server said what it has: what is typed then goes with what it lacks", () => {
    const made = room();
    last().open();
    made.text.insert(0, "early ");
    expect(last().synced.map(([kind]) => kind)).toEqual([STEP_1]);
    const doc = server("text");
    last().say(STEP_1, Y.encodeStateVector(doc));
    expect(last().synced.map(([kind]) => kind)).toEqual([STEP_1, STEP_2]);
  });

  it.each([
    [1006, "offline"],
    [1012, "offline"],
    [4008, "offline"],
    [4010, "offline"],
    [4029, "offline"],
    [4504, "gone"],
    [4503, "gone"],
    [4501, "refused"],
    [4500, "refused"],
    [1009, "refused"],
  ])("closed with %i is %s, and comes back only then", (code, state) => {
    const made = room();
    greet(server("x"));
    last().drop(code);
    expect(made.state.value).toBe(state);
    vi.advanceTimersByTime(500);
    expect(FakeSocket.all.length).toBe(state === "offline" ? 2 : 1);
  });

  it("knows that it may only read, until it may write", () => {
    const made = room();
    greet(server("x"));
    made.text.insert(0, "mine");
    last().deny("read only");
    expect([made.denied.value, made.unsaved.value]).toEqual([true, true]);
    made.renew();
    expect(made.denied.value).toBe(false);
  });

  it("stays away while it is to pause, and comes back from a refusal when asked to", () => {
    const made = room();
    greet(server("x"));
    made.pause();
    vi.advanceTimersByTime(60_000);
    expect([made.state.value, FakeSocket.all.length]).toEqual(["paused", 1]);
    made.renew();
    last().drop(4501);
    made.renew();
    expect(FakeSocket.all).toHaveLength(2);
    made.renew(true);
    expect(FakeSocket.all).toHaveLength(3);
  });

  it("gives up a connection that says nothing", () => {
    const made = room();
    greet(server("x"));
    vi.advanceTimersByTime(39_000);
    expect(made.state.value).toBe("live");
    vi.advanceTimersByTime(1_000);
    expect(made.state.value).toBe("offline");
  });

  it("gives up sooner what does not acknowledge, and knows the text before that", () => {
    const made = room();
    greet(server("x"));
    made.text.insert(1, "y");
    made.text.insert(2, "z");
    expect(made.ancestor).toBe("x");
    vi.advanceTimersByTime(10_000);
    expect([made.state.value, made.unsaved.value]).toEqual(["offline", true]);
  });

  it("tries a connection that is cut again and again more and more rarely", () => {
    const made = room();
    greet(server("x"));
    last().drop();
    vi.advanceTimersByTime(500);
    greet(server("x"));
    last().drop();
    vi.advanceTimersByTime(500);
    expect([FakeSocket.all.length, made.state.value]).toEqual([2, "offline"]);
    vi.advanceTimersByTime(500);
    expect(FakeSocket.all).toHaveLength(3);
  });

  it("neither connects nor sends once another tab has moved its words into a draft", () => {
    const made = room();
    let superseded = false;
    made.superseded = () => superseded;
    last().open();
    made.text.insert(0, "words");
    superseded = true;
    last().say(STEP_1, Y.encodeStateVector(server("")));
    expect(last().synced.map(([kind]) => kind)).toEqual([STEP_1]);
    expect(made.state.value).toBe("paused");
    made.renew(true);
    expect(FakeSocket.all).toHaveLength(1);
  });

  it("takes a new client id when another connection uses its own", () => {
    const made = room();
    const socket = greet(server("hello"));
    const before = made.doc.clientID;
    const forged = new Awareness(new Y.Doc());
    forged.clientID = before;
    for (let clock = 0; clock < 9; clock++) forged.setLocalState({ user: { name: "Eve", hue: 2 } });
    socket.announce(encodeAwarenessUpdate(forged, [before]));
    expect(made.doc.clientID).not.toBe(before);
    expect(socket.announced).toEqual([[made.doc.clientID, { user: { name: "Ann", hue: 1 } }]]);
    made.text.insert(5, "!");
    expect(made.doc.store.clients.has(made.doc.clientID)).toBe(true);
    forged.destroy();
  });

  it("says that it is still there when the server took it for gone", () => {
    const made = room();
    const socket = greet(server("hello"));
    const gone = new Awareness(new Y.Doc());
    gone.clientID = made.doc.clientID;
    for (let clock = 0; clock < 9; clock++) gone.setLocalState(null);
    socket.announce(encodeAwarenessUpdate(gone, [made.doc.clientID]));
    expect(socket.announced).toEqual([[made.doc.clientID, { user: { name: "Ann", hue: 1 } }]]);
    gone.destroy();
  });

  it("ignores awareness states that it cannot read, and goes on", () => {
    const made = room();
    const socket = greet(server("hello"));
    const states = (state: string): Uint8Array => {
      const message = encoding.createEncoder();
      for (const number of [1, 77, 1]) encoding.writeVarUint(message, number);
      encoding.writeVarString(message, state);
      return encoding.toUint8Array(message);
    };
    vi.advanceTimersByTime(39_000);
    for (const bad of [states('{"n":Infinity}'), new Uint8Array([9, 1])])
      expect(() => socket.announce(bad)).not.toThrow();
    vi.advanceTimersByTime(39_000); // hearing it counted: the connection is not taken for dead
    expect(made.state.value).toBe("live");
    socket.announce(states('{"user":{"name":"Ben"}}'));
    expect(made.awareness.getStates().get(77)).toEqual({ user: { name: "Ben" } });
  });

  it("keeps its client id for a short time offline, and takes a new one after a longer time", () => {
    const made = room();
    greet(server("hello"));
    const before = made.doc.clientID;
    last().drop();
    vi.advanceTimersByTime(2_000);
    expect(made.doc.clientID).toBe(before);
    greet(server("hello"));
    last().drop();
    made.pause();
    vi.advanceTimersByTime(40_000);
    made.renew();
    const socket = greet(server("hello"));
    expect(made.doc.clientID).not.toBe(before);
    expect([...made.awareness.getStates().keys()]).toEqual([made.doc.clientID]);
    expect(socket.announced.map(([client]) => client)).toEqual([made.doc.clientID]);
  });

  it("leaves quietly", () => {
    const made = room();
    greet(server("x"));
    made.close();
    vi.advanceTimersByTime(60_000);
    expect(FakeSocket.all.length).toBe(1);
    expect(last().readyState).toBe(3);
  });
});
