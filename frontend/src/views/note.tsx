/** A note: its fields, its text with a preview, and what can be done with it. */

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { accounts, stranger } from "../account";
import { forgetWords, remove, rescue } from "../actions";
import * as api from "../api";
import { isComposing } from "../composing";
import { BLANK, type Draft, type Fields, fieldsOf, leftover, waiting } from "../drafts";
import * as fragment from "../fragment";
import { later } from "../later";
import { render } from "../markdown";
import { complain } from "../notices";
import * as opened from "../opened";
import { GONE, outbox } from "../outbox";
import { others } from "../people";
import type { Room } from "../room";
import { go, route } from "../router";
import { mayWrite, owns, roleOf } from "../sharing";
import * as tagCounts from "../tagcounts";
import * as texts from "../texts";
import type { Note } from "../types";
import { Field } from "./field";
import { accountViews, loadAccountViews } from "./lazy";
import { Link } from "./link";

type EditorView = typeof import("./editor").Editor;

const editor = signal<EditorView | null>(null);

/** The editor is the largest part of the page. */
export const loadEditor = (): Promise<void> =>
  later(
    () => import("./editor"),
    (part) => {
      editor.value = part.Editor;
    },
    "The editor",
  );

/** The caret in a field, if it is the one that is typed in. */
function caretOf(field: HTMLTextAreaElement | null): { anchor: number; head: number } | null {
  if (!field || document.activeElement !== field) return null;
  return { anchor: field.selectionStart, head: field.selectionEnd };
}

type Mode = "write" | "both" | "read";
const wide = matchMedia("(min-width: 1100px)");
const mode = signal<Mode>((localStorage.getItem("mode") as Mode | null) ?? (wide.matches ? "both" : "write"));

export function setMode(to: Mode): void {
  mode.value = to;
  localStorage.setItem("mode", to);
}

export const nextMode = (): void => setMode({ write: "both", both: "read", read: "write" }[mode.value] as Mode);

export function NotePane() {
  const here = route.value;
  if (here.view === "new") {
    const draft = outbox.drafts.value.get(here.key);
    const saved = [...outbox.made].find(([, key]) => key === here.key);
    if (!draft && saved) go({ view: "note", id: saved[0] }, true);
    return draft ? <Form key={draft.key} draft={draft} note={null} /> : <Gone text="This draft is not here any more" />;
  }
  const note = opened.note.value;
  const id = here.view === "note" ? here.id : null;
  const draft = id === null ? undefined : outbox.of(id);
  const lost = id === null ? undefined : texts.strayOf(id, note);
  if (id !== null && lost && (note || (opened.missing.value && !draft)))
    return <Lost id={id} room={lost} replaced={note !== null} />;
  if (opened.missing.value && !draft && !note) {
    if (fragment.dead.value) return <Gone text="This link opens nothing any more." />;
    const shared = accounts.value ? "This note is not there, or not shared with you." : "This note is not there.";
    return <Gone text={`${shared} It may be in the trash.`} />;
  }
  if (!note && !draft?.base) {
    return (
      <section class="pane" aria-busy="true">
        <p class="faint nothing">Loading…</p>
      </section>
    );
  }
  return <Form key={outbox.made.get(id ?? 0) ?? id} draft={draft ?? null} note={note} />;
}

export function Gone({ text }: { text: string }) {
  return (
    <section class="pane gone">
      <Back />
      <p>{text}</p>
      <Link to={{ view: "trash" }}>Look in the trash</Link>
    </section>
  );
}

