import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Route } from "../src/router";

const ROUTES: [string, Route][] = [
  ["/", { view: "home" }],
  ["/n/12", { view: "note", id: 12 }],
  ["/n/12/history", { view: "history", id: 12 }],
  ["/new/new-0a_b", { view: "new", key: "new-0a_b" }],
  ["/deleted", { view: "trash" }],
  ["/account", { view: "account" }],
  ["/people", { view: "people" }],
  ["/invite", { view: "invite" }],
];

/** A browser's address and history, as much as the router knows of them. */
const browser = vi.hoisted(() => {
  const fake = {
    location: { pathname: "/n/7" },
    told: [] as string[],
    back: (): void => {},
    write: (how: string) => (_state: unknown, _title: string, to: string) => {
      fake.told.push(`${how} ${to}`);
      fake.location.pathname = to;
    },
  };
  vi.stubGlobal("location", fake.location);
  vi.stubGlobal("history", { pushState: fake.write("push"), replaceState: fake.write("replace") });
  vi.stubGlobal("addEventListener", (name: string, listener: () => void) => {
    if (name === "popstate") fake.back = listener;
  });
  return fake;
});

import { go, parse, path, route } from "../src/router";

describe("parse and path", () => {
  it.each(ROUTES)("are each other's way back: %s", (address, to) => {
    expect(parse(address)).toEqual(to);
    expect(path(to)).toBe(address);
  });

  it("take a slash at the end", () => {
    expect(parse("/n/12/")).toEqual({ view: "note", id: 12 });
    expect(parse("/n/12/history/")).toEqual({ view: "history", id: 12 });
    expect(parse("/deleted/")).toEqual({ view: "trash" });
  });

  it.each([
    "",
    "/n/",
    "/n/0",
    "/n/012",
    "/n/-1",
    "/n/1.5",
    "/n/1e3",
    "/n/x",
    "/n/12/other",
    "/x/n/12",
    "/new/",
    "/new/a/b",
    "/new/<b>",
    "/deleted/1",
    "/N/12",
  ])("lead home from elsewhere: %s", (address) => {
    expect(parse(address)).toEqual({ view: "home" });
  });

  it("take ids of at most sixteen digits", () => {
    expect(parse("/n/9007199254740991")).toEqual({ view: "note", id: Number.MAX_SAFE_INTEGER });
    expect(parse("/n/12345678901234567")).toEqual({ view: "home" });
  });
});

describe("the route", () => {
  it("begins where the page was opened", () => {
    expect(route.value).toEqual({ view: "note", id: 7 });
  });

  describe("goes", () => {
    beforeEach(() => {
      browser.location.pathname = "/";
      browser.told.length = 0;
    });

    it("to a new place", () => {
      go({ view: "history", id: 3 });
      expect(route.value).toEqual({ view: "history", id: 3 });
      expect(browser.told).toEqual(["push /n/3/history"]);
    });

    it("in place of the one before", () => {
      go({ view: "note", id: 3 }, true);
      expect(browser.told).toEqual(["replace /n/3"]);
    });

    it("nowhere twice", () => {
      go({ view: "trash" });
      go({ view: "trash" });
      expect(browser.told).toEqual(["push /deleted"]);
    });

    it("where the browser goes", () => {
      browser.location.pathname = "/n/5";
      browser.back();
      expect(route.value).toEqual({ view: "note", id: 5 });
      expect(browser.told).toEqual([]);
    });
  });
});
