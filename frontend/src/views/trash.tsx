/** The trash: what was deleted, the way back, and the way out. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { news } from "../live";
import { complain } from "../notices";
import { go } from "../router";
import type { Trashed } from "../types";
import { ago } from "./list";
import { Back } from "./note";

export function TrashPane() {
  const [notes, setNotes] = useState<Trashed[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [asked, setAsked] = useState<number | null>(null);
  const told = news.value;

  useEffect(() => {
    let alive = true;
    const timer = setTimeout(
      () =>
        api.trash(notes?.length).then((page) => {
          if (!alive) return;
          setNotes(page.items);
          setNext(page.next);
        }, complain),
      notes ? 500 : 0,
    );
    return () => {
      alive = false;
      clearTimeout(timer);
    };
  }, [told]);

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
                }, complain)
              }
            >
              Restore
            </button>
            {asked === note.id ? (
              <button
                type="button"
                class="danger"
                onClick={() => api.purge(note.id).then(() => gone(note.id), complain)}
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
            api.trashAfter(next).then((page) => {
              setNotes([...(notes ?? []), ...page.items]);
              setNext(page.next);
            }, complain)
          }
        >
          More
        </button>
      )}
    </section>
  );
}
