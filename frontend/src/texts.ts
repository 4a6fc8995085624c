/**
 * The shared texts that are open, or have words that are not on the server; kept in the browser until they are.
 *
 * Where `/sync` does not work though the server can be reached, a text is "over REST": what is typed goes into the draft
 * of its note, not into the shared text, which only tries to connect. Words that the shared text had before and that the
 * server may not have are moved into the draft once, and the local copy that has them is superseded by an empty one. When
 * `/sync` works again, the text is shared again as soon as the server has all of the draft.
 */

import { computed, effect, type Signal, signal } from "@preact/signals";
import { clearDocument, fetchUpdates, IndexeddbPersistence } from "y-indexeddb";
import { check, ended, own, parted, space } from "./account";
import * as api from "./api";
import { reachable } from "./connection";
import { type Draft, leftover, rebase, textPending } from "./drafts";
import { ATTEMPTS, Watch } from "./fallback";
import { drop, Letters, left } from "./letters";
import { outbox } from "./outbox";
import { hueOf, me } from "./people";
import { Room, type State } from "./room";
import { base, scoped } from "./root";
import { mayWrite, roleOf } from "./sharing";
import * as tabs from "./tabs";
import type { Note } from "./types";
import { unique } from "./unique";

interface Open {
  id: number;
  room: Room;
  kept: IndexeddbPersistence;
  letters: Letters;
  /** The generation of the local copy. */
  generation: string;
  /** Whether the text is saved over REST. */
  overRest: Signal<boolean>;
  /** Whether that is about to change. */
  busy: boolean;
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
/** Whether the last text that was open in this tab was over REST. */
const blocked = {
  key: scoped("over-rest"),
  get: (): boolean => sessionStorage.getItem(blocked.key) !== null,
  set: (now: boolean): void => {
    if (now) sessionStorage.setItem(blocked.key, "");
    else sessionStorage.removeItem(blocked.key);
  },
};
/** Milliseconds for which `/sync` has to work before a text is shared again; longer each time that it fails soon. */
const STEADY = { first: 500, longest: 60_000, forgotten: 120_000 };
let steady = STEADY.first;
let shared = Number.NEGATIVE_INFINITY;
/** Milliseconds after which a text is shared again though it is not what the note was last. */
const UNLIKE = 5_000;
/** The contents of notes as they were read last, by the names of their texts. */
const contents = signal<ReadonlyMap<string, string>>(new Map());

/** Texts that other tabs have, and this one takes up when they are gone. */
const awaited = new Set<string>();

const unsavedOf = (id: number): Open[] =>
  [...open.value.values()].filter((one) => one.id === id && one.room.unsaved.value);

const found = (note: Identity): Open | undefined => open.value.get(nameOf(note));

/** The shared text of a note, while it is open and shared. */
export function roomOf(note: Identity): Room | undefined {
  const one = found(note);
  return one?.overRest.value ? undefined : one?.room;
}

/** Whether the text of a note is saved over REST. */
export const isOverRest = (note: Identity): boolean => found(note)?.overRest.value ?? false;

/** A text with words that are not on the server, of a note that is not there, or had the id of this one before. */
export const strayOf = (id: number, note: Identity | null): Room | undefined =>
  unsavedOf(id).find(({ room }) => !note || room !== found(note)?.room)?.room;

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
  /** Which local copy is meant: another one supersedes those before. */
  generation?: string;
  /** Generations of copies that are superseded and not deleted yet. */
  old?: string[];
}

function read(name: string): Mark | null {
  const kept = JSON.parse(localStorage.getItem(KEPT + name) ?? "null") as Mark | null;
  return kept && { ...kept, unsaved: kept.unsaved || left(copyOf(name, kept.generation)) };
}

const generationOf = (name: string): string => read(name)?.generation ?? "";

/** The name of a local copy. */
const copyOf = (name: string, generation = ""): string => (generation ? `${name}#${generation}` : name);

function mark(name: string, generation: string, waiting: boolean): void {
  if (parted.peek()) return;
  const before = read(name);
  if ((before?.generation ?? "") !== generation) return; // superseded
  // What another tab stores, this one reads from the same store: it is saved, or not, with this one's.
  const now: Mark = { ...before, used: Date.now(), unsaved: waiting };
  localStorage.setItem(KEPT + name, JSON.stringify(now));
}

