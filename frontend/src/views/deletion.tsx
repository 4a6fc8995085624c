/** The dialog that deletes an account: one's own, or as an administrator that of somebody else. */

import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  /** Null for the account of the signed-in user. */
  name: string | null;
  remove: (transferTo: string) => Promise<void>;
  close: () => void;
}

export function DeletionDialog({ name, remove, close }: Props) {
  const sheet = useRef<HTMLDialogElement>(null);
  const [to, setTo] = useState("");
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => sheet.current?.showModal(), []);

  const submit = async (): Promise<void> => {
    if (busy) return;
    setBusy(true);
    setError("");
    try {
      await remove(to.trim().toLowerCase());
      sheet.current?.close();
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : String(failed));
      setBusy(false);
    }
  };

  return (
    <dialog ref={sheet} class="confirm" aria-labelledby="deletion" onClose={close}>
      <h2 id="deletion">{name === null ? "Delete your account" : `Delete the account ${name}`}</h2>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <p>
          This cannot be undone. All sessions and API tokens end, links to the notes stop working, and nobody can use
          the name again.
        </p>
        <label>
          Give all notes to (optional)
          <input
            placeholder="Name of a user"
            maxLength={32}
            autocomplete="off"
            autocapitalize="none"
            spellcheck={false}
            value={to}
            onInput={(event) => setTo(event.currentTarget.value)}
          />
        </label>
        <small>
          Without a name, shared and public notes stay available and belong to the administrators. All other notes go
          into the trash, where nobody can read them, and are deleted later.
        </small>
        {error && (
          <p class="alert" role="alert">
            {error}
          </p>
        )}
        <div class="choices">
          <button type="submit" class="danger" disabled={busy}>
            Delete the account
          </button>
          <button type="button" onClick={() => sheet.current?.close()}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
