/** Keeps out of a text what the server would refuse: typed or pasted, it would stop all saving. */

import { EditorState, type Extension, Transaction } from "@codemirror/state";
import { say } from "../notices";

/** Bytes that a text may have. */
const MAX_BYTES = 1024 * 1024;
/** Bytes of one change: more would not fit into a message to the server with what goes around it. */
const MAX_CHANGE_BYTES = MAX_BYTES - 8 * 1024;
const UNPAIRED = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;

const encoder = new TextEncoder();
const bytesOf = (text: string): number => encoder.encode(text).length;

const lines = (text: string): string => text.replace(/\r\n?/g, "\n");

/** Returns a text without what cannot be stored: NUL, and halves of characters. */
export const storable = (text: string): string => text.replaceAll("\0", "").replace(UNPAIRED, "\uFFFD");

/** Returns the longest beginning of a text that fits into a number of bytes of UTF-8. */
export function beginning(text: string, bytes: number): string {
  const { read } = encoder.encodeInto(text, new Uint8Array(Math.max(0, bytes)));
  return text.slice(0, read);
}

interface Change {
  from: number;
  to: number;
  insert: string;
}

/** Corrects or refuses what a user does to the text; what comes from others is taken as it is. */
export const accepted: Extension = EditorState.transactionFilter.of((transaction) => {
  const event = transaction.annotation(Transaction.userEvent);
  if (!transaction.docChanged || event === undefined || event.startsWith("undo") || event.startsWith("redo")) {
    return transaction;
  }
  const changes: Change[] = [];
  let [different, lossy, inserted] = [false, false, 0];
  transaction.changes.iterChanges((from, to, _from, _to, text) => {
    const raw = text.toString();
    const insert = storable(lines(raw));
    different ||= insert !== raw;
    lossy ||= insert !== lines(raw);
    inserted += insert.length;
    changes.push({ from, to, insert });
  });
  const before = transaction.startState;
  // A character takes at most three bytes for each of its units.
  const surelyFits = 3 * (before.doc.length + inserted) <= MAX_CHANGE_BYTES;
  const room = surelyFits ? 0 : roomFor(before, changes);
  if (surelyFits || changes.reduce((sum, { insert }) => sum + bytesOf(insert), 0) <= room) {
    if (!different) return transaction;
    if (lossy) say("Characters that cannot be stored were left out");
    return corrected(before, changes, event);
  }
  const [first] = changes;
  const fits = first && changes.length === 1 ? beginning(first.insert, room) : "";
  offer(before, first && fits ? { ...first, insert: fits } : null);
  return [];
});

/** Returns the bytes that changes may insert. */
function roomFor(before: EditorState, changes: Change[]): number {
  const removed = changes.reduce((sum, { from, to }) => sum + bytesOf(before.sliceDoc(from, to)), 0);
  return Math.min(MAX_CHANGE_BYTES, MAX_BYTES - bytesOf(before.sliceDoc()) + removed);
}

function corrected(before: EditorState, changes: Change[], event: string): Transaction {
  const last = changes.at(-1);
  const set = before.changes(changes);
  return before.update({
    changes: set,
    ...(last && { selection: { anchor: set.mapPos(last.to, 1) } }),
    scrollIntoView: true,
    userEvent: event,
    filter: false,
  });
}

/** The editor that the user is in, for what is offered after a refusal. */
let insert: ((change: Change) => void) | null = null;

/** Says how to insert what was offered, and is called again with `null` when the editor is gone. */
export function insertWith(how: typeof insert): void {
  insert = how;
}

function offer(before: EditorState, change: Change | null): void {
  const text = "A text can have at most 1 MiB, so nothing was inserted";
  if (!change) {
    say(text);
    return;
  }
  const doc = before.doc;
  say(text, () => insert?.({ ...change, to: Math.min(change.to, doc.length) }), "Insert what fits");
}
