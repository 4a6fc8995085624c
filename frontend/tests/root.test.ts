import { describe, expect, it } from "vitest";
import { linked, pathOf } from "../src/root";

describe("pathOf", () => {
  it.each([
    ["/team/n/5", "/n/5"],
    ["/team/", "/"],
    ["/team", "/"],
    ["/teams/n/5", "/teams/n/5"],
    ["/n/5", "/n/5"],
  ])("takes the prefix off once: %s", (address, path) => {
    expect(pathOf(address, "/team")).toBe(path);
  });

  it("changes nothing without a prefix", () => {
    expect(pathOf("/n/5", "")).toBe("/n/5");
    expect(pathOf("/", "")).toBe("/");
  });
});

describe("linked", () => {
  const from = "https://host.test/notes/notes/?limit=100";
  it.each([
    ["/notes/notes/?after=x&tag=a%2Fb", "/notes/?after=x&tag=a%2Fb"],
    ["https://host.test/notes/notes/?after=x", "/notes/?after=x"],
    ["?after=x", "/notes/?after=x"],
    ["../notes/?after=x", "/notes/?after=x"],
  ])("takes a link that has the prefix or is relative: %s", (link, path) => {
    expect(linked(link, from, "/notes")).toBe(path);
  });
});
