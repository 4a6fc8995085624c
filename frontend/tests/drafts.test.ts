import { describe, expect, it } from "vitest";
import {
  BLANK,
  begin,
  changes,
  conflicted,
  type Draft,
  description,
  edit,
  type Fields,
  follow,
  leftover,
  moved,
  problem,
  rebase,
  resolve,
  saved,
  waiting,
} from "../src/drafts";
import { splice } from "../src/splice";
import type { Note } from "../src/types";

const FIELDS: Fields = { title: "Title", description: "Description", tags: ["a"], content: "one\ntwo\n" };

const note = (version: number, more: Partial<Note> = {}): Note => ({
  id: 1,
  ...FIELDS,
  version,
  created_date: "2026-01-01T00:00:00.000Z",
  updated_date: "2026-01-01T00:00:00.000Z",
  ...more,
});

const draft = (more: Partial<Draft> = {}): Draft => ({
  ...{ key: "1-tab", tab: "tab", id: 1, base: { ...FIELDS, version: 1 }, mine: FIELDS },
  created: "2026-01-01T00:00:00.000Z",
  ...{ sending: null, conflict: null, error: null, touched: 0 },
  ...more,
});

describe("a draft", () => {
  it("sends what differs, and nothing when nothing does", () => {
    expect(begin(draft(), "key").sending).toBeNull();
    const begun = begin(edit(draft(), { title: "Other" }, 1), "key");
    expect(begun.sending).toEqual({ key: "key", fields: { title: "Other" } });
  });

  it("keeps its request, with its key, until the outcome is known", () => {
    const begun = begin(edit(draft(), { title: "Other" }, 1), "first");
    expect(begin(edit(begun, { title: "Third" }, 2), "second").sending).toEqual(begun.sending);
  });

  it("is done when what was sent is what was answered", () => {
    const done = saved(begin(edit(draft(), { title: "Other" }, 1), "key"), note(2, { title: "Other" }));
    expect(waiting(done)).toBe(false);
    expect(done.base?.version).toBe(2);
  });

  it("keeps what was typed while it was sent", () => {
    const begun = begin(edit(draft(), { title: "Other" }, 1), "key");
    const next = saved(edit(begun, { title: "Other yet" }, 2), note(2, { title: "Other" }));
    expect(changes(next)).toEqual({ title: "Other yet" });
  });

  it("of a new note keeps the text that was typed while it was made, for the shared text", () => {
    const fresh = edit(
      draft({ id: null, base: null, created: null, mine: BLANK }),
      { title: "New", content: "one" },
      1,
    );
    const typed = edit(begin(fresh, "key"), { content: "one two" }, 2);
    const next = saved(typed, note(1, { title: "New", description: "one", content: "one" }));
    expect([leftover(next), waiting(next), changes(next)]).toEqual([true, true, {}]);
    expect([next.base?.content, next.mine.content]).toEqual(["one", "one two"]);
    const later = saved(begin(edit(next, { title: "Newer" }, 3), "key"), note(2, { title: "Newer", content: "one" }));
    expect([later.base?.content, later.mine.content]).toEqual(["one", "one two"]);
    expect(waiting(moved(later))).toBe(false);
  });

  it("of a new note needs a title, and gets a description", () => {
    const fresh = draft({ id: null, base: null, mine: BLANK });
    expect(begin(edit(fresh, { title: "ab" }, 1), "key")).toMatchObject({ sending: null, error: expect.any(String) });
    const begun = begin(edit(fresh, { title: "abc", content: "# abc\n- milk and bread\n" }, 1), "key");
    expect(begun.sending?.fields).toMatchObject({ title: "abc", description: "milk and bread" });
    expect(begun.mine.description).toBe("");
  });

  it("follows the note as long as nothing was typed", () => {
    expect(follow(draft(), note(2, { title: "Elsewhere" })).mine.title).toBe("Elsewhere");
    const typed = edit(draft(), { description: "mine" }, 1);
    expect(follow(typed, note(2, { title: "Elsewhere" }))).toBe(typed);
    expect(follow(draft({ base: { ...FIELDS, version: 3 } }), note(2)).base?.version).toBe(3);
  });
});

describe("typed while it was sent", () => {
  const begun = begin(edit(draft(), { description: "Other" }, 1), "key");

  it("a title that others changed, too, is asked about", () => {
    const next = saved(edit(begun, { title: "Mine" }, 2), note(3, { description: "Other", title: "Theirs" }));
    expect(next.conflict?.conflicts.map((one) => one.field)).toEqual(["title"]);
    expect(next.mine.title).toBe("Mine");
  });

  it("tags of both sides stay", () => {
    const next = saved(
      edit(begun, { tags: ["a", "mine"] }, 2),
      note(3, { description: "Other", tags: ["a", "theirs"] }),
    );
    expect(next.mine.tags).toEqual(["a", "theirs", "mine"]);
  });

  it("what others changed elsewhere is taken", () => {
    const typed = edit(begun, { description: "Other yet" }, 2);
    const next = saved(typed, note(3, { description: "Other", title: "Theirs", content: "their text" }));
    expect(changes(next)).toEqual({ description: "Other yet" });
    expect([next.mine.title, next.mine.content]).toEqual(["Theirs", "their text"]);
  });
});

