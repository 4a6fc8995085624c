/** The shared texts that are open, or have words that are not on the server; kept in the browser until they are. */

import { computed, effect, signal } from "@preact/signals";
import { clearDocument, IndexeddbPersistence } from "y-indexeddb";
import * as api from "./api";
import { pause } from "./backoff";
import { leftover, rebase, splice } from "./drafts";
import { outbox } from "./outbox";
import { hueOf, me } from "./people";
import { Room, type State } from "./room";
import type { Note } from "./types";

interface Open {
  room: Room;
  name: string;
  users: number;
  stop: () => void;
}

const KEPT = "text:";
const WEEK = 7 * 24 * 3_600_000;

const open = signal<ReadonlyMap<number, Open>>(new Map());

/** The shared text of a note, while it is open. */
export const roomOf = (id: number): Room | undefined => open.value.get(id)?.room;

/** How many texts have words that are not on the server. */
export const unsaved = computed(() => [...open.value.values()].filter(({ room }) => room.unsaved.value).length);

/** Whether the server cannot take what was typed. */
export const refused = computed(
  () =>
    [...open.value].find(([, { room }]) => ["refused", "gone"].includes(room.state.value) && room.unsaved.value)?.[0],
);

interface Mark {
  id: number;
  used: number;
  /** Whether something was typed that is not known to be on the server. */
  unsaved: boolean;
}

const read = (name: string): Mark | null => JSON.parse(localStorage.getItem(KEPT + name) ?? "null") as Mark | null;

function mark(name: string, id: number, waiting: boolean): void {
  // What another tab left, this one has read from the same store: it is saved, or not, with this one's.
  const now: Mark = { id, used: Date.now(), unsaved: waiting };
  localStorage.setItem(KEPT + name, JSON.stringify(now));
}

/** A text is another one if the note was made at another time: ids begin anew where a server does. */
const nameOf = ({ id, created_date }: Pick<Note, "id" | "created_date">): string => `${id}@${created_date}`;

/** Opens the text of a note; the answer gives it back. */
export function use(note: Pick<Note, "id" | "created_date">): () => void {
  const found = open.peek().get(note.id) ?? opened(note.id, nameOf(note));
  found.users++;
  return () => {
    found.users--;
    tidy(note.id);
  };
}

/** Opens a text; without its note, it is only what was kept here. */
function opened(id: number, name: string, gone = false): Open {
  const url = `${location.origin.replace("http", "ws")}/sync/${id}`;
  const room = new Room(url, { name: me(), hue: hueOf(me()) });
  room.unsaved.value = read(name)?.unsaved ?? false;
  const persistence = new IndexeddbPersistence(`text-${name}`, room.doc);
  room.store = persistence;
  // Where nothing can be kept, the server's text has to do.
  const connect = (): void => (gone ? room.lose() : room.connect());
  const late = setTimeout(connect, 2_000);
  void persistence.whenSynced.then(() => {
    clearTimeout(late);
    room.kept();
    connect();
  });
  const stop = effect(() => {
    mark(name, id, room.unsaved.value);
    if (!room.unsaved.value) queueMicrotask(() => tidy(id));
  });
  const made: Open = { room, name, users: 0, stop };
  open.value = new Map(open.peek()).set(id, made);
  return made;
}

/** Closes a text that nobody uses and that is on the server. */
function tidy(id: number): void {
  const found = open.peek().get(id);
  if (!found || found.users > 0 || found.room.unsaved.peek()) return;
  forget(id);
}

function forget(id: number): void {
  const left = new Map(open.peek());
  const found = left.get(id);
  left.delete(id);
  open.value = left;
  found?.stop();
  found?.room.close();
}

/** Drops what was typed into a text and is not on the server. */
export async function discard(id: number): Promise<void> {
  const found = open.peek().get(id);
  if (!found) return;
  forget(id);
  localStorage.removeItem(KEPT + found.name);
  await clearDocument(`text-${found.name}`);
}

/** Waits a little until a text is on the server. */
export async function saved(id: number): Promise<void> {
  for (let waited = 0; waited < 20 && roomOf(id)?.unsaved.peek(); waited++) {
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Connects those texts at once that are cut off; with another network all, as what is open may be dead. */
export function renew(network = false): void {
  const states: State[] = network ? ["offline", "connecting", "live"] : ["offline"];
  for (const { room } of open.peek().values()) if (states.includes(room.state.peek())) room.renew();
}

/** A note is back from the trash. */
export function back(id: number): void {
  const room = open.peek().get(id)?.room;
  if (room?.state.peek() === "gone") room.renew();
}

/** Brings into a new note's text what was typed while it was made. */
function move(draftKey: string): void {
  const draft = outbox.drafts.peek().get(draftKey);
  if (draft?.id == null || !draft.base || !leftover(draft)) return;
  const room = open.peek().get(draft.id)?.room;
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

/** Goes on with a text that was left unsaved, if its note is the same one. */
async function takeUp(id: number, name: string): Promise<void> {
  try {
    const note = await api.read(id);
    if (nameOf(note) === name && !open.peek().has(id)) opened(id, name);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.passing) setTimeout(() => void takeUp(id, name), pause(3));
    else if (!open.peek().has(id)) opened(id, name, true);
  }
}

/** Takes up the texts that were left unsaved, and lets go of those that were not used for a week. */
export function start(): void {
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(KEPT)) continue;
    const name = key.slice(KEPT.length);
    const kept = read(name);
    if (!kept) continue;
    if (kept.unsaved) {
      void takeUp(kept.id, name);
    } else if (Date.now() - kept.used > WEEK) {
      localStorage.removeItem(key);
      void clearDocument(`text-${name}`);
    }
  }
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
      if (roomOf(draft.id)?.ready.value) queueMicrotask(() => move(draft.key));
    }
  });
}
