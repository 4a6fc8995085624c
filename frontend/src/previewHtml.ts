/** Turns Markdown into HTML, within limits: the page has to make it safe, insert it and lay it out in one go. */

import { Marked, type Token } from "marked";

/** Levels of lists and quotes: browsers take long to lay out deeper ones. */
const MAX_DEPTH = 100;
/** Levels of HTML tags, which a text may leave open. */
const MAX_TAG_DEPTH = 250;
/** Elements, which take a browser about a second. */
const MAX_ELEMENTS = 30_000;
/** Characters of a tag, with its attributes. */
const MAX_TAG_CHARACTERS = 10_000;
/** Combining and direction characters in a row: a font engine takes long to shape more. */
const ODD_RUN = /[\p{M}\p{Cf}]{100}/u;
/** Each of them is a request. */
const MAX_IMAGES = 500;
const MAX_CHARACTERS = 8 * 1024 * 1024;

const TAG = /<(\/?)([a-z][a-z0-9-]*)([^>]*)/gi;
const VOID = new Set("area base br col embed hr img input link meta source track wbr".split(" "));

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

/** Returns whether a browser can show the HTML quickly. */
function isSmall(html: string): boolean {
  let [elements, images, depth] = [0, 0, 0];
  for (const [, end, tag = "", attributes = ""] of html.matchAll(TAG)) {
    if (attributes.length > MAX_TAG_CHARACTERS) return false;
    const name = tag.toLowerCase();
    if (end) {
      depth = Math.max(0, depth - 1);
      continue;
    }
    elements++;
    if (name === "img") images++;
    if (!VOID.has(name)) depth++;
    if (elements > MAX_ELEMENTS || images > MAX_IMAGES || depth > MAX_TAG_DEPTH) return false;
  }
  return true;
}

/** Returns the HTML of a text, which is not safe yet; null if it is too much for a page. */
export function htmlOf(text: string): string | null {
  try {
    const tokens = marked.lexer(withoutFrontMatter(text));
    if (!isShallow(tokens)) return null;
    const html = marked.parser(tokens);
    return html.length <= MAX_CHARACTERS && !ODD_RUN.test(html) && isSmall(html) ? html : null;
  } catch (error) {
    console.warn("The text cannot be shown as Markdown", error);
    return null;
  }
}
