/** The text of a note in CodeMirror: Markdown, undo, search, wrapped lines; shared with whoever is at it, too. */

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, type Extension, Prec, Text, Transaction } from "@codemirror/state";
import { drawSelection, EditorView, keymap, placeholder } from "@codemirror/view";
import { useLayoutEffect, useRef } from "preact/hooks";
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next";
import type { Room } from "../room";
import { splice } from "../splice";
import { accepted, insertWith } from "./accepted";
import { cursors } from "./cursors";
import { highlighting } from "./highlighting";

const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";
const still = matchMedia("(prefers-reduced-motion: reduce)");

interface Props {
  /** The text, where nothing is shared yet. */
  text: string;
  /** Called with what is typed while nothing is shared yet. */
  change: (text: string) => void;
  /** The shared text, once it is there. */
  room: Room | null;
  label: string;
  readOnly: boolean;
  /** Where somebody typed before the editor was there, which goes on from there. */
  caret: { anchor: number; head: number } | null;
}

/** Undo takes back only what was typed here: in a shared text the others' words are not ours to take. */
const alone = (): Extension => [history(), keymap.of(historyKeymap)];
const together = (room: Room): Extension => [yCollab(room.text, null), cursors(room)];

const reading: Extension = [
  EditorState.readOnly.of(true),
  EditorView.editable.of(false),
  EditorView.contentAttributes.of({ tabindex: "0", "aria-readonly": "true" }), // by keyboard, too
];
/** The shared text's own undo does not ask whether one may write. */
const writing = (shared: boolean): Extension => [
  placeholder("Write in Markdown…"),
  shared ? Prec.high(keymap.of(yUndoManagerKeymap)) : [],
];
const access = ({ room, readOnly }: Props): Extension => (readOnly ? reading : writing(room !== null));

export function Editor(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const shared = useRef({ room: null as Room | null, sharing: new Compartment(), access: new Compartment() });

  useLayoutEffect(() => {
    const { room, text, label, caret } = latest.current;
    const { sharing } = shared.current;
    shared.current.room = room;
    const doc = room ? room.text.toString() : text;
    view.current = new EditorView({
      parent: place.current as HTMLDivElement,
      state: EditorState.create({
        doc,
        ...(caret && { selection: caret }),
        extensions: [
          EditorView.cspNonce.of(nonce),
          EditorState.lineSeparator.of("\n"),
          sharing.of(room ? together(room) : alone()),
          drawSelection({ cursorBlinkRate: still.matches ? 0 : 1200 }),
          accepted,
          search({ top: true }),
          highlightSelectionMatches(),
          highlighting(Text.of(doc.split("\n"))),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({
            "aria-label": label,
            spellcheck: "true",
            autocapitalize: "sentences",
          }),
          shared.current.access.of(access(latest.current)),
          // Escape, then Tab, leaves the editor: nobody is trapped in it.
          keymap.of([...defaultKeymap, ...searchKeymap, indentWithTab]),
          EditorView.updateListener.of((update) => {
            if (!update.docChanged || shared.current.room) return;
            const typed = update.state.sliceDoc();
            if (typed !== latest.current.text) latest.current.change(typed);
          }),
        ],
      }),
    });
    if (caret) view.current.focus();
    insertWith((change) => view.current?.dispatch({ changes: change, userEvent: "input.paste" }));
    return () => {
      insertWith(null);
      view.current?.destroy();
    };
  }, []);

  // Before anything else can be typed.
  useLayoutEffect(() => {
    const editor = view.current;
    const { room, text } = props;
    if (!editor || shared.current.room === room) return;
    // What was typed alone is in the shared text by now: the caret stays, and what is typed next is shared. Or the other
    // way round: the text is shared no longer, and what is typed next is typed into the note.
    shared.current.room = room;
    const { start, end, text: insert } = splice(editor.state.sliceDoc(), room ? room.text.toString() : text);
    const effects = shared.current.sharing.reconfigure(room ? together(room) : alone());
    editor.dispatch({ changes: { from: start, to: end, insert }, effects }); // at once: not into a text before it
  }, [props.room]);

  // Where nothing is shared yet, others change the note itself: what is typed next is typed into that.
  useLayoutEffect(() => {
    const editor = view.current;
    if (!editor || shared.current.room || editor.state.sliceDoc() === props.text) return;
    const { start, end, text: insert } = splice(editor.state.sliceDoc(), props.text);
    const annotations = Transaction.addToHistory.of(false);
    editor.dispatch({ changes: { from: start, to: end, insert }, annotations });
  }, [props.text]);

  useLayoutEffect(() => {
    view.current?.dispatch({ effects: shared.current.access.reconfigure(access(latest.current)) });
  }, [props.room, props.readOnly]);

  return <div class="editor" ref={place} />;
}
