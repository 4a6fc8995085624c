/** The trash: what was deleted, the way back, and the way out. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { go } from "../router";
import * as state from "../state";
import type { Trashed } from "../types";
import { ago } from "./list";
import { Back } from "./note";

export function TrashPane() {
  const [notes, setNotes] = useState<Trashed[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [asked, setAsked] = useState<number | null>(null);
  const news = state.trashed.value;

  useEffect(() => {
    let alive = true;
    const timer = setTimeout(
      () =>
        api.trash().then((page) => {
          if (!alive) return;
          setNotes(page.items);
          setNext(page.next);
        }, state.complain),
      notes ? 500 : 0,
    );
    return () => {
      alive = false;
      clearTimeout(timer);
    };
  }, [news]);

  const gone = (id: number): void => setNotes((now) => now?.filter((note) => note.id !== id) ?? null);

  return (
    <section class="pane trash" aria-label="Trash">
      <header class="tools">
        <Back />
        <h1>Trash</h1>
      </header>
      <p class="faint">Notes stay here for a while, then they are gone for good.</p>
      {notes?.length === 0 && <p class="faint nothing">The trash is empty.</p>}
      <ul>
        {notes?.map((note) => (
          <li key={note.id}>
            <div>
              <b>{note.title}</b>
              <span>{note.description}</span>
              <small>
                deleted <time dateTime={note.deleted_date}>{ago(note.deleted_date)}</time>
              </small>
            </div>
            <button
              type="button"
              class="primary"
              aria-label={`Restore ${note.title}`}
              onClick={() =>
                api.undelete(note.id).then(() => {
                  gone(note.id);
                  go({ view: "note", id: note.id });
                }, state.complain)
              }
            >
              Restore
            </button>
            {asked === note.id ? (
              <button
                type="button"
                class="danger"
                onClick={() => api.purge(note.id).then(() => gone(note.id), state.complain)}
              >
                Really delete for good?
              </button>
            ) : (
              <button type="button" aria-label={`Delete for good: ${note.title}`} onClick={() => setAsked(note.id)}>
                Delete for good
              </button>
            )}
          </li>
        ))}
      </ul>
      {next && (
        <button
          type="button"
          onClick={() =>
            api.trash(next).then((page) => {
              setNotes([...(notes ?? []), ...page.items]);
              setNext(page.next);
            }, state.complain)
          }
        >
          More
        </button>
      )}
    </section>
  );
}
