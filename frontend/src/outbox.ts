/** What was typed and is not on the server yet: kept, sent, sent again as the same request, and never dropped unasked. */

import { type Signal, signal } from "@preact/signals";
import * as api from "./api";
import { pause } from "./backoff";
import { reachable, slowed } from "./connection";
import {
  absorb,
  BLANK,
  begin,
  type Choice,
  conflicted,
  type Draft,
  edit,
  type Fields,
  fieldsOf,
  follow,
  moved,
  resolve,
  same,
  saved,
  waiting,
} from "./drafts";
import { ORPHANED, Shelf } from "./shelf";
import * as tabs from "./tabs";
import type { Note } from "./types";
import { unique } from "./unique";

export const GONE = "This note was deleted";
/** Milliseconds without a key before what was typed is sent. */
export const QUIET = 700;
/** The same, where live editing waits for it. */
const SOON = 100;
/** Milliseconds after which it is sent although keys are still pressed. */
export const MAX_DELAY = 3_000;

export interface Server {
  create(fields: Fields, key: string): Promise<Note>;
  patch(id: number, base: number, fields: Partial<Fields>, key: string): Promise<Note>;
  remove(id: number): Promise<unknown>;
}

export type Keeper = Pick<Shelf, "put" | "drop" | "stored">;

export interface Listener {
  /** The draft of a new note became a note. */
  made(key: string, note: Note): void;
  /** The server told the state of a note. */
  told(note: Note): void;
  /** Called with the drafts of all tabs before any of them is sent again. */
  restored?(drafts: Draft[]): void;
}

export class Outbox {
  readonly drafts = signal<ReadonlyMap<string, Draft>>(new Map());
  /** Under which key a note was drafted before it had its id: what shows it goes on as if nothing had happened. */
  readonly made = new Map<number, string>();
  tab = unique();
  #listener: Listener = { made: () => {}, told: () => {} };
  readonly #busy = new Set<string>();
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #failures = new Map<string, number>();
  /** When the first word was typed that was not sent yet. */
  readonly #typed = new Map<string, number>();

  constructor(
    private readonly server: Server,
    private readonly keeper: Keeper,
    private readonly reachable: Signal<boolean>,
  ) {}

  start(tab: string, listener: Listener): void {
    this.tab = tab;
    this.#listener = listener;
  }

  get all(): Draft[] {
    return [...this.drafts.value.values()];
  }

  /** How many drafts hold words that are not on the server. */
  get unsent(): number {
    return this.all.filter(waiting).length;
  }

  of(id: number): Draft | undefined {
    return this.all.find((draft) => draft.id === id);
  }

  /** Takes a draft, for example one that another tab has left. */
  take(draft: Draft): void {
    // Of the same time it is the later state: the other may lack what was decided last.
    if (draft.touched >= (this.drafts.value.get(draft.key)?.touched ?? 0)) this.#put(draft);
  }

