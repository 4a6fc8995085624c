/** What one may do with the open note, and whose it is. */

import { signal } from "@preact/signals";
import { accounts, stranger } from "./account";
import * as api from "./api";
import { pause } from "./backoff";
import { outbox } from "./outbox";

export type Role = "viewer" | "editor" | "owner";

interface Known {
  id: number;
  access: api.Access;
}

const known = signal<Known | null>(null);

/** Who may do what with a note, as far as that was told. */
export const accessOf = (id: number): api.Access | null => (known.value?.id === id ? known.value.access : null);

/** What one is to a note: all to a new one, and null as long as that is not known. */
export function roleOf(id: number | null): Role | null {
  if (!accounts.value) return "owner";
  if (id === null) return stranger.value ? null : "owner";
  const access = accessOf(id);
  if (access) return access.role;
  return outbox.made.has(id) ? "owner" : null;
}

export const mayWrite = (id: number | null): boolean => (roleOf(id) ?? "viewer") !== "viewer";
export const owns = (id: number | null): boolean => roleOf(id) === "owner";

const versionOf = ({ etag }: api.Access): number => Number(etag.replace(/\D/g, ""));

export function told(id: number, access: api.Access): void {
  const before = known.value;
  if (before?.id !== id || versionOf(before.access) <= versionOf(access)) known.value = { id, access };
}

let wanted: number | null = null;

/** Asks what one may do with the note of the address. Of one that is gone, what was known last stays. */
export async function open(id: number | null): Promise<void> {
  wanted = id;
  if (!accounts.value || id === null) return;
  try {
    const access = await api.access(id);
    if (wanted === id) told(id, access);
  } catch (error) {
    if (error instanceof api.ApiError && error.passing && wanted === id)
      setTimeout(() => wanted === id && void open(id), pause(3));
  }
}
