import { describe, expect, it } from "vitest";
import type { Filter, Listed, Sort } from "../src/api";
import type { Frame } from "../src/feed";
import { type Action, compare, empty, type List, reduce } from "../src/list";

const FILTER: Filter = { q: "", tags: [], sort: "-updated" };

const note = (id: number, version = 1, more: Partial<Listed> = {}): Listed => ({
  id,
  title: `Note ${String(id).padStart(3, "0")}`,
  description: "words",
  tags: [],
  version,
  created_date: `2026-01-01T00:00:00.${String(id).padStart(3, "0")}Z`,
  updated_date: `2026-01-01T00:00:${String(version).padStart(2, "0")}.${String(id).padStart(3, "0")}Z`,
  ...more,
});

const page = (items: Listed[], next: string | null = null, first = true): Action => ({
  type: "page",
  page: { items, next, cursor: null },
  first,
});

const changed = (one: Listed): Action => ({
  type: "event",
  frame: { type: "note.updated", cursor: "a:1", id: one.id, version: one.version, note: one },
});

const deleted = (id: number, version: number): Action => ({
  type: "event",
  frame: { type: "note.deleted", cursor: "a:1", id, version },
});

const state = (filter: Partial<Filter>, ...actions: Action[]): List =>
  actions.reduce(reduce, empty({ ...FILTER, ...filter }));

const ids = (list: List): number[] => list.items.map((one) => one.id);

describe("pages", () => {
  it("follow each other in order", () => {
    const list = state({}, page([note(4), note(3)], "/next"), page([note(2), note(1)], null, false));
    expect(ids(list)).toEqual([4, 3, 2, 1]);
    expect(list.next).toBeNull();
  });

  it("do not repeat a note that moved between them", () => {
    const list = state(
      {},
      page([note(4), note(3)], "/next"),
      changed(note(2, 2)),
      page([note(2), note(1)], null, false),
    );
    expect(ids(list)).toEqual([2, 4, 3, 1]);
  });

  it("do not bring back what an event deleted meanwhile", () => {
    expect(ids(state({}, page([note(2)], "/next"), deleted(1, 2), page([note(1)], null, false)))).toEqual([2]);
  });

  it("do not take back what an event changed meanwhile", () => {
    const list = state({}, page([note(1)]), changed(note(1, 3, { title: "newest" })), page([note(1, 2)]));
    expect(list.items[0]?.title).toBe("newest");
  });

  it("bring a note that an event told of before its page came", () => {
    const list = state({ sort: "id" }, page([note(1)], "/next"), changed(note(2, 5)), page([note(2, 4)], null, false));
    expect(ids(list)).toEqual([1, 2]);
  });

  it("begin anew after a reset", () => {
    const list = state({}, page([note(1, 7)]), deleted(2, 9), { type: "reset" }, page([note(1, 1), note(2, 1)]));
    expect(list.items.map((one) => [one.id, one.version])).toEqual([
      [2, 1],
      [1, 1],
    ]);
  });

  it("keep the order of the server for a search", () => {
    expect(ids(state({ q: "words" }, page([note(1), note(3), note(2)])))).toEqual([1, 3, 2]);
  });
});

describe("events", () => {
  it("are no news when they are not newer", () => {
    const before = state({}, page([note(1, 3)]));
    expect(reduce(before, changed(note(1, 3)))).toBe(before);
    expect(reduce(before, deleted(1, 2))).toBe(before);
  });

  it("never let an older one undo a deletion", () => {
    expect(ids(state({}, page([note(1)]), deleted(1, 3), changed(note(1, 2))))).toEqual([]);
  });

  it("put a note where its order says", () => {
    const base = [note(1), note(2), note(3)];
    const moved = note(2, 2, { title: "Zebra" });
    const where: Record<string, number[]> = {
      "-updated": [2, 3, 1],
      updated: [1, 3, 2],
      title: [1, 3, 2],
      id: [1, 2, 3],
    };
    for (const [sort, expected] of Object.entries(where)) {
      expect(ids(state({ sort: sort as Sort }, page(base), changed(moved)))).toEqual(expected);
    }
  });

  it("leave a note to its page when it belongs behind what is loaded", () => {
    expect(ids(state({ sort: "id" }, page([note(1), note(2)], "/next"), changed(note(9, 2))))).toEqual([1, 2]);
    expect(ids(state({ sort: "id" }, page([note(1), note(2)]), changed(note(9, 2))))).toEqual([1, 2, 9]);
  });

  it("respect the tags", () => {
    const tagged = page([note(1, 1, { tags: ["a", "b"] })]);
    expect(ids(state({ tags: ["a"] }, tagged, changed(note(2, 2, { tags: ["b"] }))))).toEqual([1]);
    expect(ids(state({ tags: ["a"] }, tagged, changed(note(1, 2, { tags: ["b"] }))))).toEqual([]);
    expect(ids(state({ tags: ["a"] }, tagged, changed(note(3, 2, { tags: ["a", "x"] }))))).toEqual([3, 1]);
  });

  it("ask for a search to be made again", () => {
    const list = state({ q: "words" }, page([note(1), note(2)]), changed(note(2, 2, { title: "other" })));
    expect(list.stale).toBe(true);
    expect(list.items.map((one) => one.title)).toEqual(["Note 001", "other"]);
  });

  it("of other kinds change nothing", () => {
    const before = state({}, page([note(1)]));
    const frames: Frame[] = [
      { type: "ready", cursor: "a:1" },
      { type: "heartbeat", cursor: "a:1" },
      { type: "presence", id: 1, people: {} },
    ];
    for (const frame of frames) expect(reduce(before, { type: "event", frame })).toBe(before);
  });

  it("in any order lead to the same list", () => {
    const events = [2, 3, 4, 5].flatMap((version) => [1, 2, 3].map((id) => changed(note(id, version))));
    events.push(deleted(2, 6));
    const expected = state({}, page([note(1), note(2), note(3)]), ...events);
    let seed = 1;
    const random = (): number => {
      seed = (seed * 16807) % 2147483647;
      return seed / 2147483647;
    };
    for (let round = 0; round < 50; round++) {
      const shuffled = [...events].sort(() => random() - 0.5);
      expect(state({}, page([note(1), note(2), note(3)]), ...shuffled).items).toEqual(expected.items);
    }
  });
});

describe("compare", () => {
  it("orders titles without case and accents, and ties by id", () => {
    const sorted = [note(3, 1, { title: "Éa" }), note(2, 1, { title: "eb" }), note(1, 1, { title: "ea" })].sort(
      (a, b) => compare(a, b, "title"),
    );
    expect(sorted.map((one) => one.id)).toEqual([1, 3, 2]);
  });
});
