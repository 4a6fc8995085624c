/** The open note, kept up to date. */

import { signal } from "@preact/signals";
import * as api from "./api";
import { pause } from "./backoff";
import { fieldsOf, same } from "./drafts";
import type { Frame } from "./feed";
import { outbox } from "./outbox";
import { route } from "./router";
import * as sharing from "./sharing";
import * as texts from "./texts";
import type { Note } from "./types";

export const note = signal<Note | null>(null);
/** Whether the server said that the note of the address is not there. */
export const missing = signal(false);
/** The version at which the open note was lost: what was read before that may be answered after it. */
let lost = 0;

/** The number of the note that the address names. */
export const current = (): number | null =>
  route.value.view === "note" || route.value.view === "history" ? route.value.id : null;

/** Reads the note of the address, if it is another one than before. */
export function open(id: number | null): void {
  if (id !== null && note.peek()?.id === id) return;
  note.value = null;
  missing.value = false;
  lost = 0;
  if (id !== null) void refresh(id);
}

/** Reads the open note again. */
export async function refresh(id: number): Promise<void> {
  try {
    const read = await api.read(id);
    if (current() === id) {
      if (read.version <= lost) return;
      missing.value = false;
    }
    texts.back(read);
    take(read);
  } catch (error) {
    if (current() !== id) return;
    if (error instanceof api.ApiError && !error.passing) missing.value = true;
    else setTimeout(() => current() === id && void refresh(id), pause(3));
  }
}

/** Takes a note that the server told of, if it is the open one and not older. */
export function take(read: Note): void {
  if (current() === read.id && shared(note.value, read)) void sharing.open(read.id);
  if (current() === read.id && (note.value?.id !== read.id || note.value.version <= read.version)) {
    note.value = read;
    texts.take(read);
  }
  outbox.changedElsewhere(read);
}

/** Whether a version may be one of sharing; it changes nothing else. Who may only read knows no other time to ask. */
function shared(before: Note | null, now: Note): boolean {
  if (before?.id !== now.id || before.version >= now.version) return false;
  return !sharing.mayWrite(now.id) || same(fieldsOf(before), fieldsOf(now));
}

/** What an event means for the open note; it may know less than the list. */
export function hear(frame: Extract<Frame, { id: number; version: number }>): void {
  if (current() !== frame.id || (note.value && frame.version <= note.value.version)) return;
  if (frame.type === "note.deleted") {
    missing.value = true;
    lost = frame.version;
  } else void refresh(frame.id);
}

/** Versions may begin anew: whatever the server tells next is newer. */
export function reset(): void {
  lost = 0;
  if (note.value) note.value = { ...note.value, version: 0 };
  const id = current();
  if (id !== null) void refresh(id);
}
