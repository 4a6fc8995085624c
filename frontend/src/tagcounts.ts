/** The tags of all notes with their counts: requested only while they are shown, and at most every 30 s. */

import { computed, signal } from "@preact/signals";
import * as api from "./api";
import { pause } from "./backoff";
import { BLANK } from "./drafts";
import { outbox } from "./outbox";
import type { TagCount } from "./types";

/** Milliseconds between two requests. */
export const INTERVAL = 30_000;

const counts = signal<ReadonlyMap<string, number>>(new Map());

/** The most frequent first, with the changes that are not saved yet. */
export const tags = computed<TagCount[]>(() => {
  const all = new Map(counts.value);
  for (const { base, mine } of outbox.all) count(all, (base ?? BLANK).tags, mine.tags);
  return [...all].map(([tag, count]) => ({ tag, count })).sort((a, b) => b.count - a.count || (a.tag < b.tag ? -1 : 1));
});

function count(all: Map<string, number>, before: string[], after: string[]): void {
  const add = (tag: string, by: number): void => {
    const sum = (all.get(tag) ?? 0) + by;
    if (sum > 0) all.set(tag, sum);
    else all.delete(tag);
  };
  for (const tag of before) if (!after.includes(tag)) add(tag, -1);
  for (const tag of after) if (!before.includes(tag)) add(tag, 1);
}

let shown = 0;
let etag: string | null = null;
let requested = -INTERVAL;
let stale = true;
let loading = false;
let loaded = false;
let failures = 0;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Keeps the tags up to date until the returned function is called. */
export function show(): () => void {
  shown++;
  if (performance.now() - requested >= INTERVAL) stale = true;
  schedule();
  return () => {
    shown--;
    if (shown === 0) clearTimeout(timer);
  };
}

/** Takes the tags of a note before and after a change. Those before are undefined if the page has not seen the note. */
export function changed(before: string[] | undefined, after: string[], created: boolean): void {
  if (before || created) {
    const all = new Map(counts.peek());
    count(all, before ?? [], after);
    counts.value = all;
  }
  expire();
}

/** Requests the tags again, once they are shown and the interval is over. */
export function expire(): void {
  stale = true;
  schedule();
}

function schedule(): void {
  clearTimeout(timer);
  if (shown === 0 || !stale || loading) return;
  const first = failures > 0 && !loaded;
  const after = first ? Math.max(1_000, pause(failures + 1)) : requested + INTERVAL - performance.now();
  timer = setTimeout(() => void load(), Math.max(0, after));
}

async function load(): Promise<void> {
  loading = true;
  stale = false;
  requested = performance.now();
  try {
    const answer = await api.tags(etag);
    failures = 0;
    loaded = true;
    if (answer) {
      etag = answer.etag;
      counts.value = new Map(answer.tags.map(({ tag, count }) => [tag, count]));
    }
  } catch {
    failures++;
    stale = true;
  } finally {
    loading = false;
    schedule();
  }
}
