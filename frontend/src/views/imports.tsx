/** Importing files, and the dialog that lists what was skipped or changed. */

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api";
import { complain, say } from "../notices";
import type { FileRemark } from "../types";

interface Result {
  heading: string;
  /** Why nothing was imported. */
  error?: string;
  skipped: FileRemark[];
  changed: FileRemark[];
}

/** Long lists are shown in parts. */
const SHOWN = 500;

const result = signal<Result | null>(null);

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Import files. The dialog opens if there is more to report than a number. */
export async function importFiles(files: FileList): Promise<void> {
  try {
    const { imported, skipped, changed } = await api.bringIn(files);
    const heading = `${counted(imported, "note")} imported`;
    if (skipped.length || changed.length) result.value = { heading, skipped, changed };
    else say(heading);
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 422)
      result.value = { heading: "Nothing was imported", error: error.message, skipped: [], changed: [] };
    else complain(error);
  }
}

export function ImportDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const now = result.value;
  useEffect(() => {
    if (now) dialog.current?.showModal();
    else dialog.current?.close();
  }, [now]);
  useEffect(
    () => () => {
      result.value = null; // at the latest when the user signs out
    },
    [],
  );
  return (
    <dialog
      ref={dialog}
      class="imports"
      aria-labelledby="imports-heading"
      onClose={() => {
        result.value = null;
      }}
    >
      <h2 id="imports-heading">{now?.heading}</h2>
      {now?.error && <p>{now.error}</p>}
      <Remarks heading="skipped" remarks={now?.skipped ?? []} />
      <Remarks heading="changed" remarks={now?.changed ?? []} />
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}

function Remarks({ heading, remarks }: { heading: string; remarks: FileRemark[] }) {
  const [limit, setLimit] = useState(SHOWN);
  useEffect(() => setLimit(SHOWN), [remarks]);
  if (!remarks.length) return null;
  return (
    <details open>
      <summary>
        {counted(remarks.length, "file")} {heading}
      </summary>
      {/* It can be focused, so that the keyboard scrolls it. */}
      <ul tabIndex={0} aria-label={`Files ${heading}`}>
        {remarks.slice(0, limit).map(({ file, reason }, index) => (
          <li key={index}>
            <b>{file}</b> {reason}
          </li>
        ))}
      </ul>
      {remarks.length > limit && (
        <button type="button" onClick={() => setLimit(limit + SHOWN)}>
          Show more of them
        </button>
      )}
    </details>
  );
}
