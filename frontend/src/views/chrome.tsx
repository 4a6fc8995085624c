/** What is around the views: the bar with the sync light, the help sheet, notices, and the keyboard. */

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import * as api from "../api";
import { go, route } from "../router";
import * as state from "../state";
import * as sync from "../sync";
import { Link } from "./link";
import { searchBox } from "./list";
import { nextMode } from "./note";

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
  return (
    <header class="bar top">
      <Link class="brand" to={{ view: "home" }}>
        Notes
      </Link>
      <Light />
      <nav aria-label="Main">
        <button type="button" class="primary" onClick={() => state.compose()}>
          New note
        </button>
        <More />
      </nav>
    </header>
  );
}

function Light() {
  const now = sync.light.value;
  const text =
    now.state === "offline"
      ? now.waiting
        ? `Offline – ${now.waiting} ${now.waiting === 1 ? "change" : "changes"} waiting`
        : "Offline"
      : { saved: "Saved", saving: "Saving…", conflict: "Conflict", unsaved: "Not saved", refused: "Not live – reload" }[
          now.state
        ];
  const to = "key" in now ? sync.drafts.value.get(now.key) : undefined;
  return (
    <span class="light" data-state={now.state} role="status" aria-live="polite">
      {to ? (
        <button
          type="button"
          class="plain"
          title={now.state === "unsaved" ? now.reason : "Others changed the same words"}
          onClick={() => go(to.id === null ? { view: "new", key: to.key } : { view: "note", id: to.id })}
        >
          {text}
        </button>
      ) : (
        text
      )}
    </span>
  );
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
        <Link to={{ view: "trash" }}>Trash</Link>
        <a href="/export" download>
          Export all notes
        </a>
        <button type="button" onClick={() => file.current?.click()}>
          Import…
        </button>
        <button type="button" onClick={nextTheme}>
          Colours: {theme.value}
        </button>
        <button type="button" onClick={rename}>
          Your name: {state.me()}
        </button>
        <button
          type="button"
          onClick={() => {
            state.dialog.value = "help";
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
          api.bringIn(files).then((many) => {
            state.notice.value = { text: `${many} notes imported` };
          }, state.complain);
          event.currentTarget.value = "";
        }}
      />
    </details>
  );
}

function rename(): void {
  const name = prompt("Your name, as others see it", state.me())?.trim().slice(0, 40);
  if (name) {
    localStorage.setItem("name", name);
    location.reload();
  }
}

const KEYS: [string, string][] = [
  ["/", "search"],
  ["n", "new note"],
  ["j / k", "next / previous note"],
  ["e", "edit the text"],
  ["v", "write, both, read"],
  ["h", "history"],
  ["Ctrl+S", "save now"],
  ["Esc", "out of a field; back to the list"],
  ["?", "this sheet"],
];

export function Help() {
  const sheet = useRef<HTMLDialogElement>(null);
  const open = state.dialog.value === "help";
  useEffect(() => {
    if (open) sheet.current?.showModal();
    else sheet.current?.close();
  }, [open]);
  return (
    <dialog
      ref={sheet}
      aria-label="Keys"
      onClose={() => {
        state.dialog.value = null;
      }}
    >
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}

export function Notice() {
  const now = state.notice.value;
  useEffect(() => {
    if (!now) return;
    const timer = setTimeout(() => {
      if (state.notice.value === now) state.notice.value = null;
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
                state.notice.value = null;
              }}
            >
              Undo
            </button>
          )}
        </p>
      )}
    </div>
  );
}

export function keys(event: KeyboardEvent): void {
  if (event.defaultPrevented) return;
  const target = event.target as HTMLElement;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
    event.preventDefault();
    if (target.closest(".tagfield")) target.blur(); // which takes the tag that is half typed
    sync.hurry();
    return;
  }
  const typing = target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
  if (event.key === "Escape" && !state.dialog.value) {
    if (typing) target.blur();
    else if (route.value.view !== "home")
      go(route.value.view === "history" ? { view: "note", id: route.value.id } : { view: "home" });
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || state.dialog.value) return;
  const here = route.value;
  const actions: Record<string, () => void> = {
    "/": () => searchBox.current?.focus(),
    n: () => state.compose(),
    j: () => state.step(1),
    k: () => state.step(-1),
    e: () => document.querySelector<HTMLElement>(".cm-content")?.focus(),
    v: nextMode,
    h: () => here.view === "note" && go({ view: "history", id: here.id }),
    "?": () => {
      state.dialog.value = "help";
    },
  };
  const action = actions[event.key];
  if (action) {
    event.preventDefault();
    action();
  }
}
