/** Others changed the same words: both texts, and the question what to keep. */

import type { Draft } from "../drafts";
import * as sync from "../sync";

export function ConflictPanel({ draft }: { draft: Draft }) {
  if (!draft.conflict) return null;
  const { current, conflicts } = draft.conflict;
  const parts = conflicts.length
    ? conflicts.map((one) => ({ field: one.field, mine: one.yours.text, theirs: one.current.text }))
    : [{ field: "content", mine: draft.mine.content, theirs: current.content }];
  return (
    <section class="conflict" role="alertdialog" aria-label="Conflict">
      <h2>Others changed the same words while you wrote</h2>
      <p class="faint">
        Nothing is lost: choose what to keep. What you do not keep stays in the history, if it was saved.
      </p>
      {parts.map((part, index) => (
        <div class="sides" key={index}>
          <figure>
            <figcaption>Yours ({part.field})</figcaption>
            <pre tabIndex={0}>{part.mine}</pre>
          </figure>
          <figure>
            <figcaption>Theirs</figcaption>
            <pre tabIndex={0}>{part.theirs}</pre>
          </figure>
        </div>
      ))}
      <p class="choices">
        <button type="button" class="primary" onClick={() => sync.decide(draft.key, "mine")}>
          Keep mine
        </button>
        <button type="button" onClick={() => sync.decide(draft.key, "theirs")}>
          Take theirs
        </button>
        <button type="button" onClick={() => sync.decide(draft.key, "both")}>
          Keep both
        </button>
      </p>
    </section>
  );
}
