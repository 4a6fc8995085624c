/**
 * What was typed and is not on the server yet, as pure functions. The words of a draft are never dropped unasked.
 *
 * The text of a note that is there is shared, and not drafted; of a new one it is drafted until the note is there.
 */

import { diff3Merge } from "node-diff3";
import type { Conflict, Part } from "./api";
import type { Note } from "./types";

export type Fields = Pick<Note, "title" | "description" | "tags" | "content">;
export type Name = keyof Fields;
export const NAMES: Name[] = ["title", "description", "tags", "content"];

export interface Sending {
  key: string;
  fields: Partial<Fields>;
}

/** Both sides changed the same words. `merged` holds what could be merged, with their words in the conflicts. */
export interface Clash {
  current: Note;
  merged: Partial<Fields>;
  conflicts: Conflict[];
}

export interface Draft {
  /** Where it is stored: one of each tab for each note. */
  key: string;
  tab: string;
  /** Null until a new note has its id. */
  id: number | null;
  /** The note that was written on. */
  base: (Fields & { version: number }) | null;
  /** When the note was made. */
  created: string | null;
  mine: Fields;
  /** A request that was or will be made, to be repeated as it is until its outcome is known. */
  sending: Sending | null;
  conflict: Clash | null;
  error: string | null;
  touched: number;
}

export const BLANK: Fields = { title: "", description: "", tags: [], content: "" };

export const fieldsOf = ({ title, description, tags, content }: Fields): Fields => ({
  title,
  description,
  tags,
  content,
});

export const same = (a: unknown, b: unknown): boolean =>
  a === b || (typeof a !== "string" && JSON.stringify(a) === JSON.stringify(b));

/** What differs from the note. An empty description is none: a note must have one. */
export function changes(draft: Draft): Partial<Fields> {
  const base = draft.base ?? BLANK;
  const names = NAMES.filter((name) => !same(draft.mine[name], base[name]) && (name !== "content" || !draft.base));
  const said = names.filter((name) => name !== "description" || draft.mine.description !== "");
  return Object.fromEntries(said.map((name) => [name, draft.mine[name]]));
}

/** Whether anything of it is not on the server. */
export const waiting = (draft: Draft): boolean =>
  draft.sending !== null || Object.keys(changes(draft)).length > 0 || leftover(draft);

export function edit(draft: Draft, fields: Partial<Fields>, now: number): Draft {
  return { ...draft, mine: { ...draft.mine, ...fields }, error: null, touched: now };
}

/** What stands in the way of sending, in words for people. */
export function problem(fields: Fields): string | null {
  const long = (text: string): number => [...text].length;
  if (long(fields.title) < 3) return "The title needs at least 3 characters";
  if (long(fields.title) > 50) return "The title can have at most 50 characters";
  if (fields.description && long(fields.description) < 3) return "The description needs at least 3 characters";
  if (long(fields.description) > 50) return "The description can have at most 50 characters";
  if (fields.tags.length > 32) return "A note can have at most 32 tags";
  if (fields.tags.some((tag) => long(tag) > 50)) return "A tag can have at most 50 characters";
  if (NAMES.some((name) => name !== "tags" && fields[name].includes("\0"))) return "NUL characters cannot be stored";
  if (new TextEncoder().encode(fields.content).length > 1024 * 1024) return "The text can have at most 1 MiB";
  return null;
}