/** Has an empty local copy supersede one whose words are in a draft: they must not be sent from there too. */
function supersede(name: string, generation: string): void {
  const before = read(name);
  if ((before?.generation ?? "") !== generation) return;
  const old = [...(before?.old ?? []), generation];
  const now: Mark = { used: Date.now(), unsaved: false, generation: unique(), old };
  localStorage.setItem(KEPT + name, JSON.stringify(now));
  drop(copyOf(name, generation));
}

/** Deletes superseded copies once no tab has them open. */
function deleteOld(name: string): void {
  for (const generation of read(name)?.old ?? []) {
    const copy = copyOf(name, generation);
    void tabs.whenSurelyLeft(KEPT + copy, async () => {
      await clearDocument(scoped(`text-${copy}`));
      const now = read(name);
      const old = now?.old?.filter((one) => one !== generation);
      if (now) localStorage.setItem(KEPT + name, JSON.stringify({ ...now, old }));
    });
  }
}

/** A text is another one if the note was made at another time: ids begin anew where a server does. */
const nameOf = ({ id, created_date }: Identity): string => `${space()}${id}@${created_date}`;

/** Opens the text of a note; the answer gives it back. */
export function use(note: Identity): () => void {
  const name = nameOf(note);
  const opening = open.peek().get(name) ?? opened(name);
  opening.users++;
  return () => {
    const now = open.peek().get(name); // perhaps of another generation
    if (now) now.users--;
    tidy(name);
  };
}

/** Opens a text. If the server has no such note, or another one with its id, it is only what was kept here. */
function opened(name: string, rest?: boolean): Open {
  const [id = "", created = ""] = name.slice(space().length).split("@");
  const before = read(name);
  const generation = before?.generation ?? "";
  const copy = copyOf(name, generation);
  const url = `${base().replace("http", "ws")}/sync/${id}?${new URLSearchParams({ created })}`;
  const room = new Room(url, { name: me(), hue: hueOf(me()) });
  room.unsaved.value = before?.unsaved ?? false;
  room.superseded = () => generationOf(name) !== generation;
  const kept = new IndexeddbPersistence(scoped(`text-${copy}`), room.doc);
  room.store = kept;
  const letters = new Letters(copy, room.doc, kept);
  const begin = (): void => {
    clearTimeout(late);
    letters.recall();
    room.kept();
    if (!ended.peek()) room.connect();
  };
  // Where nothing can be kept, the server's text has to do.
  const late = setTimeout(begin, 2_000);
  void kept.whenSynced
    .then(async () => {
      if (before?.unsaved) room.ancestor ??= ((await kept.get(ANCESTOR)) as string | undefined) ?? null;
    })
    .catch(() => {})
    .then(begin);
  const made: Open = {
    ...{ id: Number(id), room, kept, letters, generation, users: 0, busy: false },
    overRest: signal(rest ?? (blocked.get() && !room.unsaved.peek())),
    stop: () => {},
    leave: tabs.share(KEPT + copy),
  };
  const stops = [effect(() => keepMark(name, made)), watched(name, made), returning(name, made)];
  made.stop = () => {
    for (const stop of stops) stop();
  };
  open.value = new Map(open.peek()).set(name, made);
  return made;
}

/** Where a local copy has the text before its unsaved words. */
const ANCESTOR = "ancestor";

function keepMark(name: string, { room, letters, kept, generation }: Open): void {
  const waiting = room.unsaved.value;
  if (room.state.value === "gone" || room.state.value === "refused") void check();
  mark(name, generation, waiting);
  if (!waiting) {
    letters.clear();
    queueMicrotask(() => tidy(name));
  } else if (room.state.value !== "live") {
    room.content.value; // again with each change
    keepAncestor(room, kept);
    queueMicrotask(() => channel.postMessage(null)); // by then it is about to be stored
  }
}

const ancestors = new WeakMap<Room, string>();

/** Stores the text before the unsaved words: after a reload it cannot be known otherwise. */
function keepAncestor(room: Room, kept: IndexeddbPersistence): void {
  const { ancestor } = room;
  if (ancestor === null || ancestors.get(room) === ancestor) return;
  ancestors.set(room, ancestor);
  void kept.set(ANCESTOR, ancestor).catch(() => {});
}

/** Watches whether `/sync` works for a text. */
function watched(name: string, one: Open): () => void {
  // Where it did not work for the text before, it is not waited for long.
  const watch = new Watch(
    () => void fallBack(name).then((done) => done || watch.again()),
    () => (blocked.get() ? 1 : ATTEMPTS),
  );
  const stop = effect(() => {
    const [state, server] = [one.room.state.value, reachable.value && !ended.value];
    if (one.overRest.value) watch.stop();
    else watch.see(state, server);
    if (state === "paused" && one.room.superseded()) void insist(name, one);
  });
  return () => {
    stop();
    watch.stop();
  };
}

