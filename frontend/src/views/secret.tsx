/** Something to be copied, for example a secret that is shown once. */

import { useRef } from "preact/hooks";
import { say } from "../notices";

export function Secret({ label, value }: { label: string; value: string }) {
  const field = useRef<HTMLInputElement>(null);
  const copy = async (): Promise<void> => {
    field.current?.select();
    try {
      await navigator.clipboard.writeText(value);
      say("Copied");
    } catch {
      say("Selected: copy it with Ctrl+C"); // the browser allows no more
    }
  };
  return (
    <span class="secret">
      <input ref={field} readOnly aria-label={label} value={value} onFocus={(event) => event.currentTarget.select()} />
      <button type="button" aria-label={`Copy: ${label}`} onClick={() => void copy()}>
        Copy
      </button>
    </span>
  );
}
