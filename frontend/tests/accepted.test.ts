import { EditorState } from "@codemirror/state";
import { beforeEach, describe, expect, it } from "vitest";
import { notice } from "../src/notices";
import { accepted, beginning, storable } from "../src/views/accepted";

const MIB = 1024 * 1024;
const userEvent = "input.paste";

const state = (doc = ""): EditorState =>
  EditorState.create({ doc, extensions: [EditorState.lineSeparator.of("\n"), accepted] });

const paste = (before: EditorState, insert: string, from = before.doc.length, to = from): EditorState =>
  before.update({ changes: { from, to, insert }, userEvent }).state;

beforeEach(() => {
  notice.value = null;
});

describe("what is typed or pasted", () => {
  it("is taken as it is when it can be stored", () => {
    const after = paste(state("start "), "ä 🦜 漢字\n\ttext");
    expect(after.sliceDoc()).toBe("start ä 🦜 漢字\n\ttext");
    expect(notice.value).toBeNull();
  });

  it("loses what cannot be stored, with a word of it, and leaves the caret behind it", () => {
    const after = paste(state("start "), "a\0b \ud83e c");
    expect(after.sliceDoc()).toBe("start ab \ufffd c");
    expect(after.selection.main.head).toBe(after.doc.length);
    expect(notice.value?.text).toBe("Characters that cannot be stored were left out");
  });

  it("has the line endings of the text, without a word", () => {
    expect(paste(state("a\n"), "b\r\nc\rd").sliceDoc()).toBe("a\nb\nc\nd");
    expect(notice.value).toBeNull();
  });

  it("is refused where the text would be too long, and what fits is offered", () => {
    const before = state("start\n");
    const after = paste(before, "y".repeat(1_200_000));
    expect(after.sliceDoc()).toBe("start\n");
    expect(notice.value?.text).toContain("at most 1 MiB");
    expect(notice.value?.label).toBe("Insert what fits");
  });

  it("may replace what it has no room beside", () => {
    const full = "x".repeat(MIB - 10);
    expect(paste(state(full), "longer than ten").sliceDoc()).toBe(full);
    expect(paste(state(full), "longer than ten", 0, 100).sliceDoc()).toContain("longer than ten");
  });

  it("counts bytes, not characters", () => {
    const before = state("ä".repeat(MIB / 2 - 2));
    expect(paste(before, "äää").doc.length).toBe(before.doc.length);
    expect(paste(before, "ää").doc.length).toBe(before.doc.length + 2);
  });
});

describe("what comes from others", () => {
  it("is taken as it is", () => {
    const after = state().update({ changes: { from: 0, insert: "a\0b\r" } }).state;
    expect(after.sliceDoc()).toBe("a\0b\r");
  });
});

describe("the beginning of a text", () => {
  it("never cuts a character", () => {
    expect(beginning("aä🦜", 3)).toBe("aä");
    expect(beginning("aä🦜", 6)).toBe("aä");
    expect(beginning("aä🦜", 7)).toBe("aä🦜");
    expect(beginning("a", -1)).toBe("");
  });
});

describe("storable text", () => {
  it("keeps pairs and drops halves", () => {
    expect(storable("🦜\ud800\udc00x\udc00")).toBe("🦜\ud800\udc00x\ufffd");
  });
});