const insisting = new WeakSet<Open>();

/** Moves the words of a copy that another tab has superseded, as soon as the server answers. */
async function insist(name: string, one: Open): Promise<void> {
  if (insisting.has(one)) return;
  insisting.add(one);
  while (open.peek().get(name) === one && !parted.peek()) {
    await fallBack(name);
    await new Promise((done) => setTimeout(done, 5_000));
  }
}

/** Saves a text over REST from now on, if the server answers; with the words that it may not have. */
async function fallBack(name: string): Promise<boolean> {
  const one = open.peek().get(name);
  if (!one || one.busy || parted.peek()) return false;
  one.busy = true;
  try {
    if (one.room.unsaved.peek()) await follow(one); // what other tabs typed, too
    const { room } = one;
    let note = await api.read(one.id);
    while (open.peek().get(name) === one && lags(note, room)) {
      await new Promise((done) => setTimeout(done, 250));
      note = await api.read(one.id);
    }
    reachable.value = true;
    take(note);
    outbox.told(note);
    const stale = room.superseded();
    if (open.peek().get(name) !== one || (room.state.peek() === "live" && !stale)) return true;
    if (nameOf(note) !== name) {
      room.lose();
      return true;
    }
    // The text of a viewer stays in the shared text, which the server refuses.
    if (room.unsaved.peek() && roleOf(one.id) !== null && !mayWrite(one.id)) return false;
    if (outbox.of(one.id)?.sending) await outbox.flushed(one.id);
    if (outbox.of(one.id)?.sending) return false;
    return room.unsaved.peek() ? await moveWords(name, one, note) : await enter(name, one, note);
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 404) one.room.lose();
    else if (error instanceof api.ApiError && error.status === 0) reachable.value = false;
    else if (!(error instanceof api.ApiError)) throw error;
    return false;
  } finally {
    one.busy = false;
  }
}

/** Milliseconds within which the note has what the server acknowledged of its shared text. */
const PROJECTED = 4_000;

/** Whether a note may not have all yet that the server has acknowledged. */
function lags(note: Note, room: Room): boolean {
  const acknowledged = room.unsaved.peek() ? room.ancestor : room.content.peek();
  return room.ready.peek() && note.content !== acknowledged && performance.now() - room.heard < PROJECTED;
}

async function enter(name: string, one: Open, note: Note): Promise<boolean> {
  // The draft of other fields has the text of when it was begun.
  if (outbox.of(one.id)) void outbox.absorb(note, note.content, note.content, "");
  const stale = one.room.superseded();
  begin(one, stale);
  if (stale) reopen(name, one);
  return true;
}

function begin(one: Open, stale: boolean): void {
  one.overRest.value = true;
  if (stale) return; // another tab found that `/sync` does not work: here it may
  blocked.set(true);
  steady = performance.now() - shared < STEADY.forgotten ? Math.min(STEADY.longest, steady * 2) : STEADY.first;
}

async function moveWords(name: string, one: Open, note: Note): Promise<boolean> {
  const { room, generation } = one;
  const stale = room.superseded();
  room.pause(); // nothing of it is sent from here on
  const stored = outbox.absorb(note, room.ancestor, room.text.toString(), copyOf(name, generation));
  begin(one, stale);
  await stored;
  supersede(name, generation);
  outbox.absorbed(one.id);
  if (open.peek().get(name) === one) reopen(name, one);
  return true;
}

/** Opens the current local copy in place of one that is superseded. */
function reopen(name: string, { users }: Open): void {
  forget(name);
  opened(name, true).users = users;
  deleteOld(name);
}

/** Shares a text again once `/sync` works and the server has all that was typed. */
function returning(name: string, one: Open): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const trusted = signal(false);
  const share = (): void => {
    shared = performance.now();
    blocked.set(false);
    one.overRest.value = false;
    void follow(one);
  };
  const stops = [
    effect(() => {
      clearTimeout(timer);
      trusted.value = false;
      if (!one.overRest.value || one.room.state.value !== "live") return;
      timer = setTimeout(() => {
        trusted.value = true;
      }, steady);
    }),
    effect(() => {
      if (!trusted.value || !one.overRest.value) return;
      const draft = outbox.all.find(({ id }) => id === one.id);
      if (draft && textPending(draft)) {
        outbox.soon(one.id);
        return;
      }
      const content = contents.value.get(name);
      if (content === undefined || content === one.room.content.value) {
        queueMicrotask(share);
        return;
      }
      const late = setTimeout(share, UNLIKE);
      return () => clearTimeout(late);
    }),
  ];
  return () => {
    clearTimeout(timer);
    for (const stop of stops) stop();
  };
}

