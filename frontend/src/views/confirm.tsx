/** The dialog that asks for the password again. */

import { useEffect, useRef, useState } from "preact/hooks";
import { user } from "../account";
import * as api from "../api";
import { pending } from "../confirmation";
import { Password } from "./password";

export function Confirm() {
  const done = pending.value;
  return done && <ConfirmDialog done={done} />;
}

function ConfirmDialog({ done }: { done: (confirmed: boolean) => void }) {
  const sheet = useRef<HTMLDialogElement>(null);
  const [password, setPassword] = useState("");
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    sheet.current?.showModal();
    sheet.current?.querySelector<HTMLElement>("[type=password]")?.focus(); // not the hidden name before it
  }, []);

  const confirm = async (): Promise<void> => {
    if (busy) return;
    setBusy(true);
    setError("");
    try {
      await api.confirmPassword(password);
      done(true);
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : String(failed));
      setBusy(false);
    }
  };

  return (
    <dialog ref={sheet} class="confirm" aria-labelledby="confirm" onClose={() => done(false)}>
      <h2 id="confirm">Confirm your password</h2>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void confirm();
        }}
      >
        <p>This action needs your password. You will not be asked again for 10 minutes.</p>
        <input
          class="hidden"
          name="username"
          autocomplete="username"
          value={user.value?.name}
          readOnly
          tabIndex={-1}
          aria-hidden="true"
        />
        <Password label="Your password" value={password} change={setPassword} />
        {error && (
          <p class="alert" role="alert">
            {error}
          </p>
        )}
        <div class="choices">
          <button type="submit" class="primary" disabled={busy || !password}>
            Confirm
          </button>
          <button type="button" onClick={() => sheet.current?.close()}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
