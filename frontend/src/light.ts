/** The sync light: one word for whether what was typed is on the server. */

import { computed } from "@preact/signals";
import { ended } from "./account";
import { reachable, refused, slowed } from "./connection";
import { waiting } from "./drafts";
import { outbox } from "./outbox";
import * as texts from "./texts";

export type Light =
  | { state: "saved" }
  | { state: "saving"; slowed: boolean }
  | { state: "ended"; waiting: number }
  | { state: "offline"; waiting: number }
  | { state: "conflict"; key: string }
  | { state: "unsaved"; reason: string; key: string; id?: number }
  | { state: "refused" };

export const light = computed<Light>(() => {
  const conflict = outbox.all.find((draft) => draft.conflict);
  if (conflict) return { state: "conflict", key: conflict.key };
  const open = outbox.all.filter(waiting);
  const many = open.length + texts.unsaved.value;
  if (ended.value) return { state: "ended", waiting: many };
  if (many && !reachable.value) return { state: "offline", waiting: many };
  const stuck = open.find((draft) => draft.error);
  if (stuck?.error) return { state: "unsaved", reason: stuck.error, key: stuck.key };
  const id = texts.refused.value;
  if (id !== undefined) return { state: "unsaved", reason: "The server does not take this text", key: "", id };
  if (many) return { state: "saving", slowed: slowed.value };
  if (refused.value) return { state: "refused" };
  return reachable.value ? { state: "saved" } : { state: "offline", waiting: 0 };
});
