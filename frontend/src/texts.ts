/** The shared texts that are open, or have words that are not on the server; kept in the browser until they are. */

import { computed, effect, signal } from "@preact/signals";
import { clearDocument, fetchUpdates, IndexeddbPersistence } from "y-indexeddb";
import { check, ended, own, parted, space } from "./account";
import { leftover, rebase } from "./drafts";
import { drop, Letters, left } from "./letters";
import { outbox } from "./outbox";
import { hueOf, me } from "./people";
import { Room, type State } from "./room";
import { base, scoped } from "./root";
import * as tabs from "./tabs";
import type { Note } from "./types";

interface Open {
  id: number;
  room: Room;
  kept: IndexeddbPersistence;
  letters: Letters;
  users: number;
  stop: () => void;
  /** Tells other tabs that this one does not have the text any more. */
  leave: () => void;
}

type Identity = Pick<Note, "id" | "created_date">;

const KEPT = scoped("text:");
const WEEK = 7 * 24 * 3_600_000;

/** By their names, as ids begin anew where a server does. */
const open = signal<ReadonlyMap<string, Open>>(new Map());
/** Tells the other tabs of this browser that there are words that are not on the server. */
const channel = new BroadcastChannel(scoped("texts"));
/** Texts that other tabs have, and this one takes up when they are gone. */
const awaited = new Set<string>();

const unsavedOf = (id: number): Open[] =>
  [...open.value.values()].filter((one) => one.id === id && one.room.unsaved.value);

/** The shared text of a note, while it is open. */
export const roomOf = (note: Identity): Room | undefined => open.value.get(nameOf(note))?.room;

/** A text with words that are not on the server, of a note that is not there, or had the id of this one before. */
export const strayOf = (id: number, note: Identity | null): Room | undefined =>
  unsavedOf(id).find(({ room }) => !note || room !== roomOf(note))?.room;

/** Whether the server does not take what is typed into the text of a note. */
export const denied = (id: number): boolean =>
  [...open.value.values()].some((one) => one.id === id && one.room.denied.value);

/** What is typed into the text of a note is taken, perhaps again. */
export function allowed(id: number): void {
  for (const one of unsavedOf(id)) if (one.room.denied.peek()) one.room.renew();
}

/** How many texts have words that are not on the server. */
export const unsaved = computed(() => [...open.value.values()].filter(({ room }) => room.unsaved.value).length);

/** The note of which the server cannot take what was typed. */
export const refused = computed(
  () =>
    [...open.value.values()].find(
      ({ room }) => room.unsaved.value && (["refused", "gone"].includes(room.state.value) || room.denied.value),
    )?.id,
);

interface Mark {
  used: number;
  /** Whether something was typed that is not known to be on the server. */
  unsaved: boolean;
}

function read(name: string): Mark | null {
  const kept = JSON.parse(localStorage.getItem(KEPT + name) ?? "null") as Mark | null;
  return kept && { ...kept, unsaved: kept.unsaved || left(name) };
}

function mark(name: string, waiting: boolean): void {
  if (parted.peek()) return;
  // What another tab stores, this one reads from the same store: it is saved, or not, with this one's.
  const now: Mark = { used: Date.now(), unsaved: waiting };
  localStorage.setItem(KEPT + name, JSON.stringify(now));
}

/** A text is another one if the note was made at another time: ids begin anew where a server does. */
const nameOf = ({ id, created_date }: Identity): string => `${space()}${id}@${created_date}`;

/** Opens the text of a note; the answer gives it back. */
export function use(note: Identity): () => void {
  const name = nameOf(note);
  const found = open.peek().get(name) ?? opened(name);
  found.users++;
  return () => {
    found.users--;
    tidy(name);
  };
}

