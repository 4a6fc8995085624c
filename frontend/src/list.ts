/** The list of notes as a pure reducer: pages come in, events change it, and what is older than what is known is not news. */

import type { Filter, Listed, Page, Sort } from "./api";
import type { Frame } from "./feed";

export interface List {
  filter: Filter;
  /** In the order of the filter, as far as pages were loaded. */
  items: Listed[];
  /** Where the next page is; null when all are loaded. */
  next: string | null;
  loaded: boolean;
  /** The newest version known of each note, deleted ones included. */
  versions: ReadonlyMap<number, number>;
  /** Notes that an event deleted, at their newest version. */
  deleted: ReadonlySet<number>;
  /** With a search, only the server knows what is found: it has to be asked again. */
  stale: boolean;
}

export type Action =
  | { type: "filter"; filter: Filter }
  | { type: "page"; page: Page<Listed>; first: boolean }
  | { type: "event"; frame: Frame }
  | { type: "reset" };

export const empty = (filter: Filter): List => ({
  filter,
  items: [],
  next: null,
  loaded: false,
  versions: new Map(),
  deleted: new Set(),
  stale: false,
});

/** A text without case and accents, as the server orders titles: through capitals, as ß and ς only fall together there. */
export const folded = (text: string): string =>
  [...text.normalize("NFKD").replace(/\p{M}/gu, "").toUpperCase()].map((sign) => sign.toLowerCase()).join("");

const key = (note: Listed, sort: Sort): string | number => {
  switch (sort.replace("-", "")) {
    case "title":
      return folded(note.title);
    case "created":
      return note.created_date;
    case "updated":
      return note.updated_date;
    default:
      return note.id;
  }
};

/** Less than zero when `a` comes before `b`. */
export function compare(a: Listed, b: Listed, sort: Sort): number {
  const [x, y] = [key(a, sort), key(b, sort)];
  const order = x < y ? -1 : x > y ? 1 : a.id - b.id;
  return sort.startsWith("-") ? -order : order;
}

const insertAt = (items: Listed[], note: Listed, sort: Sort): number => {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare(items[middle] as Listed, note, sort) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
};

export function reduce(list: List, action: Action): List {
  switch (action.type) {
    case "filter":
      // What is shown stays until the page comes.
      return { ...list, filter: action.filter, next: null, stale: false };
    case "reset":
      return { ...list, versions: new Map(), deleted: new Set() };
    case "page":
      return takePage(list, action.page, action.first);
    case "event":
      return takeEvent(list, action.frame);
  }
}

function takePage(list: List, page: Page<Listed>, first: boolean): List {
  const versions = new Map(list.versions);
  const kept = first ? [] : list.items;
  const known = new Map((first ? list.items : kept).map((note) => [note.id, note]));
  const fresh = page.items.flatMap((note) => {
    const newest = versions.get(note.id) ?? 0;
    if (note.version >= newest) {
      versions.set(note.id, note.version);
      return [note];
    }
    if (list.deleted.has(note.id)) return [];
    return [known.get(note.id) ?? note]; // an event told more than the page does
  });
  const ids = new Set(fresh.map((note) => note.id));
  const items = [...kept.filter((note) => !ids.has(note.id)), ...fresh];
  if (!list.filter.q.trim()) items.sort((a, b) => compare(a, b, list.filter.sort));
  return { ...list, items, versions, next: page.next, loaded: true, stale: false };
}

function takeEvent(list: List, frame: Frame): List {
  if (frame.type !== "note.created" && frame.type !== "note.updated" && frame.type !== "note.deleted") return list;
  if (frame.version <= (list.versions.get(frame.id) ?? 0)) return list;
  const versions = new Map(list.versions).set(frame.id, frame.version);
  const deleted = new Set(list.deleted);
  if (frame.type === "note.deleted") deleted.add(frame.id);
  else deleted.delete(frame.id);
  const before = list.items.find((note) => note.id === frame.id);
  const items = before ? list.items.filter((note) => note.id !== frame.id) : list.items;
  if (!("note" in frame)) return { ...list, items, versions, deleted };
  const note: Listed = frame.note;
  if (list.filter.q.trim()) {
    const shown = before
      ? list.items.map((one) => (one === before ? { ...note, snippet: before.snippet ?? null } : one))
      : items;
    return { ...list, items: shown, versions, deleted, stale: true };
  }
  const wanted = list.filter.tags.every((tag) => note.tags.includes(tag));
  const at = insertAt(items, note, list.filter.sort);
  // Past the last page that was loaded it comes with its own page.
  if (!wanted || (at === items.length && list.next !== null)) return { ...list, items, versions, deleted };
  return { ...list, items: [...items.slice(0, at), note, ...items.slice(at)], versions, deleted };
}
