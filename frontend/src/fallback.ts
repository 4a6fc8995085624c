/** Decides when live editing of a text counts as not available, so that it is saved over REST. */

import type { State } from "./room";

/** Attempts in a row after which it does. */
export const ATTEMPTS = 3;
/** Milliseconds without it after which it does, while the server can be reached. */
export const PATIENCE = 10_000;

/**
 * Watches the connection of one text.
 *
 * Calls `due` after `ATTEMPTS` failures in a row, of which at least one came while the server could be reached, or
 * after `PATIENCE` in which it could be reached and the text was not live. Whoever is called makes sure that the server
 * answers over REST, and calls `again` if the text stays as it is.
 */
export class Watch {
  #before: State | null = null;
  #failures = 0;
  /** Failures while the server could be reached. */
  #reached = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly due: () => void,
    private readonly attempts: () => number = () => ATTEMPTS,
  ) {}

  /** Takes the state of the connection, and whether the server can be reached, after each change of either. */
  see(state: State, reachable: boolean): void {
    const failed = state === "offline" && this.#before !== "offline";
    this.#before = state;
    if (state !== "connecting" && state !== "offline") {
      this.stop();
      return;
    }
    if (failed) this.#failures++;
    if (!reachable) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
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
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#failures = this.#reached = 0;
  }

  #call(): void {
    this.stop();
    this.due();
  }
}
