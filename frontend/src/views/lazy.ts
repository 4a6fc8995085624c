/** The views of accounts, which come only where there are accounts. */

import { signal } from "@preact/signals";
import { later } from "../later";

export const accountViews = signal<typeof import("./accounts") | null>(null);

export const loadAccountViews = (): Promise<void> =>
  later(
    () => import("./accounts"),
    (part) => {
      accountViews.value = part;
    },
    "A part of the page",
  );
