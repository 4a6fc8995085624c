/** The shared texts that are open, or have words that are not on the server; kept in the browser until they are. */

import { computed, effect, signal } from "@preact/signals";
import { clearDocument, fetchUpdates, IndexeddbPersistence } from "y-indexeddb";
import * as api from "./api";
import { pause } from "./backoff";
import { leftover, rebase, splice } from "./drafts";
import { outbox } from "./outbox";
import { hueOf, me } from "./people";
import { Room, type State } from "./room";
import type { Note } from "./types";

interface Open {
  id: number;
  room: Room;
  kept: IndexeddbPersistence;
  users: number;
  stop: () => void;
}

type Identity = Pick<Note, "id" | "created_date">;

const KEPT = "text:";
const WEEK = 7 * 24 * 3_600_000;

/** By their names, as ids begin anew where a server does. */
const open = signal<ReadonlyMap<string, Open>>(new Map());
/** The names of texts that were left unsaved, and of which is asked whether their notes are still there. */
const asked = signal<ReadonlySet<string>>(new Set());
/** Tells the other tabs of this browser that there are words that are not on the server. */
const tabs = new BroadcastChannel("texts");

const unsavedOf = (id: number): Open[] =>
  [...open.value.values()].filter((one) => one.id === id && one.room.unsaved.value);

/** The shared text of a note, while it is open. */
export const roomOf = (note: Identity): Room | undefined => open.value.get(nameOf(note))?.room;

/** A text with words that are not on the server, of a note that is not there, or had the id of this one before. */
export const strayOf = (id: number, note: Identity | null): Room | undefined =>
  unsavedOf(id).find(({ room }) => !note || room !== roomOf(note))?.room;

/** How many texts have words that are not on the server. */
export const unsaved = computed(
  () => [...open.value.values()].filter(({ room }) => room.unsaved.value).length + asked.value.size,
);

/** The note of which the server cannot take what was typed. */
export const refused = computed(
  () =>
    [...open.value.values()].find(({ room }) => ["refused", "gone"].includes(room.state.value) && room.unsaved.value)
      ?.id,
);

interface Mark {
  id: number;
  used: number;
  /** Whether something was typed that is not known to be on the server. */
  unsaved: boolean;
}

const read = (name: string): Mark | null => JSON.parse(localStorage.getItem(KEPT + name) ?? "null") as Mark | null;

function mark(name: string, id: number, waiting: boolean): void {
  // What another tab stores, this one reads from the same store: it is saved, or not, with this one's.
  const now: Mark = { id, used: Date.now(), unsaved: waiting };
  localStorage.setItem(KEPT + name, JSON.stringify(now));
}

/** A text is another one if the note was made at another time: ids begin anew where a server does. */
const nameOf = ({ id, created_date }: Identity): string => `${id}@${created_date}`;

/** Opens the text of a note; the answer gives it back. */
export function use(note: Identity): () => void {
  const name = nameOf(note);
  const found = open.peek().get(name) ?? opened(note.id, name);
  found.users++;
  return () => {
    found.users--;
    tidy(name);
  };
}

/** Opens a text; without its note, it is only what was kept here. */
function opened(id: number, name: string, gone = false): Open {
  const url = `${location.origin.replace("http", "ws")}/sync/${id}`;
  const room = new Room(url, { name: me(), hue: hueOf(me()) });
  room.unsaved.value = read(name)?.unsaved ?? false;
  const kept = new IndexeddbPersistence(`text-${name}`, room.doc);
  room.store = kept;
  // Where nothing can be kept, the server's text has to do.
  const connect = (): void => (gone ? room.lose() : room.connect());
  const late = setTimeout(connect, 2_000);
  void kept.whenSynced.then(() => {
    clearTimeout(late);
    room.kept();
    connect();
  });
  const stop = effect(() => {
    const waiting = room.unsaved.value;
    mark(name, id, waiting);
    if (!waiting) {
      queueMicrotask(() => tidy(name));
    } else if (room.state.value !== "live") {
      room.content.value; // again with each change
      queueMicrotask(() => tabs.postMessage(null)); // by then it is about to be stored
    }
  });
  const made: Open = { id, room, kept, users: 0, stop };
  open.value = new Map(open.peek()).set(name, made);
  return made;
}

/** Closes a text that nobody uses and that is on the server. */
function tidy(name: string): void {
  const found = open.peek().get(name);
  if (!found || found.users > 0 || found.room.unsaved.peek()) return;
  forget(name);
}

function forget(name: string): void {
  const left = new Map(open.peek());
  const found = left.get(name);
  left.delete(name);
  open.value = left;
  found?.stop();
  found?.room.close();
}

