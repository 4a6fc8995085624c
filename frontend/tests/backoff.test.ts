import { describe, expect, it } from "vitest";
import { FIRST, LONGEST, pause } from "../src/backoff";

describe("pause", () => {
  it("is anywhere from nothing to a bound that doubles", () => {
    for (let failures = 0; failures < 5; failures++) {
      expect(pause(failures, () => 0)).toBe(0);
      expect(pause(failures, () => 1)).toBe(FIRST * 2 ** failures);
    }
  });

  it("never grows beyond the longest", () => {
    for (const failures of [6, 20, 1000, 1e9]) expect(pause(failures, () => 1)).toBe(LONGEST);
  });
});
