/** Texts that are saved over REST: how drafts and their merges behave then. */

import { describe, expect, it } from "vitest";
import {
  absorb,
  begin,
  changes,
  conflicted,
  type Draft,
  edit,
  type Fields,
  follow,
  leftover,
  resolve,
  saved,
  textPending,
} from "../src/drafts";
import { merge, transplant, withMine } from "../src/merge";
import type { Note } from "../src/types";

const FIELDS: Fields = { title: "Title", description: "Description", tags: [], content: "one\ntwo\nthree\n" };
const CREATED = "2026-01-01T00:00:00.000Z";

const note = (version: number, more: Partial<Note> = {}): Note => ({
  ...{ id: 1, ...FIELDS, version, created_date: CREATED, updated_date: CREATED },
  ...more,
});

const draft = (more: Partial<Draft> = {}): Draft => ({
  ...{ key: "1-tab", tab: "tab", id: 1, base: { ...FIELDS, version: 1 }, mine: FIELDS, created: CREATED },
  ...{ sending: null, conflict: null, error: null, touched: 0, overRest: true },
  ...more,
});

const typed = (content: string): Draft => edit(draft(), { content }, 1);

describe("merge", () => {
  it("takes both changes of one line where they are of different words", () => {
    const base = "the quick brown fox\nend\n";
    expect(merge(base, "the slow brown fox\nend\n", "the quick brown cat\nEND\n")).toEqual({
      text: "the slow brown cat\nEND\n",
      conflicts: [],
    });
  });

  it("goes on where the other side has received the beginning", () => {
    expect(merge("hello ", "hello world", "hello wor").text).toBe("hello world");
    expect(merge("hello ", "hello wor", "hello world").text).toBe("hello world");
    expect(merge("hello ", "hello world", "hello world").text).toBe("hello world");
  });

  it("knows where the conflicts are, in characters", () => {
    const both = merge("🦜\nsame\nlast\n", "🦜\nmine\nlast\n", "🦜🦜\ntheirs\nlast\n");
    expect(both.text).toContain("theirs");
    expect(withMine(both)).toContain("mine\nlast\n");
    expect(withMine(both)).not.toContain("theirs");
  });
});

describe("transplant", () => {
  it("applies what was typed to a text that others changed", () => {
    expect(transplant("one\ntwo\n", "one\ntwo\nmine\n", "ONE\ntwo\n").text).toBe("ONE\ntwo\nmine\n");
  });

  it("adds nothing that is there already", () => {
    expect(transplant("one\n", "one\nmine\n", "one\nmine\n").text).toBe("one\nmine\n");
    expect(transplant(null, "one\nmine\n", "one\nmine\n").text).toBe("one\nmine\n");
  });

  it("without an ancestor takes additions, and asks about the rest", () => {
    expect(transplant(null, "one\nmine\n", "one\n")).toEqual({ text: "one\nmine\n", conflicts: [] });
    const both = transplant(null, "mine\n", "theirs\n");
    expect([both.text, withMine(both), both.conflicts.length]).toEqual(["theirs\n", "mine\n", 1]);
  });
});