/** A description for who wrote none: the first line of text, else the title. */
export function description(fields: Fields): string {
  const lines = fields.content.split("\n", 50).map((line) => line.replace(/^[#>*\-\s]+/, "").trim());
  const line = lines.find((one) => [...one].length >= 3 && one !== fields.title) ?? fields.title;
  return [...line].slice(0, 50).join("");
}

/** The draft with its next request, if there is something to send and nothing in the way. */
export function begin(draft: Draft, key: string): Draft {
  if (draft.sending || draft.conflict || (!draft.base && same(draft.mine, BLANK))) return draft;
  const error = problem(draft.mine);
  if (error) return { ...draft, error };
  const { base, mine } = draft;
  const fields = base ? changes(draft) : { ...mine };
  if (Object.keys(fields).length === 0) return { ...draft, error: null };
  // One that was made from the text follows it, until somebody writes another.
  const made = !base || (base.description === description(base) && mine.description === base.description);
  if (!mine.description || made) {
    const wanted = base || !mine.description ? description(mine) : mine.description;
    if (wanted !== base?.description) fields.description = wanted;
  }
  return { ...draft, error: null, sending: { key, fields } };
}

/** Whether text of a new note waits to be brought into the shared text. */
export const leftover = (draft: Draft): boolean => draft.base !== null && draft.mine.content !== draft.base.content;

/** The draft after its request was answered with the note: what was typed meanwhile stays, on the new base. */
export function saved(draft: Draft, note: Note): Draft {
  const before = draft.base ?? BLANK;
  const sent: Fields = { ...before, ...draft.sending?.fields };
  const mine = { ...draft.mine };
  const base = { ...fieldsOf(note), version: note.version };
  const conflicts: Conflict[] = [];
  for (const name of NAMES) {
    const untouched =
      same(mine[name], sent[name]) || same(mine[name], before[name]) || (name !== "content" && !mine[name]);
    if (untouched || same(mine[name], note[name])) {
      Object.assign(mine, { [name]: note[name] });
    } else if (name === "tags") {
      mine.tags = mergedTags(sent.tags, note.tags, mine.tags);
    } else if (name === "content") {
      base.content = sent.content; // what was typed since goes into the shared text
    } else if (!same(note[name], sent[name])) {
      conflicts.push(whole(name, sent[name], note[name], mine[name]));
    }
  }
  const conflict = conflicts.length ? { current: note, merged: fieldsOf(note), conflicts } : null;
  return { ...draft, id: note.id, created: note.created_date, base, mine, sending: null, error: null, conflict };
}

/** The draft once its text is in the shared one. */
export function moved(draft: Draft): Draft {
  return draft.base ? { ...draft, base: { ...draft.base, content: draft.mine.content } } : draft;
}

const mergedTags = (base: string[], theirs: string[], mine: string[]): string[] => {
  const kept = theirs.filter((tag) => mine.includes(tag) || !base.includes(tag));
  return [...kept, ...mine.filter((tag) => !base.includes(tag) && !kept.includes(tag))];
};

const part = (text: string): Part => ({ start: 0, end: [...text].length, text });

const whole = (field: string, base: string, current: string, yours: string): Conflict => ({
  ...{ field, base: part(base), current: part(current), yours: part(yours) },
  merged: part(current),
});

/** A note that changed elsewhere, under a draft: fields that were not touched follow it at once. */
export function follow(draft: Draft, note: Note): Draft {
  if (!draft.base || draft.sending || draft.conflict || note.version <= draft.base.version) return draft;
  if (waiting(draft)) return draft; // the server merges when this is sent
  return { ...draft, base: { ...fieldsOf(note), version: note.version }, mine: fieldsOf(note) };
}

export function conflicted(draft: Draft, conflict: Clash): Draft {
  return { ...draft, sending: null, conflict };
}

export type Choice = "mine" | "theirs";

/** The decision of a conflict. It is about the fields in conflict: all else that either side wrote stays. */
export function resolve(draft: Draft, choice: Choice, now: number): Draft {
  if (!draft.conflict || !draft.base) return draft;
  const { current, merged, conflicts } = draft.conflict;
  const theirs = fieldsOf(current);
  const mine: Fields = { ...theirs };
  for (const name of Object.keys(changes(draft)) as Name[]) {
    const clashes = conflicts.some((one) => one.field === name);
    if (!clashes) Object.assign(mine, { [name]: merged[name] ?? draft.mine[name] });
    else if (choice === "mine") Object.assign(mine, { [name]: draft.mine[name] });
  }
  const base = { ...theirs, version: current.version };
  if (leftover(draft)) [base.content, mine.content] = [draft.base.content, draft.mine.content];
  return { ...draft, base, mine, conflict: null, error: null, touched: now };
}

/** Two changes of one text, both applied if they do not touch; else null. */
export function rebase(base: string, mine: string, theirs: string): string | null {
  if (mine === base || mine === theirs) return theirs;
  if (theirs === base) return mine;
  const [a, b] = [splice(base, mine), splice(base, theirs)];
  if (a.end < b.start) return base.slice(0, a.start) + a.text + base.slice(a.end, b.start) + b.text + base.slice(b.end);
  if (b.end < a.start) return base.slice(0, b.start) + b.text + base.slice(b.end, a.start) + a.text + base.slice(a.end);
  const lines = (text: string): string[] => text.split("\n");
  const merged = diff3Merge(lines(mine), lines(base), lines(theirs), { excludeFalseConflicts: true });
  return merged.some((piece) => piece.conflict) ? null : merged.flatMap((piece) => piece.ok ?? []).join("\n");
}

export interface Splice {
  start: number;
  end: number;
  text: string;
}

const isHigh = (unit: number): boolean => unit >= 0xd800 && unit < 0xdc00;
const isLow = (unit: number): boolean => unit >= 0xdc00 && unit < 0xe000;

/** What was replaced between the common beginning and the common end of two texts. */
export function splice(before: string, after: string): Splice {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start++;
  if (start > 0 && isHigh(before.charCodeAt(start - 1))) start--; // never between the halves of a character
  let end = 0;
  while (end < most - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  if (end > 0 && isLow(before.charCodeAt(before.length - end))) end--;
  return { start, end: before.length - end, text: after.slice(start, after.length - end) };
}
