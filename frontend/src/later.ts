/** Parts of the page that come after the list is there. */

import { pause } from "./backoff";
import { complain } from "./notices";

/** Loads a part, and tries again a few times. */
export async function later<T>(load: () => Promise<T>, take: (part: T) => void, what: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      take(await load());
      return;
    } catch (error) {
      if (attempt === 5) {
        complain(new Error(`${what} could not be loaded: reload the page`, { cause: error }));
        return;
      }
      await new Promise((done) => setTimeout(done, pause(attempt + 1)));
    }
  }
}
