/** What was typed and is not on the server yet, as pure functions. The words of a draft are never dropped unasked. */

import type { Conflict } from "./api";
import type { Note } from "./types";

export type Fields = Pick<Note, "title" | "description" | "tags" | "content">;
export type Name = keyof Fields;
export const NAMES: Name[] = ["title", "description", "tags", "content"];

export interface Sending {
  key: string;
  fields: Partial<Fields>;
}

export interface Draft {
  /** Where it is stored: one of each tab for each note. */
  key: string;
  tab: string;
  /** Null until a new note has its id. */
  id: number | null;
  /** The note that was written on. */
  base: (Fields & { version: number }) | null;
  mine: Fields;
  /** A request that was or will be made, to be repeated as it is until its outcome is known. */
  sending: Sending | null;
  conflict: { current: Note; conflicts: Conflict[] } | null;
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

export const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

export function changes(draft: Draft): Partial<Fields> {
  const base = draft.base ?? BLANK;
  return Object.fromEntries(NAMES.filter((name) => !same(draft.mine[name], base[name])).map((n) => [n, draft.mine[n]]));
}

/** Whether anything of it is not on the server. */
export const waiting = (draft: Draft): boolean => draft.sending !== null || Object.keys(changes(draft)).length > 0;

export function edit(draft: Draft, fields: Partial<Fields>, now: number): Draft {
  return { ...draft, mine: { ...draft.mine, ...fields }, error: null, touched: now };
}

/** What stands in the way of sending, in words for people. */
export function problem(fields: Fields): string | null {
  const long = (text: string): number => [...text].length;
  if (long(fields.title) < 3) return "The title needs at least 3 characters";
  if (long(fields.title) > 50) return "The title can have at most 50 characters";
  if (long(fields.description) > 50) return "The description can have at most 50 characters";
  if (fields.tags.length > 32) return "A note can have at most 32 tags";
  if (fields.tags.some((tag) => long(tag) > 50)) return "A tag can have at most 50 characters";
  if (NAMES.some((name) => name !== "tags" && fields[name].includes("\0"))) return "NUL characters cannot be stored";
  if (new TextEncoder().encode(fields.content).length > 1024 * 1024) return "The text can have at most 1 MiB";
  return null;
}

/** A description for who wrote none: the first line of text, else the title. */
export function description(fields: Fields): string {
  if ([...fields.description].length >= 3) return fields.description;
  const lines = fields.content.split("\n").map((line) => line.replace(/^[#>*\-\s]+/, "").trim());
  const line = lines.find((one) => one.length >= 3 && one !== fields.title) ?? fields.title;
  return [...line].slice(0, 50).join("");
}

/** The draft with its next request, if there is something to send and nothing in the way. */
export function begin(draft: Draft, key: string): Draft {
  if (draft.sending || draft.conflict) return draft;
  const error = problem(draft.mine);
  if (error) return { ...draft, error };
  const mine = { ...draft.mine, description: description(draft.mine) };
  const next = { ...draft, mine, error: null };
  const fields = draft.base ? changes(next) : mine;
  return Object.keys(fields).length ? { ...next, sending: { key, fields } } : next;
}

/** The draft after its request was answered with the note: what was typed meanwhile stays, on the new base. */
export function saved(draft: Draft, note: Note): Draft {
  const sent: Fields = { ...(draft.base ?? BLANK), ...draft.sending?.fields };
  const next: Draft = { ...draft, id: note.id, base: { ...fieldsOf(note), version: note.version }, sending: null };
  const mine = { ...draft.mine };
  let clash = false;
  for (const name of NAMES) {
    if (same(mine[name], sent[name])) Object.assign(mine, { [name]: note[name] });
    else if (name === "content" && note.content !== sent.content) {
      const both = rebase(sent.content, mine.content, note.content);
      if (both === null) clash = true;
      else mine.content = both;
    }
  }
  return { ...next, mine, error: null, conflict: clash ? { current: note, conflicts: [] } : null };
}

/** A note that changed elsewhere, under a draft: fields that were not touched follow it at once. */
export function follow(draft: Draft, note: Note): Draft {
  if (!draft.base || draft.sending || draft.conflict || note.version <= draft.base.version) return draft;
  if (waiting(draft)) return draft; // the server merges when this is sent
  return { ...draft, base: { ...fieldsOf(note), version: note.version }, mine: fieldsOf(note) };
}

export function conflicted(draft: Draft, current: Note, conflicts: Conflict[]): Draft {
  return { ...draft, sending: null, conflict: { current, conflicts } };
}

/** The decision of a conflict: my fields, theirs, or both texts one below the other. */
export function resolve(draft: Draft, choice: "mine" | "theirs" | "both", now: number): Draft {
  if (!draft.conflict) return draft;
  const { current } = draft.conflict;
  const touched = changes(draft);
  const theirs = fieldsOf(current);
  const mine = choice === "theirs" ? theirs : { ...theirs, ...touched };
  if (choice === "both" && touched.content !== undefined && touched.content !== theirs.content) {
    mine.content = `${theirs.content.replace(/\n*$/, "\n\n")}${touched.content}`;
  }
  return { ...draft, base: { ...theirs, version: current.version }, mine, conflict: null, error: null, touched: now };
}

/** Two changes of one text, both applied if they do not touch; else null. */
export function rebase(base: string, mine: string, theirs: string): string | null {
  if (mine === base || mine === theirs) return theirs;
  if (theirs === base) return mine;
  const [a, b] = [splice(base, mine), splice(base, theirs)];
  if (a.end < b.start) return base.slice(0, a.start) + a.text + base.slice(a.end, b.start) + b.text + base.slice(b.end);
  if (b.end < a.start) return base.slice(0, b.start) + b.text + base.slice(b.end, a.start) + a.text + base.slice(a.end);
  return null;
}

export interface Splice {
  start: number;
  end: number;
  text: string;
}

/** What was replaced between the common beginning and the common end of two texts. */
export function splice(before: string, after: string): Splice {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start++;
  let end = 0;
  while (end < most - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  return { start, end: before.length - end, text: after.slice(start, after.length - end) };
}
