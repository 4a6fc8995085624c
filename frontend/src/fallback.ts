/** Decides when live editing of a text counts as not available, so that it is saved over REST. */

import { STABLE, type State } from "./room";

/** Attempts in a row after which it does. */
export const ATTEMPTS = 3;
/** Milliseconds without it after which it does, while the server can be reached. */
export const PATIENCE = 10_000;

/**
 * Watches the connection of one text.
 *
 * Calls `due` after `ATTEMPTS` failures in a row, of which at least one came while the server could be reached, or
 * after `PATIENCE` in which it could be reached and the text was not live. A connection that is cut within `STABLE` is a
 * failure in a row, too. Whoever is called makes sure that the server
 * answers over REST, and calls `again` if the text stays as it is.
 */
export class Watch {
  #before: State | null = null;
  #failures = 0;
  /** Failures while the server could be reached. */
  #reached = 0;
  #live: number | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly due: () => void,
    private readonly attempts: () => number = () => ATTEMPTS,
  ) {}

  /** Takes the state of the connection, and whether the server can be reached, after each change of either. */
  see(state: State, reachable: boolean): void {
    const failed = state === "offline" && this.#before !== "offline";
    this.#before = state;
    if (state === "live") {
      this.#live ??= performance.now();
      this.#clear();
      return;
    }
    if (this.#live !== null && performance.now() - this.#live >= STABLE) this.stop();
    this.#live = null;
    if (state !== "connecting" && state !== "offline") {
      this.stop();
      return;
    }
    if (failed) this.#failures++;
    if (!reachable) {
      this.#clear();
      this.#reached = 0;
      return;
    }
    if (failed) this.#reached++;
    if (this.#failures >= this.attempts() && this.#reached > 0) this.#call();
    else this.#timer ??= setTimeout(() => this.#call(), PATIENCE);
  }

  /** Waits again, as after the first attempt. */
  again(): void {
    this.stop();
    if (this.#before === "connecting" || this.#before === "offline") {
      this.#timer = setTimeout(() => this.#call(), PATIENCE);
    }
  }

  stop(): void {
    this.#clear();
    this.#failures = this.#reached = 0;
  }

  #clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #call(): void {
    this.stop();
    this.due();
  }
}
