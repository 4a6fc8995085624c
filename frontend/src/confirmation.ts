/** Confirmation of the password, which the server requires before some actions. */

import { signal } from "@preact/signals";

/** Ends the open request for a confirmation; null if there is none. */
export const pending = signal<((confirmed: boolean) => void) | null>(null);

let asking: Promise<boolean> | null = null;

/** Asks the user for the password, and returns whether the server accepted it. Requests at the same time share a dialog. */
export function confirmPassword(): Promise<boolean> {
  asking ??= new Promise<boolean>((done) => {
    pending.value = done;
  }).finally(() => {
    pending.value = null;
    asking = null;
  });
  return asking;
}
