import { describe, expect, it, vi } from "vitest";

vi.mock("dompurify", () => ({ default: { addHook: () => {} } })); // it needs a DOM, which marks do not

import { marks } from "../src/markdown";

const text = (snippet: string): string =>
  marks(snippet)
    .map((part) => part.text)
    .join("");

describe("marks", () => {
  it("are told apart from what is around them", () => {
    expect(marks("a <mark>hit</mark> and <mark>another</mark>!")).toEqual([
      { text: "a ", hit: false },
      { text: "hit", hit: true },
      { text: " and ", hit: false },
      { text: "another", hit: true },
      { text: "!", hit: false },
    ]);
  });

  it("may be all, or none, or next to each other", () => {
    expect(marks("<mark>all</mark>")).toEqual([{ text: "all", hit: true }]);
    expect(marks("none")).toEqual([{ text: "none", hit: false }]);
    expect(marks("<mark>a</mark><mark>b</mark>")).toEqual([
      { text: "a", hit: true },
      { text: "b", hit: true },
    ]);
    expect(marks("")).toEqual([]);
  });

  it("hold text as it was written", () => {
    expect(text("&lt;b&gt; &amp; &quot;it&#x27;s&quot;")).toBe(`<b> & "it's"`);
    expect(marks("<mark>&lt;script&gt;</mark>")).toEqual([{ text: "<script>", hit: true }]);
  });

  it("are not made by a note that writes them", () => {
    expect(marks("&lt;mark&gt;no hit&lt;/mark&gt;")).toEqual([{ text: "<mark>no hit</mark>", hit: false }]);
  });

  it("take nothing apart twice", () => {
    expect(text("&amp;lt; &amp;amp; &amp;#x27;")).toBe("&lt; &amp; &#x27;");
  });
});
