/** The list of notes that is shown: its pages, its search, and its order. */

import { signal } from "@preact/signals";
import type { Listed, Page, Sort } from "./api";
import * as api from "./api";
import { pause } from "./backoff";
import { reachable } from "./connection";
import type { Frame } from "./feed";
import { type Action, empty, type List, reduce } from "./list";
import * as tagCounts from "./tagcounts";

export const list = signal<List>(empty({ q: "", tags: [], sort: "-updated" }));

const dispatch = (action: Action): void => {
  list.value = reduce(list.value, action);
};

/** Called with every first page. */
let loaded: (page: Page<Listed>) => void = () => {};
let loading: AbortController | null = null;
let retry: ReturnType<typeof setTimeout> | undefined;
let attempts = 0;
let shownFor: api.Filter | null = null;

export function start(onLoaded: (page: Page<Listed>) => void): void {
  loaded = onLoaded;
  void load();
}

async function load(): Promise<void> {
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
    reachable.value = true;
    if (filter.q.trim()) page.items.push(...beginnings(filter, page.items));
    else for (const one of page.items) seen.set(one.id, one);
    shownFor = filter;
    dispatch({ type: "page", page, first: true });
    loaded(page);
  } catch (error) {
    if (abort.signal.aborted) return;
    const failed = error as api.ApiError;
    if (failed.status === 422) dispatch({ type: "page", page: { items: [], next: null, cursor: null }, first: true });
    else retry = setTimeout(() => void load(), pause(++attempts));
    if (failed.status === 0) reachable.value = false;
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
    attempts = 0;
    if (list.value.next === next && !loading) dispatch({ type: "page", page, first: false });
  } catch {
    setTimeout(() => list.value.next === next && void loadMore(), pause(++attempts));
  } finally {
    more = false;
  }
}

let soon: ReturnType<typeof setTimeout> | undefined;
function loadSoon(after: number): void {
  clearTimeout(soon);
  soon = setTimeout(() => void load(), after);
}

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
  loadSoon(150);
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

/** Takes a note as an event or the answer to a write has it. */
export function learn({ content: _, ...note }: Listed & { content?: string }): void {
  const known = seen.get(note.id);
  if (known && known.version >= note.version) return;
  seen.set(note.id, note);
  tagCounts.changed(known?.tags, note.tags, note.version === 1);
}

/** Takes an event. Answers whether it was news. */
export function hear(frame: Extract<Frame, { id: number; version: number }>): boolean {
  const before = list.value.versions.get(frame.id) ?? 0;
  dispatch({ type: "event", frame });
  if (frame.version <= before) return false;
  if ("note" in frame) {
    learn(frame.note);
  } else {
    tagCounts.changed(seen.get(frame.id)?.tags, [], false);
    seen.delete(frame.id);
  }
  if (list.value.stale) loadSoon(300);
  return true;
}

export function reset(): void {
  dispatch({ type: "reset" });
  seen.clear(); // their versions may begin again
  void load();
  tagCounts.expire();
}

/** The notes before and after one in the list; without one, the first is the next. */
export function neighbours(id: number | null): { before: Listed | undefined; after: Listed | undefined } {
  const { items } = list.value;
  const at = items.findIndex((one) => one.id === id);
  return at < 0 ? { before: undefined, after: items[0] } : { before: items[at - 1], after: items[at + 1] };
}
