/** What the page says in passing. */

import { signal } from "@preact/signals";

export interface Notice {
  text: string;
  undo?: () => void;
  /** What the button says that does it. */
  label?: string;
}

export const notice = signal<Notice | null>(null);

export function say(text: string, undo?: () => void, label = "Undo"): void {
  notice.value = undo ? { text, undo, label } : { text };
}

export function complain(error: unknown): void {
  say(error instanceof Error ? error.message : String(error));
}
