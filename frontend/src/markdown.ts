/** Markdown as HTML that can do nothing: only what DOMPurify lets through, and links that lead out with no way back. */

import DOMPurify from "dompurify";
import { Renderer } from "./preview";
import workerUrl from "./previewWorker?worker&url";
import { addressOf } from "./root";

interface Policy {
  createHTML(html: string): unknown;
  createScriptURL(url: string): unknown;
}

/**
 * The only policy that the page's Content-Security-Policy allows, under the name that DOMPurify would use itself.
 *
 * It is handed to DOMPurify, which makes HTML safe first, and lets one script run: the worker's.
 */
const policy = (
  globalThis as { trustedTypes?: { createPolicy(name: string, rules: Policy): Policy } }
).trustedTypes?.createPolicy("dompurify", {
  createHTML: (html) => html,
  createScriptURL: (url) => {
    if (url !== workerUrl) throw new TypeError("Only the worker of the preview may run");
    return url;
  },
});

const renderer = new Renderer(
  () => new Worker((policy?.createScriptURL(workerUrl) ?? workerUrl) as string, { type: "module", name: "preview" }),
);

/** Addresses within this server, which a text has without the server's prefix. */
const WITHIN = /^\/(n|files)\/\d/;

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  for (const name of ["href", "src"]) {
    const address = node.getAttribute(name);
    if (address && WITHIN.test(address)) node.setAttribute(name, addressOf(address));
  }
  if (node.tagName === "IMG") node.setAttribute("loading", "lazy");
  if (node.tagName === "INPUT" && node.getAttribute("type") !== "checkbox") node.remove();
  if (node.tagName === "A" && !node.getAttribute("href")?.startsWith("#")) {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
});

/** Returns the HTML of a Markdown text, or null if it cannot be made in time. */
export async function render(text: string): Promise<string | null> {
  const html = await renderer.render(text);
  return html === null ? null : sanitized(html);
}

/** The HTML, as the `TrustedHTML` that the page's policy asks for where the browser knows it. */
function sanitized(html: string): string {
  return DOMPurify.sanitize(html, {
    ...(policy && { TRUSTED_TYPES_POLICY: policy as never }),
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
