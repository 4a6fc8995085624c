/** Deep links: `/`, `/n/12`, `/n/12/history`, `/new/<draft>`, `/deleted`, `/account`, `/people`, `/invite`. */

import { signal } from "@preact/signals";
import { addressOf, pathOf } from "./root";

export type Route =
  | { view: "home" }
  | { view: "note"; id: number }
  | { view: "history"; id: number }
  | { view: "new"; key: string }
  | { view: "trash" }
  | { view: "account" }
  | { view: "people" }
  | { view: "invite" };

const OTHERS: Record<string, "trash" | "account" | "people" | "invite"> = {
  "/deleted": "trash",
  "/account": "account",
  "/people": "people",
  "/invite": "invite",
};

export function parse(path: string): Route {
  const note = /^\/n\/([1-9]\d{0,15})(\/history)?\/?$/.exec(path);
  const id = Number(note?.[1]);
  if (note && Number.isSafeInteger(id)) return { view: note[2] ? "history" : "note", id };
  const fresh = /^\/new\/([\w-]+)$/.exec(path);
  if (fresh) return { view: "new", key: fresh[1] as string };
  const other = OTHERS[path.replace(/\/$/, "")];
  return { view: other ?? "home" };
}

/** Returns the path of a view, without the prefix of the server. */
export function path(route: Route): string {
  switch (route.view) {
    case "home":
      return "/";
    case "trash":
      return "/deleted";
    case "new":
      return `/new/${route.key}`;
    case "note":
      return `/n/${route.id}`;
    case "history":
      return `/n/${route.id}/history`;
    default:
      return `/${route.view}`;
  }
}

export const route = signal<Route>(parse(pathOf(location.pathname)));

export function go(to: Route, replace = false): void {
  const target = addressOf(path(to));
  if (target !== location.pathname) history[replace ? "replaceState" : "pushState"](null, "", target);
  route.value = to;
}

addEventListener("popstate", () => {
  route.value = parse(pathOf(location.pathname));
});
