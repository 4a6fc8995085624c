import { signal } from "@preact/signals";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError, type Refusal } from "../src/api";
import { BLANK, type Draft, type Fields } from "../src/drafts";
import { GONE, MAX_DELAY, Outbox, QUIET } from "../src/outbox";
import type { Note } from "../src/types";

interface Asked {
  id: number | null;
  base: number | null;
  fields: Partial<Fields>;
  key: string;
  answer(note: Note): void;
  refuse(status: number, body?: Refusal): void;
}

const note = (version: number, fields: Partial<Note> = {}): Note => ({
  ...{ id: 1, title: "Title", description: "Title", content: "", tags: [], version },
  ...{ created_date: "2026-01-01T00:00:00.000Z", updated_date: "2026-01-01T00:00:00.000Z", ...fields },
});

let asked: Asked[];
let removed: number[];
let kept: Map<string, Draft>;
let told: Note[];
let born: [string, number][];
const reachable = signal(true);

function outbox(): Outbox {
  const ask = (id: number | null, base: number | null, fields: Partial<Fields>, key: string): Promise<Note> =>
    new Promise((answer, reject) => {
      asked.push({ id, base, fields, key, answer, refuse: (status, body = {}) => reject(new ApiError(status, body)) });
    });
  const made = new Outbox(
    {
      create: (fields, key) => ask(null, null, fields, key),
      patch: ask,
      remove: async (id) => removed.push(id),
    },
    {
      put: (draft) => kept.set(draft.key, draft),
      drop: (key) => kept.delete(key),
      stored: async () => {},
    },
    reachable,
  );
  made.start("tab", { made: (key, note) => born.push([key, note.id]), told: (note) => told.push(note) });
  return made;
}