  #put(draft: Draft): void {
    this.drafts.value = new Map(this.drafts.value).set(draft.key, draft);
    this.keeper.put(draft);
  }

  /** Tells other tabs that this one lives. */
  touch(): void {
    for (const draft of this.all) this.#put({ ...draft, touched: Date.now() });
  }

  discard(key: string): void {
    const left = new Map(this.drafts.value);
    left.delete(key);
    this.drafts.value = left;
    clearTimeout(this.#timers.get(key));
    this.#failures.delete(key);
    this.#typed.delete(key);
    this.keeper.drop(key);
  }

  /** Forgets a new note into which nothing was typed. */
  dropBlank(key: string): void {
    const draft = this.drafts.value.get(key);
    if (draft && !draft.sending && same(draft.mine, BLANK)) this.discard(key);
  }

  /** A new note that exists only here so far; with words in it already, it is sent at once. */
  compose(fields: Fields = BLANK): Draft {
    const key = `new-${unique()}`;
    const draft: Draft = {
      ...{ key, tab: this.tab, id: null, base: null, created: null, mine: fields },
      ...{ sending: null, conflict: null, error: null, touched: Date.now() },
    };
    this.#put(draft);
    if (fields !== BLANK) this.#schedule(key, 0);
    return draft;
  }

  /** Takes what was typed into a note, or into a draft of a new one. `overRest` is for a text that is not shared now. */
  type(target: Note | Draft, fields: Partial<Fields>, overRest = false): void {
    const draft = "key" in target ? this.drafts.value.get(target.key) : (this.of(target.id) ?? this.#begun(target));
    if (!draft) return;
    this.#put(edit(overRest ? { ...draft, overRest } : draft, fields, Date.now()));
    this.#scheduleTyped(draft.key, QUIET);
  }

  /**
   * Moves the words of a shared text into the draft of its note, and resolves once that is stored.
   *
   * Returns false, and does nothing, while a request is on its way whose outcome is not known. The draft is not sent
   * before `absorbed` is called.
   */
  async absorb(note: Note, ancestor: string | null, words: string, copy: string): Promise<boolean> {
    const draft = this.of(note.id) ?? this.#begun(note);
    if (draft.sending) return false;
    const next = { ...absorb(draft, note, ancestor, words, Date.now()), absorbed: copy };
    if (this.of(note.id) || waiting(next) || next.conflict) this.#put(next);
    await this.keeper.stored();
    return true;
  }

  /** The local copy of a shared text whose words the draft has is superseded: they are sent from the draft. */
  absorbed(id: number): void {
    const draft = this.of(id);
    if (draft?.absorbed) this.#put({ ...draft, absorbed: null });
    this.soon(id);
  }

  /** Sends what was typed into a note, without waiting until the typing rests. */
  soon(id: number): void {
    const draft = this.of(id);
    if (draft && !draft.sending) this.#scheduleTyped(draft.key, SOON);
  }

  #scheduleTyped(key: string, after: number): void {
    const now = performance.now();
    const since = this.#typed.get(key) ?? now;
    this.#typed.set(key, since);
    this.#schedule(key, Math.max(0, Math.min(after, since + MAX_DELAY - now)));
  }

  #begun(note: Note): Draft {
    return {
      ...{ key: `${note.id}-${this.tab}`, tab: this.tab, id: note.id, mine: fieldsOf(note) },
      ...{ base: { ...fieldsOf(note), version: note.version }, created: note.created_date },
      ...{ sending: null, conflict: null, error: null, touched: 0 },
    };
  }

  decide(key: string, choice: Choice): void {
    const draft = this.drafts.value.get(key);
    if (!draft?.conflict) return;
    this.#put(resolve(draft, choice, Date.now()));
    this.#listener.told(draft.conflict.current);
    this.#schedule(key, 0);
  }

  /** What was typed into a new note while it was made is in its shared text now. */
  moved(key: string): void {
    const draft = this.drafts.value.get(key);
    if (!draft) return;
    this.#put(moved(draft));
    this.#schedule(key, 0);
  }

  /** Passes on a note that was read. */
  told(note: Note): void {
    this.#listener.told(note);
  }

  /** A note changed elsewhere: drafts without words of their own follow. */
  changedElsewhere(note: Note): void {
    const draft = this.of(note.id);
    if (!draft) return;
    const next = follow(draft, note);
    if (next.error === GONE) {
      this.#put({ ...next, error: null }); // it is back
      this.#schedule(draft.key, 0);
    } else if (next !== draft) {
      this.#put(next);
    }
  }

  /** Sends everything now. */
  hurry(): void {
    for (const key of this.drafts.value.keys()) this.#schedule(key, 0);
  }

  /** Sends what was typed into a note, and waits a little until that is done. */
  async flushed(id: number): Promise<void> {
    for (let waited = 0; waited < 20; waited++) {
      const draft = this.of(id);
      if (!draft || draft.conflict || draft.error || !this.reachable.value) return;
      clearTimeout(this.#timers.get(draft.key));
      await this.#flush(draft.key);
      if (this.of(id)) await new Promise((done) => setTimeout(done, 50));
    }
  }

  #schedule(key: string, after: number): void {
    clearTimeout(this.#timers.get(key));
    this.#timers.set(
      key,
      setTimeout(() => void this.#flush(key), after),
    );
  }

  async #flush(key: string): Promise<void> {
    const before = this.drafts.value.get(key);
    if (!before || this.#busy.has(key) || before.absorbed) return;
    const draft = begin(before, unique());
    if (draft !== before) this.#put(draft);
    this.#typed.delete(key);
    if (!draft.sending) {
      if (!waiting(draft) && !draft.conflict && draft.id !== null) this.discard(key);
      return;
    }
    this.#busy.add(key);
    try {
      await this.keeper.stored(); // the request's key first, so that a repeat after a crash is the same request
      const { fields, key: once } = draft.sending;
      const note =
        draft.id === null || draft.base === null
          ? await this.server.create(fields as Fields, once)
          : await this.server.patch(draft.id, draft.base.version, fields, once);
      this.reachable.value = true;
      slowed.value = false;
      this.#failures.delete(key);
      this.#settle(key, draft, note);
    } catch (error) {
      this.#failed(key, error);
    } finally {
      this.#busy.delete(key);
    }
  }

  #settle(key: string, sent: Draft, note: Note): void {
    const now = this.drafts.value.get(key);
    if (!now) {
      // Discarded while it was on its way: the note is not wanted either.
      if (sent.id === null) void this.server.remove(note.id).catch(() => {});
      return;
    }
    const next = saved(now, note);
    if (now.id === null) {
      this.made.set(note.id, key);
      this.#put(next);
      this.#listener.made(key, note);
    }
    this.#listener.told(note);
    if (waiting(next) || next.conflict) {
      this.#put(next);
      this.#schedule(key, QUIET);
    } else {
      this.discard(key);
    }
  }

  #failed(key: string, error: unknown): void {
    const now = this.drafts.value.get(key);
    if (!now) return;
    if (!(error instanceof api.ApiError)) throw error;
    const { note: current, conflicts = [], merged = {} } = error.body;
    if (error.passing) {
      if (error.status === 0) this.reachable.value = false;
      slowed.value = error.status === 429;
      const times = (this.#failures.get(key) ?? 0) + 1;
      this.#failures.set(key, times);
      this.#schedule(key, Math.max(250, error.after * 1000, pause(times)));
    } else if (error.status === 409 && current) {
      this.#put(conflicted(now, { current, conflicts, merged }));
    } else if (error.status === 404) {
      // Deleted meanwhile: what was typed becomes a note of its own, when the writer says so.
      this.#put({ ...now, sending: null, error: GONE });
    } else {
      const next = begin({ ...now, sending: null }, unique());
      this.#put({ ...now, sending: null, error: error.message });
      // What was typed since may be better.
      if (next.sending && !same(next.sending.fields, now.sending?.fields)) this.#schedule(key, QUIET);
    }
  }
}

export const shelf = new Shelf();
export const outbox = new Outbox(api, shelf, reachable);

/** Brings back what this tab and tabs that are gone have left, and sends it. */
export async function start(listener: Listener): Promise<void> {
  const tab = await tabs.claim();
  outbox.start(tab, listener);
  await shelf.open();
  // A page may have been closed before the local copy was superseded whose words a draft has.
  const take = (draft: Draft): void => {
    listener.restored?.([draft]);
    outbox.take({ ...draft, absorbed: null });
  };
  const adopt = (): Promise<void> =>
    tabs.alone(async () => {
      for (const draft of await shelf.adopt(tab, await tabs.living())) take(draft);
      outbox.hurry();
    });
  const recalled = await shelf.recall();
  listener.restored?.(await shelf.all());
  for (const draft of [...(await shelf.own(tab)), ...recalled]) if (draft.tab === tab) take(draft);
  await adopt();
  setInterval(() => void adopt(), ORPHANED / 2);
  if (!navigator.locks) setInterval(() => outbox.touch(), ORPHANED / 3);
  addEventListener("online", () => outbox.hurry());
  addEventListener("pagehide", () => shelf.leave(outbox.all.filter(waiting)));
}