/** Words that were typed into a note that is gone, perhaps replaced by another with its id, and are nowhere else. */
function Lost({ id, room, replaced }: { id: number; room: Room; replaced: boolean }) {
  const words = room.content.value;
  const title = [...(words.split("\n", 1)[0] ?? "").replace(/^#+\s*/, "").trim()].slice(0, 50).join("");
  const fields = { ...BLANK, title: [...title].length < 3 ? "Words of a deleted note" : title, content: words };
  return (
    <section class="pane" aria-label="Note">
      <Back />
      <Deleted id={id} words={fields} replaced={replaced} />
      <pre class="editor waiting">{words}</pre>
    </section>
  );
}

/** That a note is gone, and what can be done with it and with the words that it does not have. */
function Deleted({ id, words, replaced = false }: { id: number; words: Fields | null; replaced?: boolean }) {
  const gone = owns(id) ? GONE : "This note was deleted, or is not shared with you any more";
  return (
    <div class="alert" role="alert">
      {replaced ? "The note of these words is gone, and another one has its number" : gone}
      {!replaced && owns(id) && (
        <button type="button" onClick={() => api.undelete(id).then(() => opened.refresh(id), complain)}>
          Restore it
        </button>
      )}
      {words && <Rescue id={id} words={words} />}
    </div>
  );
}

function Rescue({ id, words }: { id: number; words: Fields }) {
  return (
    <>
      {!stranger.value && (
        <button type="button" onClick={() => rescue(id, words)}>
          Save my words as a new note
        </button>
      )}
      <button
        type="button"
        onClick={() => {
          forgetWords(id);
          go({ view: "home" });
        }}
      >
        Discard
      </button>
    </>
  );
}

export function Back() {
  return (
    <button type="button" class="plain back" onClick={() => go({ view: "home" })}>
      ‹ Notes
    </button>
  );
}

function Form({ draft, note }: { draft: Draft | null; note: Note | null }) {
  const fields: Fields = draft?.mine ?? fieldsOf(note as Note);
  const change = (changed: Partial<Fields>): void => {
    const target = (draft && outbox.drafts.value.get(draft.key)) ?? note ?? draft;
    if (target) outbox.type(target, changed, overRest && !(draft && leftover(draft)));
  };
  const Editor = editor.value;
  const views = accountViews.value;
  useEffect(() => {
    if (draft?.conflict && !views) void loadAccountViews();
  }, [draft?.conflict]);
  const id = note?.id ?? draft?.id ?? null;
  const created = note?.created_date ?? draft?.created ?? null;
  useEffect(
    () => (id === null || created === null ? undefined : texts.use({ id, created_date: created })),
    [id, created],
  );
  const identity = id === null || created === null ? null : { id, created_date: created };
  const overRest = identity !== null && texts.isOverRest(identity);
  const open = identity ? texts.roomOf(identity) : undefined;
  // Until what was typed while the note was made is in the shared text, the editor stays with the draft.
  const room = open?.ready.value && !(draft && leftover(draft)) ? open : null;
  const alone = id === null || overRest || outbox.made.has(id);
  const content = room ? room.content.value : fields.content;
  const plain = useRef<HTMLTextAreaElement>(null);
  const names = id === null ? [] : others(id);
  const readonly = !mayWrite(id);
  const missing = id !== null && (opened.missing.value || draft?.error === GONE);
  const refused =
    id !== null && !missing && roleOf(id) === "viewer" && ((draft && waiting(draft)) || open?.denied.value);

  // Before another key can be pressed, which may be a letter of the title.
  useLayoutEffect(() => {
    if (!fields.title) document.querySelector<HTMLInputElement>(".title")?.focus();
  }, []);
  useEffect(() => {
    document.title = fields.title ? `${fields.title} – Notes` : "Notes";
  }, [fields.title]);

  return (
    <section class={`pane mode-${mode.value}`} aria-label="Note">
      <header class="tools">
        <Back />
        <span class="people" role="status">
          {names.length ? `Also here: ${names.join(", ")}` : ""}
        </span>
        {id !== null && views && <views.Standing id={id} />}
        <fieldset class="modes">
          <legend class="hidden">View</legend>
          {(["write", "both", "read"] as Mode[]).map((one) => (
            <button key={one} type="button" aria-pressed={mode.value === one} onClick={() => setMode(one)}>
              {{ write: "Write", both: "Both", read: "Read" }[one]}
            </button>
          ))}
        </fieldset>
        {id !== null && (
          <>
            <Link class="button" to={{ view: "history", id }}>
              History
            </Link>
            {owns(id) && (
              <button type="button" onClick={() => void remove(id)}>
                Delete
              </button>
            )}
            {accounts.value && owns(id) && views && <views.Share id={id} title={fields.title} />}
          </>
        )}
        {id === null && draft && (
          <button
            type="button"
            onClick={() => {
              outbox.discard(draft.key);
              go({ view: "home" });
            }}
          >
            Discard
          </button>
        )}
      </header>
      {draft?.conflict && !readonly && views && <views.ConflictPanel draft={draft} />}
      {!refused && draft?.error !== GONE && draft?.error && (
        <div class="alert" role="alert">
          {draft.error}
        </div>
      )}
      {refused && (
        <div class="alert" role="alert">
          You may only read this note now, and it does not have your last words
          <Rescue id={id} words={{ ...fields, content }} />
        </div>
      )}
      {missing && <Deleted id={id} words={draft || open?.unsaved.value ? { ...fields, content } : null} />}
      <div class="head">
        <Field
          class="title"
          label="Title"
          placeholder="Title"
          value={fields.title}
          readOnly={readonly}
          change={(title) => change({ title })}
        />
        <Field
          class="description"
          label="Description"
          placeholder={readonly ? "" : "Description – if left empty, the first line"}
          value={fields.description}
          readOnly={readonly}
          change={(description) => change({ description })}
        />
        <TagField tags={fields.tags} readOnly={readonly} change={(tags) => change({ tags })} />
      </div>
      {overRest && !readonly && !missing && (
        <p class="quiet" role="status">
          Live editing is not available here. Your changes are saved every few seconds.
        </p>
      )}
      <div class="text">
        {mode.value !== "read" && Editor && (room || alone) && (
          <Editor
            text={fields.content}
            label="Text"
            change={(content) => change({ content })}
            room={room}
            readOnly={readonly}
            caret={caretOf(plain.current)}
          />
        )}
        {mode.value !== "read" && !Editor && alone && (
          <textarea
            ref={plain}
            class="editor waiting"
            aria-label="Text"
            value={content}
            readOnly={readonly}
            onInput={({ currentTarget: { value } }) => (room ? room.write(value) : change({ content: value }))}
          />
        )}
        {mode.value !== "read" && !alone && !(Editor && room) && <pre class="editor waiting">{content}</pre>}
        {mode.value !== "write" && <Preview text={content} />}
      </div>
    </section>
  );
}

interface Tags {
  tags: string[];
  readOnly: boolean;
  change: (tags: string[]) => void;
}

function TagField({ tags, readOnly, change }: Tags) {
  const [text, setText] = useState("");
  const [focused, setFocused] = useState(false);
  useEffect(() => (focused ? tagCounts.show() : undefined), [focused]);
  const add = (): void => {
    const fresh = text
      .split(",")
      .map((tag) => tag.trim())
      .filter((tag) => tag && !tags.includes(tag));
    if (fresh.length) change([...tags, ...new Set(fresh)]);
    setText("");
  };
  return (
    <div class="tagfield">
      {tags.map((tag) => (
        <span class="tag" key={tag}>
          {tag}
          {!readOnly && (
            <button
              type="button"
              aria-label={`Remove the tag ${tag}`}
              onClick={() => change(tags.filter((t) => t !== tag))}
            >
              ×
            </button>
          )}
        </span>
      ))}
      <input
        hidden={readOnly}
        aria-label="Add a tag"
        placeholder="Add a tag"
        list="known-tags"
        value={text}
        maxLength={50}
        onInput={(event) => setText(event.currentTarget.value)}
        onFocus={() => setFocused(true)}
        onBlur={() => {
          setFocused(false);
          add();
        }}
        onKeyDown={(event) => {
          if (isComposing(event)) return;
          if (event.key === "Enter" || event.key === ",") {
            event.preventDefault();
            add();
          } else if (event.key === "Backspace" && !text && tags.length) {
            change(tags.slice(0, -1));
          }
        }}
      />
      <datalist id="known-tags">
        {focused && tagCounts.tags.value.slice(0, 100).map(({ tag }) => <option key={tag} value={tag} />)}
      </datalist>
    </div>
  );
}

const LONG = 20_000;
/** Characters of a text that are shown as they are written. */
const MAX_WRITTEN = 100_000;

/** Returns the beginning of a text, without characters that a browser takes long to draw. */
function plain(text: string): string {
  const begin = text.length > MAX_WRITTEN ? `${text.slice(0, MAX_WRITTEN)}…` : text;
  return begin.replace(/([\p{M}\p{Cf}]{20})[\p{M}\p{Cf}]+/gu, "$1…");
}

/** A text as its Markdown looks; as it is written, if that cannot be made in time. */
function Preview({ text }: { text: string }) {
  const [html, show] = useState<string | null | undefined>(undefined);
  useEffect(() => {
    let current = true;
    // A long text takes a while: it is shown when the typing rests.
    const timer = setTimeout(
      async () => {
        const made = await render(text);
        if (current) show(made);
      },
      text.length > LONG ? 400 : 0,
    );
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [text]);
  if (html === null) {
    return (
      <section class="preview" tabIndex={0} aria-label="Preview">
        <p class="faint">This text cannot be shown as Markdown. This is how it is written:</p>
        <pre class="written">{plain(text)}</pre>
      </section>
    );
  }
  const safe = html === undefined ? {} : { dangerouslySetInnerHTML: { __html: html } }; // it comes from DOMPurify
  return <section class="preview" tabIndex={0} aria-label="Preview" {...safe} />;
}
