/** Sends drafts, keeps them in IndexedDB until they are on the server, and takes over those of tabs that are gone. */

import { computed, signal } from "@preact/signals";
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import * as api from "./api";
import { pause } from "./backoff";
import {
  BLANK,
  begin,
  conflicted,
  type Draft,
  edit,
  type Fields,
  fieldsOf,
  follow,
  resolve,
  saved,
  waiting,
} from "./drafts";
import type { Note } from "./types";

interface Stored extends DBSchema {
  drafts: { key: string; value: Draft };
}

const QUIET = 700;
const ORPHANED = 30_000;

export type Light =
  | { state: "saved" }
  | { state: "saving" }
  | { state: "offline"; waiting: number }
  | { state: "conflict"; key: string }
  | { state: "unsaved"; reason: string; key: string };

export const drafts = signal<ReadonlyMap<string, Draft>>(new Map());
export const reachable = signal(true);
const busy = signal<ReadonlySet<string>>(new Set());

export const light = computed<Light>(() => {
  const all = [...drafts.value.values()];
  const conflict = all.find((draft) => draft.conflict);
  if (conflict) return { state: "conflict", key: conflict.key };
  const open = all.filter(waiting);
  if (open.length && !reachable.value) return { state: "offline", waiting: open.length };
  const stuck = open.find((draft) => draft.error);
  if (stuck?.error) return { state: "unsaved", reason: stuck.error, key: stuck.key };
  if (open.length) return { state: "saving" };
  return reachable.value ? { state: "saved" } : { state: "offline", waiting: 0 };
});

export const unsent = (): number => [...drafts.value.values()].filter(waiting).length;

