/** Sends drafts, keeps them in IndexedDB until they are on the server, and takes over those of tabs that are gone. */

import { computed, signal } from "@preact/signals";
import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import * as api from "./api";
import { pause } from "./backoff";
import {
  BLANK,
  begin,
  type Choice,
  conflicted,
  type Draft,
  edit,
  type Fields,
  fieldsOf,
  follow,
  type Name,
  resolve,
  same,
  saved,
  waiting,
} from "./drafts";
import type { Note } from "./types";
import { unique } from "./unique";

interface Stored extends DBSchema {
  drafts: { key: string; value: Draft };
}

export const GONE = "This note was deleted";
const QUIET = 700;
const ORPHANED = 30_000;

export type Light =
  | { state: "saved" }
  | { state: "saving" }
  | { state: "offline"; waiting: number }
  | { state: "conflict"; key: string }
  | { state: "unsaved"; reason: string; key: string }
  | { state: "refused" };

export const drafts = signal<ReadonlyMap<string, Draft>>(new Map());
export const reachable = signal(true);
/** The server does not want this page back. */
export const refused = signal(false);
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
  if (refused.value) return { state: "refused" };
  return reachable.value ? { state: "saved" } : { state: "offline", waiting: 0 };
});

export const unsent = (): number => [...drafts.value.values()].filter(waiting).length;

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
    if (navigator.locks) await navigator.locks.request("adopt", adopt);
    else {
      await adopt();
      setInterval(() => {
        for (const draft of drafts.value.values()) put({ ...draft, touched: Date.now() });
      }, ORPHANED / 3);
    }
    recall();
    hurry();
    setInterval(() => {
      void (navigator.locks ? navigator.locks.request("adopt", adopt) : adopt()).then(hurry);
    }, ORPHANED / 2);
  } catch (error) {
    console.warn("Drafts cannot be kept in this browser", error);
  }
  addEventListener("online", () => hurry());
  addEventListener("pagehide", leave);
}

const LEFT = "left";

/** What was typed last may not be in the database yet when the page goes: it is noted where that is done at once. */
function leave(): void {
  const left = [...drafts.value.values()].filter(waiting);
  try {
    if (left.length) sessionStorage.setItem(LEFT, JSON.stringify(left));
  } catch {
    // Too large for there: the database has all but the last letters.
  }
}

function recall(): void {
  const left = JSON.parse(sessionStorage.getItem(LEFT) ?? "[]") as Draft[];
  sessionStorage.removeItem(LEFT);
  for (const draft of left) {
    // Of the same time it is the later state: the database may lack what was decided last.
    if (draft.tab === tab && draft.touched >= (drafts.value.get(draft.key)?.touched ?? 0)) put(draft);
  }
}

/** Takes over drafts of tabs that are gone, each under a key of its own: its old tab may come back, and is not to meddle. */
async function adopt(): Promise<void> {
  if (!database) return;
  const living = await livingTabs();
  const taking = database.transaction("drafts", "readwrite");
  for (const draft of await taking.store.getAll()) {
    const orphaned = living ? !living.has(draft.tab) : Date.now() - draft.touched > ORPHANED;
    if (draft.tab === tab ? drafts.value.has(draft.key) : !orphaned) continue;
    const mine = draft.tab === tab ? draft : { ...draft, tab, key: `${draft.id ?? "new"}-${unique()}` };
    if (mine !== draft) await taking.store.delete(draft.key);
    await taking.store.put(mine);
    drafts.value = new Map(drafts.value).set(mine.key, mine);
  }
  await taking.done;
}

async function claimTab(): Promise<void> {
  if (!navigator.locks) {
    tab = sessionStorage.getItem("tab") ?? tab;
    sessionStorage.setItem("tab", tab);
    return;
  }
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

let stored: Promise<unknown> = Promise.resolve();

function put(draft: Draft): void {
  drafts.value = new Map(drafts.value).set(draft.key, draft);
  stored = Promise.resolve(database?.put("drafts", draft)).catch((error: unknown) =>
    console.warn("A draft was not kept", error),
  );
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

/** Forgets a new note into which nothing was typed. */
export function dropBlank(key: string): void {
  const draft = drafts.value.get(key);
  if (draft && !draft.sending && same(draft.mine, BLANK)) drop(key);
}

export function decide(key: string, choice: Choice): void {
  const draft = drafts.value.get(key);
  if (!draft?.conflict) return;
  put(resolve(draft, choice, Date.now()));
  onNote(draft.conflict.current);
  schedule(key, 0);
}

/** Sends what was typed into a note, and waits a little until that is done. */
export async function flushed(id: number): Promise<void> {
  for (let waited = 0; waited < 20; waited++) {
    const draft = draftOf(id);
    if (!draft || draft.conflict || draft.error || !reachable.value) return;
    clearTimeout(timers.get(draft.key));
    await flush(draft.key);
    if (draftOf(id)) await new Promise((done) => setTimeout(done, 50));
  }
}

/** A note changed elsewhere: drafts without words of their own follow. */
export function changedElsewhere(note: Note): void {
  const draft = draftOf(note.id);
  if (!draft) return;
  const next = follow(draft, note);
  if (next.error === GONE) {
    put({ ...next, error: null }); // it is back
    schedule(draft.key, 0);
  } else if (next !== draft) {
    put(next);
  }
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
    await stored; // the request's key first, so that a repeat after a crash is the same request
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
  if (!now) return;
  if (!(error instanceof api.ApiError)) throw error;
  const { note: current, conflicts = [], merged = {} } = error.body;
  if (error.passing) {
    if (error.status === 0) reachable.value = false;
    const times = (failures.get(key) ?? 0) + 1;
    failures.set(key, times);
    schedule(key, Math.max(250, pause(times)));
  } else if (error.status === 409 && current) {
    put(conflicted(now, { current, conflicts, merged }));
  } else if (error.status === 404) {
    // Deleted meanwhile: what was typed becomes a note of its own, when the writer says so.
    put({ ...now, sending: null, error: GONE });
  } else {
    put({ ...now, sending: null, error: error.message });
    // What was typed since may be better.
    if (Object.entries(now.sending?.fields ?? {}).some(([name, value]) => !same(now.mine[name as Name], value))) {
      schedule(key, QUIET);
    }
  }
}

/** Makes a new note of a draft whose note was deleted. */
export function rescue(key: string): string | null {
  const draft = drafts.value.get(key);
  if (!draft) return null;
  const fresh = compose();
  put(edit(fresh, draft.mine, Date.now()));
  drop(key);
  schedule(fresh.key, 0);
  return fresh.key;
}
