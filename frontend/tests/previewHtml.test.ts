import { describe, expect, it } from "vitest";
import { htmlOf } from "../src/previewHtml";

describe("the HTML of a text", () => {
  it("is Markdown's", () => {
    expect(htmlOf("---\ntitle: x\n---\n# A *heading*")).toBe("<h1>A <em>heading</em></h1>\n");
    expect(htmlOf("")).toBe("");
    expect(htmlOf("\n\n")).toBe("");
  });

  it.each([
    ["levels of quotes", `${"> ".repeat(200)}deep`],
    ["open tags", "<div>".repeat(300)],
    ["open tags of every kind", "<b><i><u><s>".repeat(80)],
    ["tags", "<b></b>".repeat(31_000)],
    ["paragraphs", "a\n\n".repeat(31_000)],
    ["rows of a table", `|a|b|\n|-|-|\n${"|x|y|\n".repeat(11_000)}`],
    ["attributes", `<b ${Array.from({ length: 5_000 }, (_, number) => `a${number}`).join(" ")}>x</b>`],
    ["combining characters", `a${"\u0301".repeat(5_000)}`],
    ["pictures", "![](/files/1/x) ".repeat(600)],
  ])("is not made of too many %s", (_, text) => {
    expect(htmlOf(text)).toBeNull();
  });

  it.each([
    ["a long text", "A paragraph with **bold** words and [a link](/n/1).\n\n".repeat(7_000)],
    ["many line breaks", "line<br>\n".repeat(2_000)],
    ["closed tags", "<div><b>x</b></div>\n\n".repeat(2_000)],
    ["less-than signs", "a < b and b <c\n".repeat(300)],
    ["words with accents", "e\u0301te\u0301 \u05d0\u05b7\u05dc \u200f\n\n".repeat(500)],
    ["some pictures", "![](/files/1/x)\n".repeat(100)],
  ])("is made of %s", (_, text) => {
    expect(htmlOf(text)).toBeTypeOf("string");
  });
});
