/** The text of a note in CodeMirror: Markdown, undo, search, wrapped lines. */

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { markdown } from "@codemirror/lang-markdown";
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { Annotation, EditorState } from "@codemirror/state";
import { drawSelection, EditorView, keymap, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { splice } from "../drafts";

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

const outside = Annotation.define<boolean>();
const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";

const still = matchMedia("(prefers-reduced-motion: reduce)");

interface Props {
  /** The text as it is to be now, read from signals; undefined while there is none. */
  text: () => string | undefined;
  change: (text: string) => void;
  label: string;
}

export function Editor(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  const change = useRef(props.change);
  change.current = props.change;
  const text = useRef(props.text);
  text.current = props.text;

  useEffect(() => {
    const made = new EditorView({
      parent: place.current as HTMLDivElement,
      state: EditorState.create({
        doc: props.text() ?? "",
        extensions: [
          EditorView.cspNonce.of(nonce),
          EditorState.lineSeparator.of("\n"),
          history(),
          drawSelection({ cursorBlinkRate: still.matches ? 0 : 1200 }),
          search({ top: true }),
          highlightSelectionMatches(),
          markdown(),
          syntaxHighlighting(style),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({
            "aria-label": props.label,
            spellcheck: "true",
            autocapitalize: "sentences",
          }),
          placeholder("Write in Markdown…"),
          // Escape, then Tab, leaves the editor: nobody is trapped in it.
          keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
          EditorView.updateListener.of((update) => {
            if (update.docChanged && !update.transactions.some((one) => one.annotation(outside))) {
              change.current(update.state.sliceDoc());
            }
          }),
        ],
      }),
    });
    // At once, and not with the next rendering: what is typed in between would be taken back, or take back this.
    const stop = effect(() => {
      const now = text.current();
      const before = made.state.sliceDoc();
      if (now === undefined || now === before) return;
      // Only what differs is replaced, so that the cursor stays where it belongs.
      const { start, end, text: insert } = splice(before, now);
      made.dispatch({ changes: { from: start, to: end, insert }, annotations: outside.of(true) });
    });
    return () => {
      stop();
      made.destroy();
    };
  }, []);

  return <div class="editor" ref={place} />;
}