describe("a made description", () => {
  it("follows the text until somebody writes one", () => {
    const base = { title: "Mee", description: "Mee", tags: [], content: "", version: 1 };
    const made = draft({ base, mine: { ...base } });
    expect(begin(edit(made, { title: "Meeting" }, 1), "key").sending?.fields).toEqual({
      title: "Meeting",
      description: "Meeting",
    });
    const written = { ...base, description: "my own" };
    expect(
      begin(edit(draft({ base: written, mine: written }), { title: "Meeting" }, 1), "key").sending?.fields,
    ).toEqual({
      title: "Meeting",
    });
  });

  it("does not take the place of one that is being written", () => {
    expect(begin(edit(draft(), { description: "ab" }, 1), "key")).toMatchObject({
      sending: null,
      mine: { description: "ab" },
    });
  });
});

it("a blank draft is left alone", () => {
  const blank = draft({ id: null, base: null, mine: BLANK });
  expect(begin(blank, "key")).toBe(blank);
});

describe("a conflict", () => {
  const part = (text: string) => ({ start: 0, end: [...text].length, text });
  const clash = {
    ...{ field: "title", base: part("Title"), current: part("Theirs") },
    ...{ yours: part("My title"), merged: part("Theirs") },
  };
  const typed = edit(draft(), { title: "My title", tags: ["a", "mine"] }, 1);
  const current = note(5, { title: "Theirs", tags: ["a", "theirs"], content: "their text" });
  const asked = conflicted(begin(typed, "key"), {
    current,
    merged: { title: "Theirs", tags: ["a", "theirs", "mine"] },
    conflicts: [clash],
  });

  it("keeps both until somebody chooses", () => {
    expect(asked.mine.title).toBe("My title");
    expect(begin(asked, "again").sending).toBeNull();
  });

  it.each([
    ["mine", "My title"],
    ["theirs", "Theirs"],
  ] as const)("decided for %s is about that field only", (choice, title) => {
    const next = resolve(asked, choice, 2);
    expect(next.mine).toMatchObject({ title, tags: ["a", "theirs", "mine"], content: "their text" });
    expect([next.base?.version, next.conflict]).toEqual([5, null]);
  });
});

describe("rebase", () => {
  it("applies two changes that do not touch", () => {
    expect(rebase("a b c", "A b c", "a b C")).toBe("A b C");
    expect(rebase("a b c", "a b C", "A b c")).toBe("A b C");
    expect(rebase("abc", "abc", "x")).toBe("x");
    expect(rebase("abc", "x", "abc")).toBe("x");
    expect(rebase("abc", "x", "x")).toBe("x");
  });

  it("applies changes around one another", () => {
    expect(rebase("one\n\ntwo\n\nthree\n", "one\n\ntwo mine\n\nthree\n", "ONE\n\ntwo\n\nTHREE\n")).toBe(
      "ONE\n\ntwo mine\n\nTHREE\n",
    );
  });

  it("does not guess when they do", () => {
    expect(rebase("abc", "axc", "ayc")).toBeNull();
    expect(rebase("abc", "abcX", "abcY")).toBeNull();
  });
});

it("splice tells what was replaced", () => {
  expect(splice("hello world", "hello brave world")).toEqual({ start: 6, end: 6, text: "brave " });
  expect(splice("aaa", "aa")).toEqual({ start: 2, end: 3, text: "" });
  expect(splice("", "x")).toEqual({ start: 0, end: 0, text: "x" });
  // Never between the halves of a character.
  expect(splice("a😀b", "a😁b")).toEqual({ start: 1, end: 3, text: "😁" });
  expect(splice("\u{1f600}", "\u{1fa00}")).toEqual({ start: 0, end: 2, text: "\u{1fa00}" });
});

it("problem names what is in the way", () => {
  expect(problem(FIELDS)).toBeNull();
  expect(problem({ ...FIELDS, title: "🦜🦜" })).toMatch("title");
  expect(problem({ ...FIELDS, title: "🦜".repeat(50) })).toBeNull();
  expect(problem({ ...FIELDS, tags: Array(33).fill("x") })).toMatch("tags");
  expect(problem({ ...FIELDS, content: "é".repeat(600_000) })).toMatch("MiB");
});

it("description takes the first words there are", () => {
  expect(description({ ...FIELDS, content: "" })).toBe("Title");
  expect([...description({ ...FIELDS, content: "x".repeat(80) })]).toHaveLength(50);
});
