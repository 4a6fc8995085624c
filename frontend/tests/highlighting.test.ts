import { Text } from "@codemirror/state";
import { describe, expect, it } from "vitest";
import { hasLongParagraph, MAX_PARAGRAPH } from "../src/views/highlighting";

const text = (content: string): Text => Text.of(content.split("\n"));
const long = "x".repeat(MAX_PARAGRAPH + 1);
const lines = "a line of text\n".repeat(MAX_PARAGRAPH / 10);

describe("a paragraph that is too long", () => {
  it("is found as one line, or as many", () => {
    expect(hasLongParagraph(text(long))).toBe(true);
    expect(hasLongParagraph(text(`short\n\n${long}\n\nshort`))).toBe(true);
    expect(hasLongParagraph(text(lines))).toBe(true);
    expect(hasLongParagraph(text(`${" ".repeat(MAX_PARAGRAPH * 2)}b`))).toBe(true);
  });

  it("is not made of several short ones", () => {
    expect(hasLongParagraph(text("a line of text\n\n".repeat(MAX_PARAGRAPH)))).toBe(false);
    expect(hasLongParagraph(text("short"))).toBe(false);
  });

  it("is looked for around a change", () => {
    const doc = text(`start\n\n${lines}\nend\n\n`);
    expect(hasLongParagraph(doc, 0, 3)).toBe(false);
    expect(hasLongParagraph(doc, MAX_PARAGRAPH, MAX_PARAGRAPH + 1)).toBe(true);
    expect(hasLongParagraph(doc, doc.length, doc.length)).toBe(false);
  });
});
