/**
 * What was typed and is not on the server yet, as pure functions. The words of a draft are never dropped unasked.
 *
 * The text of a note that is there is shared, and not drafted; of a new one it is drafted until the note is there.
 * Where `/sync` does not work, the text of every note is drafted and saved over REST.
 */

import type { Conflict, Part } from "./api";
import { type Merge, merge, transplant, withMine } from "./merge";
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
  /** The fields that are in conflict with `current`, as they were then. */
  yours?: Partial<Fields>;
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
  /** Whether the text is saved over REST with the other fields. */
  overRest?: boolean;
  /** The local copy of a shared text whose unsaved changes are in this draft, so that they are not sent from there too. */
  absorbed?: string | null;
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
  const names = NAMES.filter(
    (name) => !same(draft.mine[name], base[name]) && (name !== "content" || !draft.base || draft.overRest),
  );
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
  const { base, mine } = draft;
  const error = problem(mine);
  if (error) {
    // The text does not wait until the other fields are right.
    const sendable = base && "content" in changes(draft) && !problem({ ...base, content: mine.content });
    return sendable ? { ...draft, error, sending: { key, fields: { content: mine.content } } } : { ...draft, error };
  }
  const fields = base ? changes(draft) : { ...mine };
  if (Object.keys(fields).length === 0) return { ...draft, error: null };
  // One that was made from the text follows it, until somebody writes another.
  const made = !base || (base.description === description(base) && mine.description === base.description);
  const titled = !base || "title" in fields || "description" in fields;
  if (titled && (!mine.description || made)) {
    const wanted = base || !mine.description ? description(mine) : mine.description;
    if (wanted !== base?.description) fields.description = wanted;
  }
  return { ...draft, error: null, sending: { key, fields } };
}

/** Whether text of a new note waits to be brought into the shared text. */
export const leftover = (draft: Draft): boolean =>
  !draft.overRest && draft.base !== null && draft.mine.content !== draft.base.content;

/** Whether text of the draft is on its way to the server over REST, or has to be decided about. */
export const textPending = (draft: Draft): boolean =>
  "content" in { ...changes(draft), ...draft.sending?.fields } ||
  (draft.conflict?.conflicts.some(({ field }) => field === "content") ?? false);

/** The draft after its request was answered with the note: what was typed meanwhile stays, on the new base. */
export function saved(draft: Draft, note: Note): Draft {
  const before = draft.base ?? BLANK;
  const sent: Fields = { ...before, ...draft.sending?.fields };
  const mine = { ...draft.mine };
  const base = { ...fieldsOf(note), version: note.version };
  const conflicts: Conflict[] = [];
  const merged = fieldsOf(note);
  for (const name of NAMES) {
    const untouched =
      same(mine[name], sent[name]) || (name !== "content" && (same(mine[name], before[name]) || !mine[name]));
    if (untouched || same(mine[name], note[name])) {
      Object.assign(mine, { [name]: note[name] });
    } else if (name === "tags") {
      mine.tags = mergedTags(sent.tags, note.tags, mine.tags);
    } else if (name === "content" && draft.overRest) {
      const both = merge(sent.content, mine.content, note.content);
      conflicts.push(...fielded(both));
      merged.content = both.text;
      if (!both.conflicts.length) mine.content = both.text;
    } else if (name === "content") {
      base.content = sent.content; // what was typed since goes into the shared text
    } else if (!same(note[name], sent[name])) {
      conflicts.push(whole(name, sent[name], note[name], mine[name]));
    }
  }
  const conflict = conflicts.length ? { current: note, merged, conflicts, yours: { ...mine } } : null;
  return { ...draft, id: note.id, created: note.created_date, base, mine, sending: null, error: null, conflict };
}

/** The draft once its text is in the shared one. */
export function moved(draft: Draft): Draft {
  return draft.base ? { ...draft, base: { ...draft.base, content: draft.mine.content } } : draft;
}

