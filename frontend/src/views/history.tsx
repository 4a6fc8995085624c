/** The versions of a note, what changed between any two, and the way back. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import { complain, say } from "../notices";
import * as opened from "../opened";
import { go } from "../router";
import type { DifferenceOut, Revision } from "../types";
import { ago } from "./list";
import { Gone } from "./note";

const ACTIONS: Record<Revision["action"], string> = {
  create: "made",
  import: "imported",
  update: "changed",
  edit: "edited",
  type: "typed",
  restore: "restored",
  delete: "deleted",
  undelete: "taken out of the trash",
  share: "shared otherwise",
};

export function HistoryPane({ id }: { id: number }) {
  const [revisions, setRevisions] = useState<Revision[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [chosen, setChosen] = useState<number | null>(null);
  const [difference, setDifference] = useState<DifferenceOut | null>(null);
  const newest = opened.note.value?.version;

  useEffect(() => {
    let alive = true;
    api.history(id).then((page) => {
      if (!alive) return;
      // Older ones that were fetched stay.
      const oldest = page.items.at(-1)?.version ?? 0;
      const older = revisions.filter((one) => one.version < oldest);
      setRevisions([...page.items, ...older]);
      if (older.length === 0) setNext(page.next);
      setChosen((now) => now ?? page.items[0]?.version ?? null);
    }, complain);
    return () => {
      alive = false;
    };
  }, [id, newest]);

  useEffect(() => {
    if (chosen === null) return;
    let alive = true;
    const before = revisions.find((one) => one.version < chosen)?.version ?? (next ? chosen - 1 : undefined);
    setDifference(null);
    if (before !== undefined) {
      api.difference(id, before, chosen).then((found) => alive && setDifference(found), complain);
    }
    return () => {
      alive = false;
    };
  }, [id, chosen, revisions]);

  const restore = (version: number): void => {
    api.restore(id, version).then(() => {
      say(`Version ${version} is the newest again`);
      go({ view: "note", id });
    }, complain);
  };

  if (opened.missing.value && revisions.length === 0) return <Gone text="This note is not there any more." />;
  return (
    <section class="pane history" aria-label="History">
      <header class="tools">
        <button type="button" class="plain" onClick={() => go({ view: "note", id })}>
          ‹ Note
        </button>
        <h1>History{opened.note.value ? ` of ${opened.note.value.title}` : ""}</h1>
      </header>
      <div class="split">
        <ol class="versions" aria-label="Versions">
          {revisions.map((one) => (
            <li key={one.version}>
              <button
                type="button"
                aria-current={one.version === chosen ? "true" : undefined}
                onClick={() => setChosen(one.version)}
              >
                <b>Version {one.version}</b>
                <span>
                  {ACTIONS[one.action]}
                  {one.restored ? ` from ${one.restored}` : ""}
                  {one.changed.length ? `: ${one.changed.join(", ")}` : ""}
                </span>
                <small>
                  {by(one)}, <time dateTime={one.date}>{ago(one.date)}</time>
                </small>
              </button>
            </li>
          ))}
          {next && (
            <li>
              <button
                type="button"
                class="plain"
                onClick={() =>
                  api.history(id, next).then((page) => {
                    setRevisions([...revisions, ...page.items]);
                    setNext(page.next);
                  }, complain)
                }
              >
                Older versions
              </button>
            </li>
          )}
        </ol>
        <div class="difference" aria-live="polite">
          {chosen !== null && chosen !== newest && (
            <button type="button" class="primary" onClick={() => restore(chosen)}>
              Restore version {chosen}
            </button>
          )}
          {difference ? <Difference difference={difference} /> : <First id={id} version={chosen} />}
        </div>
      </div>
    </section>
  );
}

/** Who made a version, and whose words it brought along. */
function by({ action, author, authors = [] }: Revision): string {
  return (action === "type" && authors.length ? authors : [author || "a guest", ...authors]).join(", ");
}

function Difference({ difference }: { difference: DifferenceOut }) {
  const fields = Object.entries(difference.fields);
  if (fields.length === 0)
    return (
      <p class="faint">
        No text changed between {difference.before} and {difference.after}.
      </p>
    );
  return (
    <>
      {fields.map(([field, hunks]) => (
        <figure key={field}>
          <figcaption>
            {field}, from version {difference.before} to {difference.after}
          </figcaption>
          <pre tabIndex={0}>
            {hunks.flatMap((hunk, index) => [
              index > 0 && (
                <span class="gap" key={`gap-${index}`}>
                  {"⋯\n"}
                </span>
              ),
              ...hunk.lines.map((line, at) => {
                const kind = { "+": "added", "-": "removed" }[line[0] ?? ""] ?? "kept";
                const words = line.slice(1).replace(/\n?$/, "\n");
                return kind === "added" ? (
                  <ins key={`${index}-${at}`}>{words}</ins>
                ) : kind === "removed" ? (
                  <del key={`${index}-${at}`}>{words}</del>
                ) : (
                  <span key={`${index}-${at}`}>{words}</span>
                );
              }),
            ])}
          </pre>
        </figure>
      ))}
    </>
  );
}

/** The first version has none before it: it is shown as it is. */
function First({ id, version }: { id: number; version: number | null }) {
  const [text, setText] = useState<string | null>(null);
  useEffect(() => {
    setText(null);
    if (version === null) return;
    let alive = true;
    api.version(id, version).then((found) => alive && setText(found.content), complain);
    return () => {
      alive = false;
    };
  }, [id, version]);
  return text ? <pre tabIndex={0}>{text}</pre> : <p class="faint">No text</p>;
}
