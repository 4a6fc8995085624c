/** Markdown's colours in the editor, left out where they would take too long. */

import { markdownKeymap, markdownLanguage } from "@codemirror/lang-markdown";
import { HighlightStyle, LanguageSupport, syntaxHighlighting } from "@codemirror/language";
import { Compartment, type EditorState, type Extension, Prec, type Text } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { tags } from "@lezer/highlight";

/** The parser takes a paragraph as a whole, in a time that grows with the square of its length. */
export const MAX_PARAGRAPH = 50_000;

const style = HighlightStyle.define([
  { tag: tags.heading, fontWeight: "700", color: "var(--ink)" },
  { tag: tags.strong, fontWeight: "700" },
  { tag: tags.emphasis, fontStyle: "italic" },
  { tag: tags.link, color: "var(--accent)" },
  { tag: tags.url, color: "var(--accent)" },
  { tag: tags.monospace, color: "var(--code)" },
  { tag: tags.quote, color: "var(--faint)" },
  { tag: tags.processingInstruction, color: "var(--faint)" },
]);

/** Without the languages within HTML blocks that `markdown()` brings: they are a third of the editor. */
const markdown = new LanguageSupport(markdownLanguage, Prec.high(keymap.of(markdownKeymap)));

const highlighted: Extension = [markdown, syntaxHighlighting(style)];

/** Whether a text has a paragraph that is too long, in the part around a range or anywhere. */
export function hasLongParagraph(doc: Text, from = 0, to = doc.length): boolean {
  if (doc.length <= MAX_PARAGRAPH) return false;
  let first = doc.lineAt(from).number;
  for (let size = 0; first > 1 && size <= MAX_PARAGRAPH; first--) {
    const before = doc.line(first - 1);
    if (isBlank(before.text)) break;
    size += before.length;
  }
  let size = 0;
  for (let number = first; number <= doc.lines; number++) {
    const line = doc.line(number);
    const blank = line.length <= 1000 && isBlank(line.text);
    if (blank && line.from > to) return false;
    size = blank ? 0 : size + line.length + 1;
    if (size > MAX_PARAGRAPH) return true;
  }
  return false;
}

const isBlank = (text: string): boolean => text.trim() === "";

/** Returns the highlighting of a text, which goes away for good when a paragraph gets too long. */
export function highlighting(doc: Text): Extension {
  const compartment = new Compartment();
  const isOn = (state: EditorState): boolean => compartment.get(state) === highlighted;
  return [
    compartment.of(hasLongParagraph(doc) ? [] : highlighted),
    EditorView.updateListener.of(({ docChanged, changes, state, view }) => {
      if (!docChanged || !isOn(state)) return;
      let long = false;
      changes.iterChangedRanges((_from, _to, from, to) => {
        long ||= hasLongParagraph(state.doc, from, to);
      });
      if (long) queueMicrotask(() => view.dispatch({ effects: compartment.reconfigure([]) }));
    }),
  ];
}
