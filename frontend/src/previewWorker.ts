/** Turns Markdown into HTML in a worker: there are texts that take any amount of time, and the page must not wait. */

import { Marked, type Token } from "marked";

/** A text to turn into HTML. */
export interface Job {
  number: number;
  text: string;
}

/** The HTML of a text, which is not safe yet; null if there is none. */
export interface Result {
  number: number;
  html: string | null;
}

/** Browsers take long to lay out what is nested deeper. */
const MAX_DEPTH = 100;
const MAX_CHARACTERS = 8 * 1024 * 1024;

const marked = new Marked({ gfm: true, breaks: true, async: false });

const withoutFrontMatter = (text: string): string => text.replace(/^---[ \t]*\r?\n[\s\S]*?\n---[ \t]*(?:\r?\n|$)/, "");

function isShallow(tokens: Token[]): boolean {
  const waiting = tokens.map((token): [Token, number] => [token, 1]);
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    const [token, depth] = next;
    if (depth > MAX_DEPTH) return false;
    const children = [...(("tokens" in token && token.tokens) || []), ...(token.type === "list" ? token.items : [])];
    for (const child of children) waiting.push([child as Token, depth + 1]);
  }
  return true;
}

function htmlOf(text: string): string | null {
  try {
    const tokens = marked.lexer(withoutFrontMatter(text));
    const html = isShallow(tokens) ? marked.parser(tokens) : "";
    return html.length > MAX_CHARACTERS || (html === "" && tokens.length > 0) ? null : html;
  } catch (error) {
    console.warn("The text cannot be shown as Markdown", error);
    return null;
  }
}

/** The number of no job: says that the worker is loaded. */
const LOADED: Result = { number: 0, html: null };

postMessage(LOADED);
addEventListener("message", ({ data }: MessageEvent<Job>) => {
  const result: Result = { number: data.number, html: htmlOf(data.text) };
  postMessage(result);
});
