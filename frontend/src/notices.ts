/** What the page says in passing. */

import { signal } from "@preact/signals";

export interface Notice {
  text: string;
  undo?: () => void;
}

export const notice = signal<Notice | null>(null);

export function say(text: string, undo?: () => void): void {
  notice.value = undo ? { text, undo } : { text };
}

export function complain(error: unknown): void {
  say(error instanceof Error ? error.message : String(error));
}
