/** What is around the views: the bar with the sync light and the menu, and notices. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { accounts, asked, ended, stranger, user } from "../account";
import { compose, signOut } from "../actions";
import { outside } from "../entrance";
import { light, type Light as State } from "../light";
import { notice } from "../notices";
import { outbox } from "../outbox";
import { me } from "../people";
import { addressOf } from "../root";
import { go, type Route } from "../router";
import { importFiles } from "./imports";
import { sheetOpen } from "./keys";
import { Link } from "./link";

type Theme = "auto" | "light" | "dark";
const theme = signal<Theme>((localStorage.getItem("theme") as Theme | null) ?? "auto");

export function applyTheme(): void {
  document.documentElement.dataset.theme = theme.value;
}

function nextTheme(): void {
  theme.value = { auto: "light", light: "dark", dark: "auto" }[theme.value] as Theme;
  localStorage.setItem("theme", theme.value);
  applyTheme();
}

export function Bar() {
  const bare = outside.value;
  return (
    <header class="bar top">
      <Link class="brand" to={{ view: "home" }}>
        Notes
      </Link>
      {(!bare || ended.value) && <Light />}
      <nav aria-label="Main">
        {!bare && <First />}
        {!ended.value && <More />}
      </nav>
    </header>
  );
}

/** What comes first to do. */
function First() {
  const ask = (): void => {
    asked.value = true;
  };
  return (
    <button type="button" class="primary" onClick={stranger.value ? ask : compose}>
      {stranger.value ? "Sign in" : "New note"}
    </button>
  );
}

function Light() {
  const now = light.value;
  const text = wordsOf(now);
  const to = "key" in now ? place(now) : null;
  return (
    <span class="light" data-state={now.state} role="status" aria-live="polite">
      {to ? (
        <button
          type="button"
          class="plain"
          title={now.state === "unsaved" ? now.reason : "Others changed the same words"}
          onClick={() => go(to)}
        >
          {text}
        </button>
      ) : (
        text
      )}
    </span>
  );
}

function wordsOf(now: State): string {
  const changes = "waiting" in now && now.waiting ? `${now.waiting} ${now.waiting === 1 ? "change" : "changes"}` : "";
  switch (now.state) {
    case "offline":
      return changes ? `Offline – ${changes} waiting` : "Offline";
    case "ended":
      return changes ? `Signed out – ${changes} waiting` : "Signed out";
    case "saving":
      return now.slowed ? "Saving, slowly: that was a lot at once…" : "Saving…";
    default:
      return { saved: "Saved", conflict: "Conflict", unsaved: "Not saved", refused: "Not live – reload" }[now.state];
  }
}

function place(now: { key: string; id?: number }): Route | null {
  const id = now.id ?? outbox.drafts.value.get(now.key)?.id;
  if (id != null) return { view: "note", id };
  return outbox.drafts.value.has(now.key) ? { view: "new", key: now.key } : null;
}

function More() {
  const file = useRef<HTMLInputElement>(null);
  const menu = useRef<HTMLDetailsElement>(null);
  const close = (): void => menu.current?.removeAttribute("open");
  return (
    <details
      class="menu"
      ref={menu}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !menu.current?.open) return;
        event.preventDefault();
        close();
      }}
    >
      <summary aria-label="More">⋯</summary>
      {/* biome-ignore lint/a11y/useKeyWithClickEvents: the buttons in it have the keyboard */}
      <div onClick={close}>
        {!stranger.value && <Link to={{ view: "trash" }}>Trash</Link>}
        <a href={addressOf("/export")} download>
          Export all notes
        </a>
        {!stranger.value && (
          <button type="button" onClick={() => file.current?.click()}>
            Import…
          </button>
        )}
        <button type="button" onClick={nextTheme}>
          Colours: {theme.value}
        </button>
        {!accounts.value && (
          <button type="button" onClick={rename}>
            Your name: {me()}
          </button>
        )}
        {user.value && <Link to={{ view: "account" }}>Your account: {user.value.name}</Link>}
        {user.value?.admin && <Link to={{ view: "people" }}>People</Link>}
        {user.value && (
          <button type="button" onClick={() => void signOut()}>
            Sign out
          </button>
        )}
        <button
          type="button"
          onClick={() => {
            sheetOpen.value = true;
          }}
        >
          Keys <kbd>?</kbd>
        </button>
      </div>
      <input
        ref={file}
        type="file"
        multiple
        accept=".md,.markdown,.zip"
        class="hidden"
        tabIndex={-1}
        aria-label="Files to import"
        onChange={(event) => {
          const { files } = event.currentTarget;
          if (!files?.length) return;
          void importFiles(files);
          event.currentTarget.value = "";
        }}
      />
    </details>
  );
}

function rename(): void {
  const name = prompt("Your name, as others see it", me())?.trim().slice(0, 40);
  if (name) {
    localStorage.setItem("name", name);
    location.reload();
  }
}

export function Notice() {
  const now = notice.value;
  useEffect(() => {
    if (!now) return;
    const timer = setTimeout(() => {
      if (notice.value === now) notice.value = null;
    }, 8000);
    return () => clearTimeout(timer);
  }, [now]);
  return (
    <div class="notice" role="status" aria-live="polite">
      {now && (
        <p>
          {now.text}
          {now.undo && (
            <button
              type="button"
              onClick={() => {
                now.undo?.();
                notice.value = null;
              }}
            >
              {now.label}
            </button>
          )}
        </p>
      )}
    </div>
  );
}
