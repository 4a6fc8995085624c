import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ATTEMPTS, PATIENCE, Watch } from "../src/fallback";
import { STABLE } from "../src/room";

let due: number;
let watch: Watch;

beforeEach(() => {
  vi.useFakeTimers();
  due = 0;
  watch = new Watch(() => due++);
});
afterEach(() => {
  vi.useRealTimers();
});

function fail(times: number, reachable = true): void {
  for (let time = 0; time < times; time++) {
    watch.see("connecting", reachable);
    watch.see("offline", reachable);
  }
}

describe("a watch", () => {
  it("is due after some attempts in a row", () => {
    fail(ATTEMPTS - 1);
    expect(due).toBe(0);
    fail(1);
    expect(due).toBe(1);
  });

  it("is due after a while without an answer", () => {
    watch.see("connecting", true);
    vi.advanceTimersByTime(PATIENCE - 1);
    expect(due).toBe(0);
    vi.advanceTimersByTime(1);
    expect(due).toBe(1);
  });

  it("is never due while the server cannot be reached, and then after one more attempt", () => {
    fail(20, false);
    vi.advanceTimersByTime(10 * PATIENCE);
    watch.see("offline", true);
    expect(due).toBe(0);
    fail(1);
    expect(due).toBe(1);
  });

  it("begins again with a connection that lasts", () => {
    fail(ATTEMPTS - 1);
    watch.see("live", true);
    vi.advanceTimersByTime(STABLE);
    fail(ATTEMPTS - 1);
    expect(due).toBe(0);
  });

  it("goes on with a connection that is cut soon", () => {
    for (let time = 0; time < ATTEMPTS; time++) {
      watch.see("connecting", true);
      watch.see("live", true);
      vi.advanceTimersByTime(STABLE - 1);
      watch.see("offline", true);
    }
    expect(due).toBe(1);
  });

  it.each(["gone", "refused", "paused"] as const)("is not due for a text that is %s", (state) => {
    fail(ATTEMPTS - 1);
    watch.see(state, true);
    vi.advanceTimersByTime(2 * PATIENCE);
    expect(due).toBe(0);
  });

  it("is due again later if nothing came of it", () => {
    fail(ATTEMPTS);
    watch.again();
    vi.advanceTimersByTime(PATIENCE);
    expect(due).toBe(2);
  });

  it("takes fewer attempts where told", () => {
    watch = new Watch(
      () => due++,
      () => 1,
    );
    fail(1);
    expect(due).toBe(1);
  });
});
