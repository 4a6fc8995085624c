/** Whether somebody has to sign in before there is anything to see. */

import { computed } from "@preact/signals";
import { asked, ended, stranger } from "./account";
import { missing } from "./opened";
import { route } from "./router";

export const outside = computed(() => {
  if (!stranger.value) return ended.value;
  const { view } = route.value;
  return asked.value || (view !== "note" && view !== "history") || missing.value;
});
