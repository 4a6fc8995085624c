/** The last letters of a shared text: the page may go before the browser's database has stored them. */

import { wrap } from "idb";
import { fromBase64, toBase64 } from "lib0/buffer";
import type { IndexeddbPersistence } from "y-indexeddb";
import * as Y from "yjs";
import { scoped } from "./root";

const LEFT = scoped("left:");
/** Bytes of what is left at most: all texts share a few MiB. */
const MOST = 2 * 1024 * 1024;

/** Whether some page left letters of a text. */
export const left = (name: string): boolean => localStorage.getItem(LEFT + name) !== null;

export const drop = (name: string): void => localStorage.removeItem(LEFT + name);

export class Letters {
  /** What the database has not been asked for yet. */
  #fresh: Uint8Array[] = [];
  /** What the database was asked for, and may have. */
  #asked: Uint8Array[] = [];
  /** What was noted last, here or by a page from which it was taken. */
  #noted: string | null = null;

  constructor(
    private readonly name: string,
    private readonly doc: Y.Doc,
    private readonly kept: IndexeddbPersistence,
  ) {
    doc.on("update", (update: Uint8Array, origin: unknown) => {
      if (origin === kept) return;
      this.#fresh.push(update);
      void this.#store();
    });
    void kept.whenSynced.then(() => this.#store());
  }

  /** Notes what the database may not have where that is done at once: the page may be about to go. */
  leave(): void {
    const last = [...this.#asked, ...this.#fresh];
    if (last.length === 0) return;
    const before = localStorage.getItem(LEFT + this.name);
    const all = Y.mergeUpdates(before === null ? last : [fromBase64(before), ...last]);
    if (all.length > MOST) return; // the database has all but the last letters
    try {
      const noted = toBase64(all);
      localStorage.setItem(LEFT + this.name, noted);
      this.#noted = noted;
    } catch (error) {
      console.warn("The last letters were not kept", error);
    }
  }

  /** Takes up what a page has left. */
  recall(): void {
    const found = localStorage.getItem(LEFT + this.name);
    if (found === null || found === this.#noted || this.doc.isDestroyed) return;
    this.#noted = found;
    Y.applyUpdate(this.doc, fromBase64(found));
    void this.#store();
  }

  /** All that is here is stored, or not wanted any more. */
  clear(): void {
    const { pendingStructs, pendingDs } = this.doc.store;
    if (pendingStructs || pendingDs) return; // what builds upon words that are not here is nowhere else
    this.#fresh = []; // what was asked for is waited for
    // Another page may have left more.
    if (localStorage.getItem(LEFT + this.name) === this.#noted) drop(this.name);
  }

  /** Waits until the database has what it was given: it does so in order. */
  async #store(): Promise<void> {
    const { db, synced } = this.kept;
    if (!db || !synced || this.#asked.length) return;
    try {
      while (this.#fresh.length) {
        this.#asked = this.#fresh;
        this.#fresh = [];
        await wrap(db).transaction("updates").store.getKey(0);
        this.#asked = [];
      }
    } catch {
      // The text was closed, or dropped by another tab.
      this.#fresh = [...this.#asked, ...this.#fresh];
      this.#asked = [];
      return;
    }
    this.clear();
  }
}