/** Takes a note as the server has it. */
export function take(note: Note): void {
  const name = nameOf(note);
  if (open.peek().has(name)) contents.value = new Map(contents.peek()).set(name, note.content);
}

/** Closes a text that nobody uses and that is on the server. */
function tidy(name: string): void {
  const found = open.peek().get(name);
  if (!found || found.users > 0 || found.room.unsaved.peek()) return;
  forget(name);
}

function forget(name: string): void {
  const left = new Map(open.peek());
  const closed = left.get(name);
  left.delete(name);
  open.value = left;
  const others = new Map(contents.peek());
  if (others.delete(name)) contents.value = others;
  closed?.stop();
  closed?.letters.clear();
  closed?.room.close();
  closed?.leave();
}

/** Drops what was typed into the text of a note that is not there, and is not on the server. */
export async function discard(id: number): Promise<void> {
  for (const [name, { room, ...one }] of open.peek()) {
    if (one.id === id && (room.state.peek() !== "live" || room.denied.peek())) await clear(name);
  }
}

async function clear(name: string): Promise<void> {
  const copies = copiesOf(name);
  forget(name);
  localStorage.removeItem(KEPT + name);
  for (const copy of copies) drop(copy);
  await Promise.all(copies.map((copy) => clearDocument(scoped(`text-${copy}`))));
}

function copiesOf(name: string): string[] {
  const { generation = "", old = [] } = read(name) ?? {};
  return [generation, ...old].map((one) => copyOf(name, one));
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

/** Has what was typed into a new note while it was made saved over REST. */
async function moveDraft(draftKey: string): Promise<void> {
  const draft = outbox.drafts.peek().get(draftKey);
  if (!draft?.base || draft.id === null || draft.sending || !leftover(draft)) return;
  try {
    const note = await api.read(draft.id);
    const now = outbox.drafts.peek().get(draftKey);
    if (!now?.base || !leftover(now) || now.created !== note.created_date || !isOverRest(note)) return;
    if (await outbox.absorb(note, now.base.content, now.mine.content, "")) outbox.soon(note.id);
  } catch (error) {
    if (!(error instanceof api.ApiError)) throw error; // tried again with the next change
  }
}

/** Supersedes the local copies whose words drafts have taken, if a page went in the middle of that. */
export function restored(drafts: Draft[]): void {
  for (const { absorbed } of drafts) {
    const [name = "", generation = ""] = absorbed?.split("#") ?? [];
    if (name) supersede(name, generation);
  }
}

/** Takes up what other tabs of this browser have stored, and texts that were left unsaved. */
export function gather(): void {
  for (const one of open.peek().values()) if (!one.overRest.peek()) void follow(one);
  for (const [name, { unsaved }] of marks()) {
    if (!unsaved || awaited.has(name) || open.peek().has(name)) continue;
    awaited.add(name);
    void tabs.whenLeft(KEPT + copyOf(name, generationOf(name)), async () => {
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
  for (const [name, { letters, room, kept, generation }] of unsaved) {
    mark(name, generation, true); // another tab may have marked as saved what it had
    keepAncestor(room, kept);
    letters.leave();
  }
  if (unsaved.length) channel.postMessage(null);
}

/** Takes up what was left, and goes on with it as other tabs go; lets go of texts that were not used for a week. */
export function start(): void {
  for (const [name, { unsaved, used }] of marks()) {
    if (unsaved || Date.now() - used <= WEEK) deleteOld(name);
    else void clear(name);
  }
  gather();
  channel.onmessage = gather;
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(KEPT)) return;
    const name = key.slice(KEPT.length);
    const one = open.peek().get(name);
    if (newValue === null && one?.users === 0) forget(name); // another tab has dropped it
    if (newValue !== null && one?.room.superseded()) void fallBack(name);
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
      if (isOverRest({ id: draft.id, created_date: draft.created })) queueMicrotask(() => void moveDraft(draft.key));
      if (!moving.has(draft.key)) moving.set(draft.key, use({ id: draft.id, created_date: draft.created }));
      if (roomOf({ id: draft.id, created_date: draft.created })?.ready.value) queueMicrotask(() => move(draft.key));
    }
  });
}
