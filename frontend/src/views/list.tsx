/** The list: only the rows in view are there, pages come as they are needed, and what is in view stays in place. */

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Listed, Sort } from "../api";
import { isComposing } from "../composing";
import * as listing from "../listing";
import { marks } from "../markdown";
import { current } from "../opened";
import { outbox } from "../outbox";
import { others } from "../people";
import { route } from "../router";
import * as tagCounts from "../tagcounts";
import { Link } from "./link";

export const ROW = 84;
const AROUND = 8;
const SORTS: [Sort, string][] = [
  ["-updated", "Last changed"],
  ["-created", "Newest"],
  ["created", "Oldest"],
  ["title", "Title A–Z"],
  ["-title", "Title Z–A"],
];

export const searchBox: { current: HTMLInputElement | null } = { current: null };
const tagsOpen = signal(false);

export function Sidebar() {
  const { filter } = listing.list.value;
  return (
    <aside class="sidebar" aria-label="Notes">
      <search class="finder">
        <input
          ref={searchBox}
          type="search"
          placeholder="Search  /"
          aria-label="Search"
          maxLength={200}
          value={filter.q}
          onInput={(event) => listing.search(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (isComposing(event)) return;
            if (event.key === "Escape") {
              listing.search("");
              event.currentTarget.blur();
            } else if (event.key === "ArrowDown" || event.key === "Enter") {
              event.preventDefault();
              document.querySelector<HTMLElement>(".row")?.focus();
            }
          }}
        />
        <div class="bar">
          <select
            aria-label="Order"
            value={filter.sort}
            disabled={filter.q.trim() !== ""}
            onChange={(event) => listing.sortBy(event.currentTarget.value as Sort)}
          >
            {SORTS.map(([sort, name]) => (
              <option key={sort} value={sort}>
                {name}
              </option>
            ))}
          </select>
          <button
            type="button"
            class="plain"
            aria-expanded={tagsOpen.value}
            onClick={() => {
              tagsOpen.value = !tagsOpen.value;
            }}
          >
            Tags{filter.tags.length ? ` (${filter.tags.length})` : ""}
          </button>
        </div>
        {(tagsOpen.value || filter.tags.length > 0) && <Tags />}
      </search>
      <Unsaved />
      <Rows />
    </aside>
  );
}

function Tags() {
  const chosen = listing.list.value.filter.tags;
  useEffect(tagCounts.show, []);
  const counts = new Map(tagCounts.tags.value.map(({ tag, count }) => [tag, count]));
  const shown = [...new Set([...chosen, ...counts.keys()])].slice(0, 200);
  return (
    <fieldset class="tags">
      <legend class="hidden">Only notes with these tags</legend>
      {shown.map((tag) => (
        <button
          type="button"
          key={tag}
          class="tag"
          aria-pressed={chosen.includes(tag)}
          onClick={() => listing.toggleTag(tag)}
        >
          {tag} <small>{counts.get(tag) ?? 0}</small>
        </button>
      ))}
      {shown.length === 0 && <p class="faint">No tags yet</p>}
    </fieldset>
  );
}

/** New notes that are not on the server yet. */
function Unsaved() {
  const fresh = outbox.all.filter((draft) => draft.id === null);
  if (fresh.length === 0) return null;
  return (
    <ul class="fresh" aria-label="Not saved yet">
      {fresh.map((draft) => (
        <li key={draft.key}>
          <Link
            class="row draft"
            to={{ view: "new", key: draft.key }}
            current={route.value.view === "new" && route.value.key === draft.key}
          >
            <b>{draft.mine.title || "New note"}</b>
            <span>not saved yet</span>
          </Link>
        </li>
      ))}
    </ul>
  );
}

const top = signal(0);
/** The note whose row has the focus: it stays there, out of view, so that the focus does. */
const focused = signal<number | null>(null);
const height = signal(800);

