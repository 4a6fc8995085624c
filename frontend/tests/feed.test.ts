import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Feed, type Frame, type Link, type Transports } from "../src/feed";

class FakeSocket {
  static all: FakeSocket[] = [];
  readyState = 0;
  sent: string[] = [];
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  constructor(readonly url: string) {
    FakeSocket.all.push(this);
  }
  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }
  say(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
  drop(code = 1006): void {
    this.readyState = 3;
    this.onclose?.({ code });
  }
  send(text: string): void {
    this.sent.push(text);
  }
  close(): void {
    this.readyState = 3;
  }
}

class FakeSource {
  static all: FakeSource[] = [];
  onmessage: ((event: { data: string }) => void) | null = null;
  onerror: (() => void) | null = null;
  closed = false;
  constructor(readonly url: string) {
    FakeSource.all.push(this);
  }
  close(): void {
    this.closed = true;
  }
}

let frames: Frame[];
let links: Link[];
let resets: number;
let polled: string[];
let greeting: object | null;

const last = (): FakeSocket => FakeSocket.all.at(-1) as FakeSocket;

function feed(): Feed {
  const transports = {
    WebSocket: FakeSocket,
    EventSource: FakeSource,
    fetch: (url: string) => {
      polled.push(url);
      return new Promise(() => {});
    },
  } as unknown as Transports;
  return new Feed(
    {
      frame: (frame) => frames.push(frame),
      reset: () => resets++,
      link: (link) => links.push(link),
      greeting: () => greeting,
    },
    transports,
    "http://notes",
  );
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(1);
  greeting = null;
  [FakeSocket.all, FakeSource.all, frames, links, resets, polled] = [[], [], [], [], 0, []];
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

describe("the feed", () => {
  it("resumes after the last cursor", () => {
    feed().start("a:1");
    expect(last().url).toBe("ws://notes/ws?since=a%3A1&content=false");
    last().open();
    last().say({ type: "ready", cursor: "a:1" });
    last().say({ type: "note.deleted", cursor: "a:7", id: 1, version: 2 });
    last().drop();
    vi.advanceTimersByTime(500);
    expect(last().url).toContain("since=a%3A7");
    expect(links).toEqual(["connecting", "live", "offline", "connecting"]);
  });

  it("pauses longer with every failure, and starts over once it was live", () => {
    feed().start("a:1");
    for (const wait of [500, 1000]) {
      last().drop();
      const before = FakeSocket.all.length;
      vi.advanceTimersByTime(wait - 1);
      expect(FakeSocket.all).toHaveLength(before);
      vi.advanceTimersByTime(1);
      expect(FakeSocket.all).toHaveLength(before + 1);
    }
    last().open();
    last().say({ type: "ready", cursor: "a:1" });
    last().drop(1012);
    vi.advanceTimersByTime(500);
    expect(FakeSocket.all).toHaveLength(4);
  });

  it.each([1009, 4500, 4501, 4503, 4504])("stays away when it is told so (%i)", (code) => {
    feed().start("a:1");
    last().open();
    last().drop(code);
    vi.advanceTimersByTime(60_000);
    expect(FakeSocket.all).toHaveLength(1);
    expect(links.at(-1)).toBe(code === 4501 ? "ended" : "refused");
  });

  it("comes back after a stop when it is told so, with its cursor", () => {
    const made = feed();
    made.start("a:1");
    last().open();
    last().say({ type: "heartbeat", cursor: "a:5" });
    last().drop(4501);
    made.resume();
    made.resume();
    expect(FakeSocket.all).toHaveLength(2);
    expect(last().url).toContain("since=a%3A5");
  });

  it("greets before it says anything else", () => {
    greeting = { type: "auth" };
    const made = feed();
    made.look(1, { name: "Guest" });
    made.start("a:1");
    last().open();
    expect(last().sent.map((text) => JSON.parse(text).type)).toEqual(["auth", "presence"]);
  });

  it.each([1006, 1012, 4008, 4010, 4012, 4029])("comes back otherwise (%i)", (code) => {
    feed().start("a:1");
    last().open();
    last().drop(code);
    vi.advanceTimersByTime(20_000);
    expect(FakeSocket.all.length).toBeGreaterThan(1);
  });

  it("falls back to events, then to polls, then tries the WebSocket again", () => {
    feed().start("a:1");
    const attempts = (): number => FakeSocket.all.length + FakeSource.all.length + polled.length;
    const fail = (failing: () => void): void => {
      const before = attempts();
      failing();
      for (let waited = 0; attempts() === before && waited < 20_000; waited += 100) vi.advanceTimersByTime(100);
    };
    for (let failures = 0; failures < 3; failures++) fail(() => last().drop());
    expect(FakeSource.all).toHaveLength(1);
    for (let failures = 0; failures < 3; failures++) fail(() => FakeSource.all.at(-1)?.onerror?.());
    expect(polled).toHaveLength(1);
    expect(polled[0]).toContain("/changes?since=a%3A1");
  });

  it("tries the WebSocket first again, after a loss and after a while", () => {
    feed().start("a:1");
    for (let failures = 0; failures < 3; failures++) {
      last().drop();
      while (FakeSocket.all.length + FakeSource.all.length === failures + 1) vi.advanceTimersByTime(100);
    }
    FakeSource.all[0]?.onmessage?.({ data: JSON.stringify({ type: "ready", cursor: "a:1" }) });
    for (let waited = 0; waited < 120_000; waited += 10_000) {
      vi.advanceTimersByTime(10_000);
      FakeSource.all[0]?.onmessage?.({ data: JSON.stringify({ type: "heartbeat", cursor: "a:1" }) });
    }
    expect(FakeSource.all[0]?.closed).toBe(true);
    expect(FakeSocket.all).toHaveLength(4);
  });

  it("does not report that a better way still does not work", () => {
    feed().start("a:1");
    const drop = (): void => {
      const before = FakeSocket.all.length + FakeSource.all.length;
      last().drop();
      while (FakeSocket.all.length + FakeSource.all.length === before) vi.advanceTimersByTime(100);
    };
    const say = (type: string): void => {
      FakeSource.all.at(-1)?.onmessage?.({ data: JSON.stringify({ type, cursor: "a:1" }) });
    };
    for (let failures = 0; failures < 3; failures++) drop();
    say("ready");
    while (FakeSocket.all.length === 3) {
      vi.advanceTimersByTime(1_000);
      say("heartbeat");
    }
    links = [];
    for (let failures = 0; failures < 3; failures++) drop();
    say("ready");
    expect(FakeSource.all).toHaveLength(2);
    expect(links).not.toContain("offline");
    FakeSource.all.at(-1)?.onerror?.();
    expect(links).toContain("offline");
  });

  it("connects once, however often it is started", () => {
    const made = feed();
    for (const cursor of ["a:1", "a:2", "a:3"]) made.start(cursor);
    expect(FakeSocket.all).toHaveLength(1);
  });

  it("does not come back in a hurry where it is not wanted", () => {
    const made = feed();
    made.start("a:1");
    last().open();
    last().drop(4501);
    made.hurry();
    expect(FakeSocket.all).toHaveLength(1);
  });

  it("notices silence", () => {
    feed().start("a:1");
    last().open();
    last().say({ type: "ready", cursor: "a:1" });
    vi.advanceTimersByTime(60_000 + 500);
    expect(FakeSocket.all).toHaveLength(2);
  });

  it("tells of a reset, and goes on from its cursor", () => {
    feed().start("a:1");
    last().open();
    last().say({ type: "reset", cursor: "b:0" });
    expect(resets).toBe(1);
    expect(frames).toEqual([]);
    last().drop();
    vi.advanceTimersByTime(500);
    expect(last().url).toContain("since=b%3A0");
  });

  it("shows itself again on every connection", () => {
    const made = feed();
    made.start("a:1");
    made.look(3, { name: "Ada" });
    last().open();
    made.look(4, { name: "Ada" });
    expect(last().sent.map((text) => JSON.parse(text))).toEqual([
      { type: "presence", id: 3, state: { name: "Ada" } },
      { type: "presence", id: 3, state: null },
      { type: "presence", id: 4, state: { name: "Ada" } },
    ]);
    last().drop();
    vi.advanceTimersByTime(500);
    last().open();
    expect(last().sent).toHaveLength(1);
  });
});