const fielded = (both: Merge): Conflict[] => both.conflicts.map((one) => ({ field: "content", ...one }));

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
  if (waiting(draft)) return draft.overRest ? rebased(draft, note) : draft; // the server merges when this is sent
  return { ...draft, base: { ...fieldsOf(note), version: note.version }, mine: fieldsOf(note) };
}

/** The draft on a newer note, so that what others wrote shows in it; as it was where that is for the server to merge. */
function rebased(draft: Draft, note: Note): Draft {
  const base = draft.base ?? BLANK;
  const mine = { ...draft.mine };
  for (const name of NAMES) {
    if (same(mine[name], base[name])) Object.assign(mine, { [name]: note[name] });
    else if (same(note[name], base[name]) || same(note[name], mine[name])) continue;
    else if (name === "tags") mine.tags = mergedTags(base.tags, note.tags, mine.tags);
    else if (name === "content") {
      const both = merge(base.content, mine.content, note.content);
      if (both.conflicts.length) return draft;
      mine.content = both.text;
    } else return draft;
  }
  return { ...draft, base: { ...fieldsOf(note), version: note.version }, mine };
}

/**
 * Moves the words of a shared text into the draft, to be saved over REST.
 *
 * @param note The note as the server has it now.
 * @param ancestor The shared text before the words that the server may not have; null if that is not known.
 * @param words The shared text with these words.
 */
export function absorb(draft: Draft, note: Note, ancestor: string | null, words: string, now: number): Draft {
  const steps: [string | null, string][] = [[ancestor, words]];
  let next = draft;
  if (!draft.overRest && draft.base) {
    if (leftover(draft)) steps.push([draft.base.content, draft.mine.content]);
    const { content } = note;
    next = { ...draft, base: { ...draft.base, content }, mine: { ...draft.mine, content } };
  }
  next = { ...next, overRest: true, touched: now };
  if (!next.conflict) next = rebased(next, note);
  let text = next.mine.content;
  for (const [from, to] of steps) {
    const both = transplant(from, to, text);
    if (both.conflicts.length && !next.conflict) {
      const merged = { ...fieldsOf(note), content: both.text };
      const yours = { content: withMine(both) };
      next = { ...next, conflict: { current: note, merged, conflicts: fielded(both), yours } };
    }
    text = withMine(both);
  }
  return { ...next, error: null, mine: { ...next.mine, content: text } };
}

export function conflicted(draft: Draft, conflict: Clash): Draft {
  return { ...draft, sending: null, conflict: { ...conflict, yours: draft.sending?.fields ?? {} } };
}

export type Choice = "mine" | "theirs";

/** The decision of a conflict. It is about the words in conflict: all else that either side wrote stays. */
export function resolve(draft: Draft, choice: Choice, now: number): Draft {
  if (!draft.conflict || !draft.base) return draft;
  const { current, merged, conflicts, yours = {} } = draft.conflict;
  const theirs = fieldsOf(current);
  const mine: Fields = { ...theirs };
  for (const name of Object.keys(changes(draft)) as Name[]) {
    const clashes = conflicts.filter((one) => one.field === name);
    if (name === "content") {
      const both = { text: merged.content ?? theirs.content, conflicts: clashes };
      const decided = choice === "mine" ? withMine(both) : both.text;
      // Keep the text typed since the conflict.
      mine.content = withMine(merge(yours.content ?? draft.base.content, draft.mine.content, decided));
    } else if (!clashes.length) Object.assign(mine, { [name]: merged[name] ?? draft.mine[name] });
    else if (choice === "mine") Object.assign(mine, { [name]: draft.mine[name] });
  }
  const base = { ...theirs, version: current.version };
  if (leftover(draft)) [base.content, mine.content] = [draft.base.content, draft.mine.content];
  return { ...draft, base, mine, conflict: null, error: null, touched: now };
}

/** Two changes of one text, both applied if they do not touch; else null. */
export function rebase(base: string, mine: string, theirs: string): string | null {
  const both = merge(base, mine, theirs);
  return both.conflicts.length ? null : both.text;
}