/** Opens a text. If the server has no such note, or another one with its id, it is only what was kept here. */
function opened(name: string): Open {
  const [id = "", created = ""] = name.slice(space().length).split("@");
  const url = `${base().replace("http", "ws")}/sync/${id}?${new URLSearchParams({ created })}`;
  const room = new Room(url, { name: me(), hue: hueOf(me()) });
  room.unsaved.value = read(name)?.unsaved ?? false;
  const kept = new IndexeddbPersistence(scoped(`text-${name}`), room.doc);
  room.store = kept;
  const letters = new Letters(name, room.doc, kept);
  const begin = (): void => {
    clearTimeout(late);
    letters.recall();
    room.kept();
    if (!ended.peek()) room.connect();
  };
  // Where nothing can be kept, the server's text has to do.
  const late = setTimeout(begin, 2_000);
  void kept.whenSynced.then(begin);
  const stop = effect(() => {
    const waiting = room.unsaved.value;
    if (room.state.value === "gone" || room.state.value === "refused") void check();
    mark(name, waiting);
    if (!waiting) {
      letters.clear();
      queueMicrotask(() => tidy(name));
    } else if (room.state.value !== "live") {
      room.content.value; // again with each change
      queueMicrotask(() => channel.postMessage(null)); // by then it is about to be stored
    }
  });
  const made: Open = { id: Number(id), room, kept, letters, users: 0, stop, leave: tabs.share(KEPT + name) };
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
  found?.letters.clear();
  found?.room.close();
  found?.leave();
}

/** Drops what was typed into the text of a note that is not there, and is not on the server. */
export async function discard(id: number): Promise<void> {
  for (const [name, { room, ...one }] of open.peek()) {
    if (one.id === id && (room.state.peek() !== "live" || room.denied.peek())) await clear(name);
  }
}

async function clear(name: string): Promise<void> {
  forget(name);
  localStorage.removeItem(KEPT + name);
  drop(name);
  await clearDocument(scoped(`text-${name}`));
}

/** Whether any tab of this browser has words that are not on the server. */
export const waiting = (): boolean => unsaved.peek() > 0 || marks().some(([, { unsaved }]) => unsaved);

/** Drops all texts that are kept in this browser for whom the page is for. */
export async function dropAll(): Promise<void> {
  await Promise.all(marks().map(([name]) => clear(name)));
}

/** Connects none until all are connected anew. */
export function pause(): void {
  for (const { room } of open.peek().values()) room.pause();
}

/** Connects all texts anew: somebody is signed in again, or may do something else with them. */
export function reconnect(): void {
  for (const { room } of open.peek().values()) room.renew(true);
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
  room.write(rebase(draft.base.content, draft.mine.content, theirs) ?? `${theirs}\n${draft.mine.content}`);
  outbox.moved(draftKey);
}

/** Takes up what other tabs of this browser have stored, and texts that were left unsaved. */
export function gather(): void {
  for (const one of open.peek().values()) void follow(one);
  for (const [name, { unsaved }] of marks()) {
    if (!unsaved || awaited.has(name) || open.peek().has(name)) continue;
    awaited.add(name);
    void tabs.whenLeft(KEPT + name, async () => {
      awaited.delete(name);
      if (read(name)?.unsaved && !open.peek().has(name)) opened(name);
    });
  }
}

async function follow({ kept, letters }: Open): Promise<void> {
  if (!kept.synced) return;
  try {
    await fetchUpdates(kept);
  } catch (error) {
    console.warn("What another tab stored cannot be read", error); // it may have dropped it
  }
  letters.recall();
}

function marks(): [string, Mark][] {
  const names = Object.keys(localStorage).flatMap((key) => (key.startsWith(KEPT) ? [key.slice(KEPT.length)] : []));
  return names.filter(own).flatMap((name) => {
    const kept = read(name);
    return kept ? [[name, kept] as [string, Mark]] : [];
  });
}

/** The page may be about to go. */
function leave(): void {
  if (parted.peek()) return;
  const unsaved = [...open.peek()].filter(([, { room }]) => room.unsaved.peek());
  for (const [name, { letters }] of unsaved) {
    mark(name, true); // another tab may have marked as saved what it had
    letters.leave();
  }
  if (unsaved.length) channel.postMessage(null);
}

/** Takes up what was left, and goes on with it as other tabs go; lets go of texts that were not used for a week. */
export function start(): void {
  for (const [name, { unsaved, used }] of marks()) {
    if (unsaved || Date.now() - used <= WEEK) continue;
    localStorage.removeItem(KEPT + name);
    void clearDocument(scoped(`text-${name}`));
  }
  gather();
  channel.onmessage = gather;
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(KEPT) || newValue !== null) return;
    const name = key.slice(KEPT.length); // which another tab has dropped
    if (open.peek().get(name)?.users === 0) forget(name);
  });
  addEventListener("pagehide", leave);
  document.addEventListener("freeze", leave);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") leave();
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