describe("a text over REST", () => {
  it("is sent as the other fields are", () => {
    const begun = begin(typed("one\ntwo\nthree\nfour\n"), "key");
    expect(begun.sending).toEqual({ key: "key", fields: { content: "one\ntwo\nthree\nfour\n" } });
    expect([leftover(begun), textPending(begun)]).toEqual([false, true]);
    const done = saved(begun, note(2, { content: "ONE\ntwo\nthree\nfour\n" }));
    expect(changes(done)).toEqual({});
    expect([done.mine.content, textPending(done)]).toEqual(["ONE\ntwo\nthree\nfour\n", false]);
  });

  it("is sent though another field is not right", () => {
    const begun = begin(edit(typed("words"), { title: "x" }, 2), "key");
    expect(begun.sending?.fields).toEqual({ content: "words" });
    expect(begun.error).toContain("at least 3");
  });

  it("keeps what was typed while it was sent, on what others wrote", () => {
    const begun = edit(begin(typed("one\ntwo\nthree\nfour"), "key"), { content: "one\ntwo\nthree\nfour five" }, 2);
    const next = saved(begun, note(3, { content: "ONE\ntwo\nthree\nfour" }));
    expect(next.mine.content).toBe("ONE\ntwo\nthree\nfour five");
    expect(next.base?.version).toBe(3);
    expect(changes(next)).toEqual({ content: "ONE\ntwo\nthree\nfour five" });
  });

  it("keeps what was taken back while it was sent", () => {
    const begun = edit(begin(typed("one\n"), "key"), { content: FIELDS.content }, 2);
    expect(changes(saved(begun, note(2, { content: "one\n" })))).toEqual({ content: FIELDS.content });
  });

  it("shows what others write, merged into what is being typed", () => {
    const next = follow(typed("one\ntwo\nthree\nmine\n"), note(4, { content: "ONE\ntwo\nthree\n", title: "Theirs" }));
    expect(next.mine).toMatchObject({ content: "ONE\ntwo\nthree\nmine\n", title: "Theirs" });
    expect(next.base?.version).toBe(4);
  });

  it("leaves to the server what both sides changed", () => {
    const before = typed("one\nmine\nthree\n");
    expect(follow(before, note(4, { content: "one\ntheirs\nthree\n" }))).toBe(before);
  });

  it.each([
    ["mine", "ONE\nmine, and more\nthree\n"],
    ["theirs", "ONE\ntheirs\nthree\n"],
  ] as const)("in conflict, decided for %s, keeps all else", (choice, content) => {
    const clash = { field: "content", base: { start: 4, end: 7, text: "two" } };
    const conflict = {
      ...{ ...clash, current: { start: 4, end: 10, text: "theirs" }, yours: { start: 4, end: 8, text: "mine" } },
      merged: { start: 4, end: 10, text: "theirs" },
    };
    const current = note(5, { content: "ONE\ntheirs\nthree\n" });
    const merged = { content: "ONE\ntheirs\nthree\n" };
    const asked = conflicted(begin(typed("one\nmine\nthree\n"), "key"), { current, merged, conflicts: [conflict] });
    expect(textPending(asked)).toBe(true);
    const more = choice === "mine" ? edit(asked, { content: "one\nmine, and more\nthree\n" }, 2) : asked;
    const next = resolve(more, choice, 3);
    expect(next.mine.content).toBe(content);
    expect(next.base?.version).toBe(5);
  });
});

describe("absorb", () => {
  const shared = draft({ overRest: false });

  it("moves the words that the server lacks onto the newest note", () => {
    const next = absorb(shared, note(7, { content: "ONE\ntwo\nthree\n" }), FIELDS.content, "one\ntwo\nthree\nmine", 1);
    expect(next.mine.content).toBe("ONE\ntwo\nthree\nmine");
    expect(next.base?.version).toBe(7);
    expect(begin(next, "key").sending?.fields).toEqual({ content: "ONE\ntwo\nthree\nmine" });
  });

  it("moves nothing that the server has", () => {
    const content = `${FIELDS.content}mine`;
    expect(changes(absorb(shared, note(7, { content }), FIELDS.content, content, 1))).toEqual({});
    expect(changes(absorb(shared, note(7, { content }), null, content, 1))).toEqual({});
  });

  it("keeps the other fields, and text of a new note that is not shared yet", () => {
    const before = edit(shared, { title: "Mine", content: `${FIELDS.content}left over\n` }, 1);
    const next = absorb(before, note(7), FIELDS.content, FIELDS.content, 1);
    expect(changes(next)).toEqual({ title: "Mine", content: `${FIELDS.content}left over\n` });
  });

  it("asks where others changed the same words, and loses none of either side", () => {
    const next = absorb(shared, note(7, { content: "one\nTHEIRS\nthree\n" }), FIELDS.content, "one\nMINE\nthree\n", 1);
    expect(next.conflict?.conflicts.map(({ field }) => field)).toEqual(["content"]);
    expect(next.mine.content).toBe("one\nMINE\nthree\n");
    expect(resolve(next, "theirs", 2).mine.content).toBe("one\nTHEIRS\nthree\n");
    expect(resolve(next, "mine", 2).mine.content).toBe("one\nMINE\nthree\n");
  });
});
