/** Others changed the same words: both texts, and the question what to keep. */

import type { Draft } from "../drafts";
import { outbox } from "../outbox";

export function ConflictPanel({ draft }: { draft: Draft }) {
  if (!draft.conflict) return null;
  const { conflicts } = draft.conflict;
  return (
    <section class="conflict" aria-label="Conflict">
      <div role="alert">
        <h2>Others changed the same words while you wrote</h2>
      </div>
      <p class="faint">Choose which of these to keep. All else that either of you wrote stays.</p>
      {conflicts.map((one, index) => (
        <div class="sides" key={index}>
          <figure>
            <figcaption>Yours ({one.field === "content" ? "text" : one.field})</figcaption>
            <pre tabIndex={0}>{one.yours.text}</pre>
          </figure>
          <figure>
            <figcaption>Theirs</figcaption>
            <pre tabIndex={0}>{one.current.text}</pre>
          </figure>
        </div>
      ))}
      <p class="choices">
        <button type="button" class="primary" onClick={() => outbox.decide(draft.key, "mine")}>
          Keep mine
        </button>
        <button type="button" onClick={() => outbox.decide(draft.key, "theirs")}>
          Take theirs
        </button>
      </p>
    </section>
  );
}
