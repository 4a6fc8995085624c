/** What the views show: the list, the open note, tags and people, kept up to date by the feed. */

import { effect, signal } from "@preact/signals";
import type { Listed, Sort } from "./api";
import * as api from "./api";
import { pause } from "./backoff";
import { Feed, type Frame } from "./feed";
import { type Action, empty, type List, reduce } from "./list";
import { go, path, type Route, route } from "./router";
import * as sync from "./sync";
import type { Note, TagCount } from "./types";

export const list = signal<List>(empty({ q: "", tags: [], sort: "-updated" }));
export const note = signal<Note | null>(null);
export const missing = signal(false);
export const tags = signal<TagCount[]>([]);
export const people = signal<ReadonlyMap<number, string[]>>(new Map());
export const notice = signal<{ text: string; undo?: () => void } | null>(null);
export const dialog = signal<"help" | null>(null);
/** Counts the events of the trash, so that its view knows when to look again. */
export const trashed = signal(0);

const dispatch = (action: Action): void => {
  list.value = reduce(list.value, action);
};

let loading: AbortController | null = null;
let feed: Feed | null = null;
let retry: ReturnType<typeof setTimeout> | undefined;
let attempts = 0;
let shownFor: api.Filter | null = null;

export async function load(): Promise<void> {
  loading?.abort();
  const abort = new AbortController();
  loading = abort;
  clearTimeout(retry);
  const { filter } = list.value;
  // As many as there were, so that whoever has scrolled far stays there.
  const many = filter === shownFor ? list.value.items.length : 0;
  try {
    const page = await api.list(api.listPath(filter, Math.min(1000, Math.max(100, many))), abort.signal);
    while (page.next && page.items.length < many) {
      const further = await api.list(page.next, abort.signal);
      page.items.push(...further.items);
      page.next = further.next;
    }
    attempts = 0;
    sync.reachable.value = true;
    if (filter.q.trim()) page.items.push(...beginnings(filter, page.items));
    else for (const one of page.items) seen.set(one.id, one);
    shownFor = filter;
    dispatch({ type: "page", page, first: true });
    if (page.cursor) feed?.start(page.cursor);
    // An event that the list overtook was for the open note, too.
    const open = page.items.find((one) => one.id === note.value?.id);
    if (open && note.value && open.version > note.value.version) void refresh(open.id);
  } catch (error) {
    if (abort.signal.aborted) return;
    const failed = error as api.ApiError;
    if (failed.status === 422) dispatch({ type: "page", page: { items: [], next: null, cursor: null }, first: true });
    else retry = setTimeout(() => void load(), pause(++attempts));
    if (failed.status === 0) sync.reachable.value = false;
  } finally {
    if (loading === abort) loading = null;
  }
}

let more = false;

/** Loads the next page, for example because the end of the list comes into view. */
export async function loadMore(): Promise<void> {
  const { next } = list.value;
  if (!next || more || loading) return;
  more = true;
  try {
    const page = await api.list(next.replace(/limit=\d+/, "limit=200"));
    if (list.value.next === next && !loading) dispatch({ type: "page", page, first: false });
  } catch {
    // What scrolls on asks again.
  } finally {
    more = false;
  }
}

let typing: ReturnType<typeof setTimeout> | undefined;
/** The notes that any list has shown: the server finds whole words, these what is typed of them so far. */
const seen = new Map<number, Listed>();

function beginnings(filter: api.Filter, found: Listed[]): Listed[] {
  const wanted = filter.q.trim().toLowerCase();
  const ids = new Set(found.map((one) => one.id));
  const says = (one: Listed): string => `${one.title} ${one.description} ${one.tags.join(" ")}`.toLowerCase();
  const tagged = (one: Listed): boolean => filter.tags.every((tag) => one.tags.includes(tag));
  return [...seen.values()]
    .filter((one) => !ids.has(one.id) && says(one).includes(wanted) && tagged(one))
    .slice(0, 100);
}

export function search(q: string): void {
  dispatch({ type: "filter", filter: { ...list.value.filter, q } });
  clearTimeout(typing);
  typing = setTimeout(() => void load(), 150);
}

export function sortBy(sort: Sort): void {
  dispatch({ type: "filter", filter: { ...list.value.filter, sort } });
  void load();
}

export function toggleTag(tag: string): void {
  const { tags: chosen } = list.value.filter;
  const next = chosen.includes(tag) ? chosen.filter((one) => one !== tag) : [...chosen, tag];
  dispatch({ type: "filter", filter: { ...list.value.filter, tags: next } });
  void load();
}

let tagging: ReturnType<typeof setTimeout> | undefined;

export function loadTags(after = 500): void {
  if (tagging) return;
  tagging = setTimeout(async () => {
    tagging = undefined;
    try {
      tags.value = await api.tags();
    } catch {
      // The next change asks again.
    }
  }, after);
}

let searching: ReturnType<typeof setTimeout> | undefined;