const last = (): Asked => asked.at(-1) as Asked;
const pass = (milliseconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(milliseconds);

beforeEach(() => {
  vi.useFakeTimers();
  [asked, removed, told, born] = [[], [], [], []];
  kept = new Map();
  reachable.value = true;
});
afterEach(() => {
  vi.useRealTimers();
});

describe("sending", () => {
  it("waits until the typing rests, and sends only what changed on what it was written on", async () => {
    const box = outbox();
    box.type(note(3), { title: "Titl" });
    await pass(QUIET - 1);
    box.type(note(3), { title: "Title 2" });
    await pass(QUIET - 1);
    expect(asked).toEqual([]);
    await pass(1);
    expect(last()).toMatchObject({ id: 1, base: 3, fields: { title: "Title 2" } });
    expect(box.unsent).toBe(1);
    last().answer(note(4, { title: "Title 2" }));
    await pass(0);
    expect([box.unsent, kept.size, asked.length]).toEqual([0, 0, 1]);
    expect(told.map(({ version }) => version)).toEqual([4]);
  });

  it("has one request of a note under way, and what was typed meanwhile follows on the new version", async () => {
    const box = outbox();
    box.type(note(1), { title: "first" });
    await pass(QUIET);
    box.type(note(1), { title: "second" });
    await pass(QUIET * 3);
    expect(asked.length).toBe(1);
    last().answer(note(2, { title: "first" }));
    await pass(QUIET);
    expect(last()).toMatchObject({ base: 2, fields: { title: "second" } });
  });

  it("sends at once when asked to", async () => {
    const box = outbox();
    box.type(note(1), { title: "now" });
    box.hurry();
    await pass(0);
    expect(asked.length).toBe(1);
  });

  it("keeps what was typed and the request before the request is made", async () => {
    const box = outbox();
    box.type(note(1), { title: "kept" });
    expect(kept.get("1-tab")?.mine.title).toBe("kept");
    await pass(QUIET);
    expect(kept.get("1-tab")?.sending?.key).toBe(last().key);
  });
});

describe("failures that pass", () => {
  it.each([0, 401, 429, 500, 503])("repeat the same request after %i, until it is answered", async (status) => {
    const box = outbox();
    box.type(note(1), { title: "again" });
    await pass(QUIET);
    const { key } = last();
    for (let times = 1; times < 5; times++) {
      last().refuse(status);
      box.type(note(1), { title: `again and ${times}` }); // typed since: not part of the repeat
      await pass(20_000);
      expect(asked.length).toBe(times + 1);
      expect(last()).toMatchObject({ key, fields: { title: "again" } });
    }
    expect(reachable.value).toBe(status !== 0);
    last().answer(note(2, { title: "again" }));
    await pass(QUIET);
    expect(reachable.value).toBe(true);
    expect(last()).toMatchObject({ base: 2, fields: { title: "again and 4" } });
    expect(last().key).not.toBe(key);
  });

  it("repeat the request of a page that went, from the next one", async () => {
    const before = outbox();
    before.type(note(1), { title: "once" });
    await pass(QUIET);
    const after = outbox();
    for (const draft of structuredClone([...kept.values()])) after.take(draft);
    after.hurry();
    await pass(0);
    expect(asked.length).toBe(2);
    expect(asked[1]).toMatchObject({ key: asked[0]?.key, fields: { title: "once" } });
  });
});

describe("failures that stay", () => {
  it("keeps the words and says why; the next word is sent again", async () => {
    const box = outbox();
    box.type(note(1), { title: "Bad" });
    await pass(QUIET);
    last().refuse(422, { detail: "not so" });
    await pass(60_000);
    expect(asked.length).toBe(1);
    expect(box.of(1)).toMatchObject({ error: "not so", mine: { title: "Bad" } });
    box.type(note(1), { title: "Better" });
    await pass(QUIET);
    expect(last().fields.title).toBe("Better");
  });

  it("does not send what the server would refuse", async () => {
    const box = outbox();
    box.type(note(1), { title: "x" });
    await pass(QUIET);
    expect(asked).toEqual([]);
    expect(box.of(1)?.error).toContain("at least 3");
  });

  it("keeps the words of a deleted note, for a new note or until it is back", async () => {
    const box = outbox();
    box.type(note(1), { title: "Words" });
    await pass(QUIET);
    last().refuse(404, { detail: "Note not found" });
    await pass(0);
    expect(box.of(1)).toMatchObject({ error: GONE, mine: { title: "Words" } });
    box.changedElsewhere(note(3));
    await pass(0);
    expect(last()).toMatchObject({ id: 1, fields: { title: "Words" } });
    last().refuse(404);
    await pass(0);
    expect(box.of(1)).toMatchObject({ error: GONE, mine: { title: "Words" } });
  });

  it("asks when others changed the same words, and sends what was decided", async () => {
    const box = outbox();
    box.type(note(1), { title: "Mine" });
    await pass(QUIET);
    const clash = { start: 0, end: 5, text: "" };
    const sides = { base: clash, current: { ...clash, text: "Theirs" }, yours: { ...clash, text: "Mine" } };
    const current = note(2, { title: "Theirs" });
    last().refuse(409, { note: current, merged: {}, conflicts: [{ field: "title", ...sides, merged: clash }] });
    await pass(60_000);
    expect(asked.length).toBe(1);
    expect(box.of(1)?.conflict?.current).toEqual(current);
    box.decide("1-tab", "mine");
    await pass(0);
    expect(last()).toMatchObject({ base: 2, fields: { title: "Mine" } });
  });
});

describe("new notes", () => {
  it("become notes, and what was typed meanwhile follows", async () => {
    const box = outbox();
    const { key } = box.compose();
    box.type(box.drafts.value.get(key) as Draft, { title: "New" });
    await pass(QUIET);
    expect(last()).toMatchObject({ id: null, fields: { title: "New", description: "New" } });
    box.type(box.drafts.value.get(key) as Draft, { content: "text" });
    box.type(box.drafts.value.get(key) as Draft, { title: "Newer" });
    last().answer(note(1, { title: "New", description: "New" }));
    await pass(QUIET);
    expect(born).toEqual([[key, 1]]);
    expect(box.made.get(1)).toBe(key);
    // The text is shared from now on: it goes another way.
    expect(last()).toMatchObject({ id: 1, base: 1, fields: { title: "Newer" } });
    expect(last().fields).not.toHaveProperty("content");
    last().answer(note(2, { title: "Newer", description: "Newer" }));
    await pass(QUIET);
    expect(box.of(1)?.mine.content).toBe("text");
    box.moved(key);
    await pass(0);
    expect([box.unsent, kept.size]).toEqual([0, 0]);
  });

  it("with words in them already are sent at once", async () => {
    outbox().compose({ ...BLANK, title: "Rescued", content: "words" });
    await pass(0);
    expect(last()).toMatchObject({ id: null, fields: { title: "Rescued", content: "words" } });
  });

  it("are forgotten when nothing was typed", () => {
    const box = outbox();
    box.dropBlank(box.compose().key);
    expect(box.all).toEqual([]);
    const { key } = box.compose();
    box.type(box.drafts.value.get(key) as Draft, { title: "x" });
    box.dropBlank(key);
    expect(box.all.map(({ mine }) => mine)).toEqual([{ ...BLANK, title: "x" }]);
  });

  it("that were discarded on their way are taken back", async () => {
    const box = outbox();
    const { key } = box.compose();
    box.type(box.drafts.value.get(key) as Draft, { title: "Not wanted" });
    await pass(QUIET);
    box.discard(key);
    last().answer(note(1));
    await pass(0);
    expect(removed).toEqual([1]);
    expect([box.all, born]).toEqual([[], []]);
  });
});

it("follows what others changed where nothing was typed", () => {
  const box = outbox();
  box.type(note(1), { title: "Title" });
  box.changedElsewhere(note(2, { title: "Theirs" }));
  expect(box.of(1)?.mine.title).toBe("Theirs");
  box.type(note(2, { title: "Theirs" }), { title: "Mine" });
  box.changedElsewhere(note(3, { title: "Theirs again" }));
  expect(box.of(1)?.mine.title).toBe("Mine");
});

describe("text over REST", () => {
  it("is sent every few seconds, though keys are still pressed", async () => {
    const box = outbox();
    for (let waited = 0; waited <= MAX_DELAY; waited += QUIET - 100) {
      box.type(note(1), { content: `${waited}` }, true);
      await pass(QUIET - 100);
    }
    expect(asked.length).toBe(1);
    expect(last()).toMatchObject({ id: 1, base: 1 });
    expect(last().fields).toHaveProperty("content");
  });

  it("is taken from a shared text, stored, and sent only then", async () => {
    const box = outbox();
    expect(await box.absorb(note(3, { content: "a" }), "a", "a b", "copy")).toBe(true);
    expect(kept.get("1-tab")).toMatchObject({ absorbed: "copy", overRest: true, mine: { content: "a b" } });
    await pass(60_000);
    expect(asked).toEqual([]);
    box.absorbed(1);
    expect(kept.get("1-tab")?.absorbed).toBeNull();
    await pass(QUIET);
    expect(last()).toMatchObject({ base: 3, fields: { content: "a b" } });
  });

  it("is not sent for another reason before the local copy is superseded", async () => {
    const box = outbox();
    box.type(note(3, { content: "a" }), { title: "Typed before" });
    await box.absorb(note(3, { content: "a" }), "a", "a b", "copy");
    box.hurry();
    await pass(60_000);
    expect(asked).toEqual([]);
    box.absorbed(1);
    await pass(QUIET);
    expect(last().fields).toMatchObject({ title: "Typed before", content: "a b" });
  });

  it("is not taken while a request has no answer", async () => {
    const box = outbox();
    box.type(note(3), { title: "Sent" });
    await pass(QUIET);
    expect(await box.absorb(note(3), "", "words", "copy")).toBe(false);
    expect(box.of(1)?.mine.content).toBe("");
  });

  it("that the server has already makes no draft", async () => {
    const box = outbox();
    expect(await box.absorb(note(3, { content: "same" }), "", "same", "copy")).toBe(true);
    expect(box.all).toEqual([]);
  });
});
