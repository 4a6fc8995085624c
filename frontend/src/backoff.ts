/** Pauses between attempts, with full jitter: those that were cut off together do not come back together. */

export const FIRST = 500;
export const LONGEST = 20_000;

/** Milliseconds to wait after so many failures in a row. */
export function pause(failures: number, random: () => number = Math.random): number {
  return random() * Math.min(LONGEST, FIRST * 2 ** Math.min(failures, 16));
}
