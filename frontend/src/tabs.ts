/** The tabs of this browser: each has an identity that outlives a reload, and a lock that tells that it lives. */

import { scoped } from "./root";
import { unique } from "./unique";

const KEY = scoped("tab");
const TAB = scoped("tab:");
/** Locks are there in secure contexts only. */
const locks = (): LockManager | undefined => navigator.locks;

/** The identity of this tab. A copy of a tab, which has the identity of the original, gets another. */
export async function claim(): Promise<string> {
  const before = sessionStorage.getItem(KEY);
  let tab = unique();
  if (!locks()) tab = before ?? tab;
  else if (before && (await hold(before))) tab = before;
  else await hold(tab);
  sessionStorage.setItem(KEY, tab);
  return tab;
}

/** Holds the lock of a tab until the tab is gone, unless another one does. */
function hold(tab: string): Promise<boolean> {
  return new Promise((resolved) => {
    void locks()?.request(TAB + tab, { ifAvailable: true }, (lock) => {
      resolved(lock !== null);
      return lock ? new Promise<void>(() => {}) : undefined;
    });
  });
}

/** The tabs that live; null where that cannot be known. */
export async function living(): Promise<Set<string> | null> {
  const { held = [] } = (await locks()?.query()) ?? {};
  if (!locks()) return null;
  return new Set(held.flatMap(({ name }) => (name?.startsWith(TAB) ? [name.slice(TAB.length)] : [])));
}

/** Shares in something with the tabs that do, too, until the answer is called. */
export function share(name: string): () => void {
  let release = (): void => {};
  const released = new Promise<void>((done) => {
    release = done;
  });
  void locks()?.request(name, { mode: "shared" }, () => released);
  return release;
}

/** Does something once no tab shares in it any more; at once where that cannot be known. */
export async function whenLeft(name: string, work: () => Promise<void>): Promise<void> {
  await (locks()?.request(name, work) ?? work());
}

/** As `whenLeft`, but never where it cannot be known. */
export async function whenSurelyLeft(name: string, work: () => Promise<void>): Promise<void> {
  await locks()?.request(name, work);
}

/** Does what one tab at a time may do. */
export async function alone(work: () => Promise<void>): Promise<void> {
  await (locks()?.request(scoped("alone"), work) ?? work());
}
