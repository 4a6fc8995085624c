/** Markdown as HTML that can do nothing: only what DOMPurify lets through, and links that lead out with no way back. */

import DOMPurify from "dompurify";
import { Marked } from "marked";
import { addressOf } from "./root";

const marked = new Marked({ gfm: true, breaks: true, async: false });

/** Addresses within this server, which a text has without the server's prefix. */
const WITHIN = /^\/(n|files)\/\d/;

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  for (const name of ["href", "src"]) {
    const address = node.getAttribute(name);
    if (address && WITHIN.test(address)) node.setAttribute(name, addressOf(address));
  }
  if (node.tagName === "INPUT" && node.getAttribute("type") !== "checkbox") node.remove();
  if (node.tagName === "A" && !node.getAttribute("href")?.startsWith("#")) {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

/** The HTML, as the `TrustedHTML` that the page's policy asks for where the browser knows it. */
export function render(text: string): string {
  return DOMPurify.sanitize(marked.parse(withoutFrontMatter(text)) as string, {
    USE_PROFILES: { html: true },
    FORBID_TAGS: [
      "style",
      "form",
      "button",
      "textarea",
      "select",
      "option",
      "iframe",
      "video",
      "audio",
      "dialog",
      "canvas",
    ],
    FORBID_ATTR: ["style", "id", "name", "class", "role", "popover", "tabindex", "contenteditable"],
    ADD_URI_SAFE_ATTR: ["type", "start", "align", "colspan", "rowspan", "width", "height", "dir", "lang", "checked"],
    ALLOW_ARIA_ATTR: false,
    ALLOW_DATA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#|\/(?![/\\]))/i,
    RETURN_TRUSTED_TYPE: true,
  }) as unknown as string;
}

const withoutFrontMatter = (text: string): string => text.replace(/^---[ \t]*\r?\n[\s\S]*?\n---[ \t]*(?:\r?\n|$)/, "");

/** The only markup in a snippet is `<mark>`: taken apart, so that no HTML of the server is needed. */
export function marks(snippet: string): { text: string; hit: boolean }[] {
  const plain = (html: string): string =>
    html
      .replace(/&lt;/g, "<")
      .replace(/&gt;/g, ">")
      .replace(/&quot;/g, '"')
      .replace(/&#x27;/g, "'")
      .replace(/&amp;/g, "&");
  return snippet
    .split(/<\/?mark>/)
    .map((text, index) => ({ text: plain(text), hit: index % 2 === 1 }))
    .filter(({ text }) => text);
}