function onFrame(frame: Frame): void {
  if (frame.type === "presence") {
    const names = frame.people.map((person) => (typeof person.name === "string" ? person.name : "Somebody"));
    people.value = new Map(people.value).set(frame.id, names);
    return;
  }
  if (frame.type !== "note.created" && frame.type !== "note.updated" && frame.type !== "note.deleted") return;
  onOpen(frame);
  const before = list.value.versions.get(frame.id) ?? 0;
  dispatch({ type: "event", frame });
  if (frame.version <= before) return;
  if ("note" in frame) seen.set(frame.id, frame.note);
  else seen.delete(frame.id);
  loadTags();
  trashed.value++;
  if (list.value.stale) {
    clearTimeout(searching);
    searching = setTimeout(() => void load(), 300);
  }
}

/** What an event means for the open note; it may know less than the list. */
function onOpen(frame: Exclude<Frame, { type: "presence" }> & { id: number; version: number }): void {
  const open = note.value;
  if (current() !== frame.id || (open && frame.version <= open.version)) return;
  if (frame.type === "note.deleted") missing.value = true;
  else void refresh(frame.id);
}

/** Reads the open note again. */
export async function refresh(id: number): Promise<void> {
  try {
    const read = await api.read(id);
    if (current() === id) missing.value = false;
    shown(read);
  } catch (error) {
    if (current() !== id) return;
    if (error instanceof api.ApiError && !error.passing) missing.value = true;
    else setTimeout(() => current() === id && void refresh(id), pause(3));
  }
}

const current = (): number | null =>
  route.value.view === "note" || route.value.view === "history" ? route.value.id : null;

/** Takes a note that the server told of, if it is the open one and not older. */
function shown(read: Note): void {
  if (current() === read.id && (note.value?.id !== read.id || note.value.version <= read.version)) note.value = read;
  sync.changedElsewhere(read);
}

export const neighbours = (id: number | null): { before: Listed | undefined; after: Listed | undefined } => {
  const { items } = list.value;
  const at = items.findIndex((one) => one.id === id);
  return at < 0 ? { before: undefined, after: items[0] } : { before: items[at - 1], after: items[at + 1] };
};

export function step(by: 1 | -1): void {
  const { before, after } = neighbours(current());
  const to = by === 1 ? after : before;
  if (to) go({ view: "note", id: to.id });
}

export function compose(): void {
  go({ view: "new", key: sync.compose().key });
}

export async function remove(id: number): Promise<void> {
  try {
    await sync.flushed(id);
    await api.remove(id);
    const { after, before } = neighbours(id);
    const to = after ?? before;
    go(to && matchMedia("(min-width: 800px)").matches ? { view: "note", id: to.id } : { view: "home" });
    notice.value = {
      text: "Moved to the trash",
      undo: () => void api.undelete(id).then(() => go({ view: "note", id }), complain),
    };
  } catch (error) {
    complain(error);
  }
}

export function complain(error: unknown): void {
  notice.value = { text: error instanceof Error ? error.message : String(error) };
}

export const me = (): string => localStorage.getItem("name") || "Guest";

export async function start(): Promise<void> {
  feed = new Feed({
    frame: onFrame,
    reset: () => {
      dispatch({ type: "reset" });
      void load();
      const id = current();
      if (note.value) note.value = { ...note.value, version: 0 }; // versions may begin anew
      if (id !== null) void refresh(id);
      loadTags();
    },
    link: (state) => {
      if (state === "live") {
        sync.reachable.value = true;
        sync.hurry();
      } else if (state === "offline") {
        sync.reachable.value = false;
        people.value = new Map();
      } else if (state === "refused") {
        sync.refused.value = true;
      }
    },
  });
  addEventListener("online", () => feed?.hurry());
  addEventListener("offline", () => {
    sync.reachable.value = false;
  });
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && feed?.hurry());
  // Before anything can be typed: what was typed last time comes first.
  await sync.start(
    (key, born) => {
      const at = route.value;
      if (at.view !== "new" || at.key !== key) return;
      note.value = born; // first, so that what shows the draft goes on without a gap
      go({ view: "note", id: born.id }, true);
    },
    (told) => shown(told),
  );
  addEventListener("beforeunload", (event) => {
    if (sync.unsent()) event.preventDefault();
  });
  let before: Route = route.peek();
  effect(() => {
    const here = route.value;
    if (before.view === "new" && path(before) !== path(here)) sync.dropBlank(before.key);
    before = here;
  });
  effect(() => {
    const id = current();
    if (id === null) {
      note.value = null;
    } else if (note.peek()?.id !== id) {
      note.value = null;
      missing.value = false;
      void refresh(id);
    }
    feed?.look(id, { name: me() });
    // Who looks at other notes is not told any more.
    const here = id === null ? undefined : people.peek().get(id);
    people.value = here ? new Map([[id as number, here]]) : new Map();
  });
  void load();
  loadTags(0);
}