/** Random, also where the page is not in a secure context. */
export function unique(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Under which key a note was drafted before it had its id: what shows it goes on as if nothing had happened. */
export const made = new Map<number, string>();

let tab = unique();
let database: IDBPDatabase<Stored> | null = null;
let onMade: (key: string, note: Note) => void = () => {};
let onNote: (note: Note) => void = () => {};
const timers = new Map<string, ReturnType<typeof setTimeout>>();
const failures = new Map<string, number>();

/** Opens the storage, and takes over what tabs that are gone have left. */
export async function start(born: (key: string, note: Note) => void, told: (note: Note) => void): Promise<void> {
  onMade = born;
  onNote = told;
  await claimTab();
  try {
    database = await openDB<Stored>("notes", 1, {
      upgrade: (opened) => {
        opened.createObjectStore("drafts", { keyPath: "key" });
      },
    });
    const left = await database.getAll("drafts");
    const living = await livingTabs();
    for (const draft of left) {
      const orphaned = living ? !living.has(draft.tab) : Date.now() - draft.touched > ORPHANED;
      if (draft.tab !== tab && !orphaned) continue;
      put({ ...draft, tab });
      schedule(draft.key, 0);
    }
  } catch (error) {
    console.warn("Drafts cannot be kept in this browser", error);
  }
  addEventListener("online", () => hurry());
}

async function claimTab(): Promise<void> {
  if (!navigator.locks) return;
  const claim = (id: string): Promise<boolean> =>
    new Promise((resolved) => {
      void navigator.locks.request(`tab:${id}`, { ifAvailable: true }, (lock) => {
        resolved(lock !== null);
        return lock ? new Promise<void>(() => {}) : undefined; // held until the tab is gone
      });
    });
  const before = sessionStorage.getItem("tab");
  if (before && (await claim(before))) tab = before;
  else await claim(tab);
  sessionStorage.setItem("tab", tab);
}

async function livingTabs(): Promise<Set<string> | null> {
  if (!navigator.locks) return null;
  const { held = [] } = await navigator.locks.query();
  return new Set(held.flatMap(({ name }) => (name?.startsWith("tab:") ? [name.slice(4)] : [])));
}

function put(draft: Draft): void {
  drafts.value = new Map(drafts.value).set(draft.key, draft);
  void database?.put("drafts", draft).catch((error: unknown) => console.warn("A draft was not kept", error));
}

function drop(key: string): void {
  const left = new Map(drafts.value);
  left.delete(key);
  drafts.value = left;
  clearTimeout(timers.get(key));
  void database?.delete("drafts", key);
}

export const draftOf = (id: number): Draft | undefined => [...drafts.value.values()].find((draft) => draft.id === id);

/** A new note that exists only here so far. */
export function compose(): Draft {
  const key = `new-${unique()}`;
  const draft: Draft = {
    ...{ key, tab, id: null, base: null, mine: BLANK, sending: null, conflict: null, error: null },
    touched: Date.now(),
  };
  put(draft);
  return draft;
}

/** Takes what was typed into a note, or into a draft of a new one. */
export function type(target: Note | Draft, fields: Partial<Fields>): void {
  const draft =
    "key" in target
      ? drafts.value.get(target.key)
      : (draftOf(target.id) ?? {
          ...{ key: `${target.id}-${tab}`, tab, id: target.id, mine: fieldsOf(target) },
          ...{ base: { ...fieldsOf(target), version: target.version }, sending: null, conflict: null, error: null },
          touched: 0,
        });
  if (!draft) return;
  put(edit(draft, fields, Date.now()));
  schedule(draft.key, QUIET);
}

export function discard(key: string): void {
  drop(key);
}

export function decide(key: string, choice: "mine" | "theirs" | "both"): void {
  const draft = drafts.value.get(key);
  if (!draft) return;
  const next = resolve(draft, choice, Date.now());
  put(next);
  if (next.base) onNote({ ...next.base, ...fieldsOf(next.base), ...headOf(draft) } as Note);
  schedule(key, 0);
}

const headOf = (draft: Draft): Partial<Note> => (draft.conflict ? draft.conflict.current : {});

/** A note changed elsewhere: drafts without words of their own follow. */
export function changedElsewhere(note: Note): void {
  const draft = draftOf(note.id);
  if (!draft) return;
  const next = follow(draft, note);
  if (next !== draft) put(next);
}

export function schedule(key: string, after: number): void {
  clearTimeout(timers.get(key));
  timers.set(
    key,
    setTimeout(() => void flush(key), after),
  );
}

/** Sends everything now. */
export function hurry(): void {
  for (const key of drafts.value.keys()) schedule(key, 0);
}

async function flush(key: string): Promise<void> {
  const before = drafts.value.get(key);
  if (!before || busy.value.has(key)) return;
  const draft = begin(before, unique());
  if (draft !== before) put(draft);
  if (!draft.sending) {
    if (!waiting(draft) && !draft.conflict && draft.id !== null) drop(key);
    return;
  }
  busy.value = new Set(busy.value).add(key);
  try {
    const { fields, key: once } = draft.sending;
    const note =
      draft.id === null || draft.base === null
        ? await api.create(fields as Fields, once)
        : await api.patch(draft.id, draft.base.version, fields, once);
    reachable.value = true;
    failures.delete(key);
    settle(key, note);
  } catch (error) {
    failed(key, error);
  } finally {
    const left = new Set(busy.value);
    left.delete(key);
    busy.value = left;
  }
}

function settle(key: string, note: Note): void {
  const now = drafts.value.get(key);
  if (!now) return;
  const next = saved(now, note);
  if (now.id === null) {
    made.set(note.id, key);
    put(next);
    onMade(key, note);
  }
  onNote(note);
  if (waiting(next) || next.conflict) {
    put(next);
    schedule(key, QUIET);
  } else {
    drop(key);
  }
}

function failed(key: string, error: unknown): void {
  const now = drafts.value.get(key);
  if (!now || !(error instanceof api.ApiError)) throw error;
  const current = error.body.note;
  if (error.passing) {
    if (error.status === 0) reachable.value = false;
    const times = (failures.get(key) ?? 0) + 1;
    failures.set(key, times);
    schedule(key, Math.max(250, pause(times)));
  } else if (error.status === 409 && current) {
    put(conflicted(now, current, error.body.conflicts ?? []));
  } else if (error.status === 404) {
    // Deleted meanwhile: what was typed becomes a note of its own, when the writer says so.
    put({ ...now, sending: null, error: "This note was deleted elsewhere" });
  } else {
    put({ ...now, sending: null, error: error.message });
  }
}

/** Makes a new note of a draft whose note was deleted. */
export function rescue(key: string): void {
  const draft = drafts.value.get(key);
  if (!draft) return;
  drop(key);
  const fresh = compose();
  put(edit(fresh, draft.mine, Date.now()));
  schedule(fresh.key, 0);
}