/** Drops what was typed into the text of a note that is not there, and is not on the server. */
export async function discard(id: number): Promise<void> {
  for (const [name, one] of open.peek()) {
    if (one.id !== id || one.room.state.peek() === "live") continue;
    forget(name);
    localStorage.removeItem(KEPT + name);
    await clearDocument(`text-${name}`);
  }
}

/** Waits a little until the text of a note is on the server. */
export async function saved(id: number): Promise<void> {
  for (let waited = 0; waited < 20 && unsavedOf(id).length > 0; waited++) {
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Connects those texts at once that are cut off; with another network all, as what is open may be dead. */
export function renew(network = false): void {
  gather();
  const states: State[] = network ? ["offline", "connecting", "live"] : ["offline"];
  for (const { room } of open.peek().values()) if (states.includes(room.state.peek())) room.renew();
}

/** A note is there, perhaps back from the trash; one that had its id before is not. */
export function back(note: Identity): void {
  for (const [name, { id, room }] of open.peek()) {
    if (id !== note.id) continue;
    if (name !== nameOf(note)) room.lose();
    else if (room.state.peek() === "gone") room.renew();
  }
}

/** Brings into a new note's text what was typed while it was made. */
function move(draftKey: string): void {
  const draft = outbox.drafts.peek().get(draftKey);
  if (draft?.id == null || !draft.base || draft.created === null || !leftover(draft)) return;
  const room = open.peek().get(nameOf({ id: draft.id, created_date: draft.created }))?.room;
  if (!room?.ready.peek()) return;
  const theirs = room.text.toString();
  const wanted = rebase(draft.base.content, draft.mine.content, theirs) ?? `${theirs}\n${draft.mine.content}`;
  const { start, end, text } = splice(theirs, wanted);
  room.doc.transact(() => {
    room.text.delete(start, end - start);
    room.text.insert(start, text);
  });
  outbox.moved(draftKey);
}

/** Goes on with a text that was left unsaved; if its note is not there, or another one, it is only what was kept. */
async function takeUp(id: number, name: string): Promise<void> {
  asked.value = new Set(asked.peek()).add(name);
  let gone = false;
  try {
    gone = nameOf(await api.read(id)) !== name;
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.passing) {
      setTimeout(() => void takeUp(id, name), pause(3));
      return;
    }
    gone = true;
  }
  const left = new Set(asked.peek());
  left.delete(name);
  asked.value = left;
  if (!open.peek().has(name) && read(name)?.unsaved) opened(id, name, gone);
}

/** Takes up what other tabs of this browser have stored, and texts that were left unsaved. */
export function gather(): void {
  for (const { kept } of open.peek().values()) void follow(kept);
  for (const [name, { id, unsaved }] of marks()) {
    if (unsaved && !open.peek().has(name) && !asked.peek().has(name)) void takeUp(id, name);
  }
}

async function follow(kept: IndexeddbPersistence): Promise<void> {
  if (!kept.synced) return;
  try {
    await fetchUpdates(kept);
  } catch (error) {
    console.warn("What another tab stored cannot be read", error); // it may have dropped it
  }
}

function marks(): [string, Mark][] {
  const names = Object.keys(localStorage).flatMap((key) => (key.startsWith(KEPT) ? [key.slice(KEPT.length)] : []));
  return names.flatMap((name) => {
    const kept = read(name);
    return kept ? [[name, kept] as [string, Mark]] : [];
  });
}

/** Takes up what was left, and goes on with it as other tabs go; lets go of texts that were not used for a week. */
export function start(): void {
  for (const [name, { unsaved, used }] of marks()) {
    if (unsaved || Date.now() - used <= WEEK) continue;
    localStorage.removeItem(KEPT + name);
    void clearDocument(`text-${name}`);
  }
  gather();
  tabs.onmessage = gather;
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(KEPT) || newValue !== null) return;
    const name = key.slice(KEPT.length); // which another tab has dropped
    if (open.peek().get(name)?.users === 0) forget(name);
  });
  addEventListener("pagehide", () => {
    // Another tab may have marked as saved what it had.
    const left = [...open.peek()].filter(([, { room }]) => room.unsaved.peek());
    for (const [name, { id }] of left) mark(name, id, true);
    if (left.length) tabs.postMessage(null);
  });
  const moving = new Map<string, () => void>();
  effect(() => {
    for (const [key, release] of moving) {
      const draft = outbox.drafts.value.get(key);
      if (draft && leftover(draft)) continue;
      moving.delete(key);
      release();
    }
    for (const draft of outbox.all) {
      if (draft.id === null || draft.created === null || !leftover(draft)) continue;
      if (!moving.has(draft.key)) moving.set(draft.key, use({ id: draft.id, created_date: draft.created }));
      if (roomOf({ id: draft.id, created_date: draft.created })?.ready.value) queueMicrotask(() => move(draft.key));
    }
  });
}