function Rows() {
  const box = useRef<HTMLDivElement>(null);
  const anchors = useRef<{ id: number; version: number; offset: number }[]>([]);
  const { items, next, loaded, filter } = listing.list.value;

  useEffect(() => {
    const element = box.current as HTMLDivElement;
    const watch = new ResizeObserver(() => {
      height.value = element.clientHeight;
    });
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  // What came or went above the rows in view must not move them.
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    // The first of those in view that did not move itself.
    const places = new Map(items.map((note, at) => [note.id, { at, version: note.version }]));
    const kept = anchors.current.find(({ id, version }) => places.get(id)?.version === version);
    if (kept && element.scrollTop > 0) {
      const wanted = (places.get(kept.id)?.at ?? 0) * ROW + kept.offset;
      if (Math.abs(wanted - element.scrollTop) > 1) element.scrollTop = wanted;
    }
    remember(element);
  }, [items]);

  useLayoutEffect(() => {
    if (box.current) box.current.scrollTop = 0;
    anchors.current = [];
  }, [filter]);

  const remember = (element: HTMLElement): void => {
    top.value = element.scrollTop;
    const first = Math.floor(element.scrollTop / ROW);
    const seen = items.slice(first, first + Math.ceil(element.clientHeight / ROW));
    anchors.current = seen.map(({ id, version }, at) => ({
      ...{ id, version },
      offset: element.scrollTop - (first + at) * ROW,
    }));
  };

  const from = Math.max(0, Math.floor(top.value / ROW) - AROUND);
  const to = Math.min(items.length, Math.ceil((top.value + height.value) / ROW) + AROUND);
  const held = focused.value === null ? -1 : items.findIndex((note) => note.id === focused.value);
  const shown = Array.from({ length: Math.max(0, to - from) }, (_, index) => from + index);
  if (held >= 0 && held < from) shown.unshift(held);
  if (held >= to) shown.push(held);
  useEffect(() => {
    if (next && to > items.length - 60) void listing.loadMore();
  }, [to, items.length, next]);

  return (
    <div
      class="rows"
      ref={box}
      onScroll={(event) => remember(event.currentTarget)}
      onFocusIn={(event) => {
        const row = (event.target as HTMLElement).closest<HTMLElement>("[data-at]");
        focused.value = row ? (items[Number(row.dataset.at)]?.id ?? null) : null;
      }}
      onFocusOut={() => {
        focused.value = null;
      }}
      onKeyDown={(event) => {
        const row = (event.target as HTMLElement).closest<HTMLElement>("[data-at]");
        const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (!row || !by) return;
        event.preventDefault();
        focusRow(event.currentTarget, Number(row.dataset.at) + by);
      }}
    >
      <ol style={{ height: `${items.length * ROW}px` }} aria-label={`${items.length}${next ? "+" : ""} notes`}>
        {shown.map((at) => {
          const note = items[at] as Listed;
          return <Row key={note.id} note={note} at={at} of={next ? -1 : items.length} />;
        })}
      </ol>
      {loaded && items.length === 0 && (
        <p class="faint nothing">
          {filter.q || filter.tags.length ? "Nothing found" : "No notes yet. Press n to write one."}
        </p>
      )}
      {!loaded && <p class="faint nothing">Loading…</p>}
    </div>
  );
}

function focusRow(box: HTMLElement, at: number): void {
  if (at < 0 || at >= listing.list.value.items.length) return;
  const row = (): HTMLElement | null => box.querySelector(`[data-at="${at}"]`);
  if (at * ROW < box.scrollTop) box.scrollTop = at * ROW;
  else if ((at + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (at + 1) * ROW - box.clientHeight;
  if (row()) row()?.focus();
  else requestAnimationFrame(() => row()?.focus());
}

function Row({ note, at, of }: { note: Listed; at: number; of: number }) {
  const draft = outbox.of(note.id);
  const here = others(note.id).length;
  return (
    <li style={{ transform: `translateY(${at * ROW}px)` }} aria-setsize={of} aria-posinset={at + 1}>
      <Link class="row" at={at} to={{ view: "note", id: note.id }} current={current() === note.id}>
        <b>{draft?.mine.title || note.title}</b>
        {draft?.conflict && <i class="badge">conflict</i>}
        <span>
          {note.snippet
            ? marks(note.snippet.replace(/\s+/g, " ")).map(({ text, hit }, index) =>
                hit ? <mark key={index}>{text}</mark> : text,
              )
            : note.description}
        </span>
        <small>
          <time dateTime={note.updated_date}>{ago(note.updated_date)}</time>
          {note.tags.slice(0, 3).map((tag) => (
            <em key={tag}>{tag}</em>
          ))}
          {here > 0 && <em>{here} also here</em>}
        </small>
      </Link>
    </li>
  );
}

export function ago(date: string): string {
  const seconds = (Date.now() - Date.parse(date)) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(date).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}
