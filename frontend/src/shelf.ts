/** Keeps drafts in IndexedDB until they are on the server, and hands those of tabs that are gone to one that lives. */

import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import { parted, space } from "./account";
import type { Draft } from "./drafts";
import { scoped } from "./root";
import { unique } from "./unique";

interface Stored extends DBSchema {
  drafts: { key: string; value: Draft };
}

const leftBy = (): string => scoped(`${space()}left`);
const droppedBy = (): string => scoped(`${space()}dropped`);
/** Where it cannot be known which tabs live, those that say nothing for so many milliseconds do not. */
export const ORPHANED = 30_000;

export class Shelf {
  #database: IDBPDatabase<Stored> | null = null;
  /** The latest state of each draft that is not stored yet; null of those that go. */
  #waiting = new Map<string, Draft | null>();
  /** The keys of drafts that were dropped, but may still be in the database. */
  readonly #dropping = new Set<string>();
  #writing: Promise<void> | null = null;

  /** Without it nothing is kept, but all else works: some browsers forbid storage. */
  async open(): Promise<void> {
    try {
      this.#database = await openDB<Stored>(scoped(`${space()}notes`), 1, {
        upgrade: (opened) => {
          opened.createObjectStore("drafts", { keyPath: "key" });
        },
      });
    } catch (error) {
      console.warn("Drafts cannot be kept in this browser", error);
    }
  }

  put(draft: Draft): void {
    this.#write(draft.key, draft);
  }

  drop(key: string): void {
    this.#write(key, null);
  }

  /** Resolves when all that was put is stored, or cannot be. */
  async stored(): Promise<void> {
    await this.#writing;
  }

  #write(key: string, draft: Draft | null): void {
    if (!this.#database || parted.peek()) return;
    this.#waiting.set(key, draft);
    if (draft) this.#dropping.delete(key);
    else this.#dropping.add(key);
    this.#writing ??= this.#pump(this.#database).finally(() => {
      this.#writing = null;
    });
  }

  /** Of what changes faster than it can be stored, the latest state is. */
  async #pump(database: IDBPDatabase<Stored>): Promise<void> {
    while (this.#waiting.size) {
      const batch = this.#waiting;
      this.#waiting = new Map();
      try {
        const writing = database.transaction("drafts", "readwrite");
        for (const [key, draft] of batch) void (draft ? writing.store.put(draft) : writing.store.delete(key));
        await writing.done;
        for (const [key, draft] of batch) if (!draft && !this.#waiting.has(key)) this.#dropping.delete(key);
      } catch (error) {
        console.warn("A draft was not kept", error);
      }
    }
  }

  /** The drafts of all tabs of this browser. */
  async all(): Promise<Draft[]> {
    try {
      return (await this.#database?.getAll("drafts")) ?? [];
    } catch (error) {
      console.warn("Drafts cannot be read in this browser", error);
      return [];
    }
  }

  /** The drafts that a tab left when it was reloaded. */
  async own(tab: string): Promise<Draft[]> {
    return (await this.all()).filter((draft) => draft.tab === tab);
  }

  /** Drops the drafts of all tabs. */
  async clear(): Promise<void> {
    await this.#writing;
    await this.#database?.clear("drafts");
    sessionStorage.removeItem(leftBy());
    sessionStorage.removeItem(droppedBy());
  }

  /** Takes the drafts of tabs that are gone, each under a key of its own: its old tab may come back, and is not to meddle. */
  async adopt(tab: string, living: Set<string> | null): Promise<Draft[]> {
    if (!this.#database) return [];
    const taken: Draft[] = [];
    const taking = this.#database.transaction("drafts", "readwrite");
    for (const draft of await taking.store.getAll()) {
      const orphaned = living ? !living.has(draft.tab) : Date.now() - draft.touched > ORPHANED;
      if (draft.tab === tab || !orphaned) continue;
      const mine = { ...draft, tab, key: `${draft.id ?? "new"}-${unique()}` };
      await taking.store.delete(draft.key);
      await taking.store.put(mine);
      taken.push(mine);
    }
    await taking.done;
    return taken;
  }

  /** Notes what was typed and dropped last where that is done at once: the page may be gone before it is stored. */
  leave(drafts: Draft[]): void {
    if (parted.peek()) return;
    try {
      if (this.#dropping.size) sessionStorage.setItem(droppedBy(), JSON.stringify([...this.#dropping]));
      if (drafts.length) sessionStorage.setItem(leftBy(), JSON.stringify(drafts));
    } catch {
      // Too large for there: the database has all but the last letters.
    }
  }

  /** Returns the drafts that were noted when the page went, and drops those that it dropped. */
  async recall(): Promise<Draft[]> {
    for (const key of noted<string>(droppedBy())) this.drop(key);
    await this.stored();
    return noted<Draft>(leftBy());
  }
}

/** Takes a list out of the tab's storage. */
function noted<Item>(name: string): Item[] {
  const list = JSON.parse(sessionStorage.getItem(name) ?? "[]") as Item[];
  sessionStorage.removeItem(name);
  return list;
}
