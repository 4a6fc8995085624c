/** Who is looking at which note. */

import { signal } from "@preact/signals";
import { user } from "./account";
import type { Frame } from "./feed";

/** The names at each note, by the ids of the people there. */
const people = signal<ReadonlyMap<number, ReadonlyMap<string, string>>>(new Map());

/** The name of the account, else the one that a guest chose. */
export const me = (): string => user.value?.name ?? (localStorage.getItem("name") || "Guest");

/** The colours that the page has for people. */
export const HUES = 8;

export const hueOf = (name: string): number =>
  [...name].reduce((sum, sign) => (sum * 31 + (sign.codePointAt(0) ?? 0)) % 65_521, 7) % HUES;

/** The names of those who look at a note beside this page. */
export function others(id: number): string[] {
  const names = [...(people.value.get(id)?.values() ?? [])];
  const own = names.indexOf(me());
  return own < 0 ? names : names.toSpliced(own, 1);
}

const nameOf = (state: Record<string, unknown>): string => (typeof state.name === "string" ? state.name : "Somebody");

export function take(frame: Frame & { type: "presence" | "presence.changed" }): void {
  const here = new Map(people.value.get(frame.id));
  if (frame.type === "presence") {
    here.clear();
    for (const [person, state] of Object.entries(frame.people)) here.set(person, nameOf(state));
  } else if (frame.state) {
    here.set(frame.person, nameOf(frame.state));
  } else {
    here.delete(frame.person);
  }
  people.value = new Map(people.value).set(frame.id, here);
}

/** Forgets those at a note that is not there any more for this page. */
export function forget(id: number): void {
  const rest = new Map(people.peek());
  if (rest.delete(id)) people.value = rest;
}

/** Forgets all but those at one note: who looks at the others is not told any more. */
export function only(id: number | null): void {
  const here = id === null ? undefined : people.peek().get(id);
  people.value = here ? new Map([[id as number, here]]) : new Map();
}
