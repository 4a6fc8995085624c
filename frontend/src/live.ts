/** Wires the parts: what the feed tells goes to the list, the open note, the people and the trash. */

import { effect, signal } from "@preact/signals";
import { reachable, refused } from "./connection";
import { Feed, type Frame } from "./feed";
import * as listing from "./listing";
import * as opened from "./opened";
import * as drafting from "./outbox";
import { outbox } from "./outbox";
import * as people from "./people";
import { go, path, type Route, route } from "./router";
import * as texts from "./texts";

/** Counts the events of notes, so that the view of the trash knows when to look again. */
export const news = signal(0);

function frame(frame: Frame): void {
  if (frame.type === "presence") {
    people.take(frame);
  } else if (frame.type === "note.created" || frame.type === "note.updated" || frame.type === "note.deleted") {
    opened.hear(frame);
    if (listing.hear(frame)) news.value++;
  }
}

export async function start(): Promise<void> {
  const feed = new Feed({
    frame,
    reset: () => {
      listing.reset();
      opened.reset();
    },
    link: (state) => {
      if (state === "live") {
        reachable.value = true;
        outbox.hurry();
        texts.renew();
      } else if (state === "offline") {
        reachable.value = false;
        people.only(null);
      } else if (state === "refused") {
        refused.value = true;
      }
    },
  });
  addEventListener("online", () => {
    feed.renew();
    texts.renew(true);
  });
  addEventListener("offline", () => {
    reachable.value = false;
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    feed.hurry();
    texts.renew();
  });
  // Before anything can be typed: what was typed last time comes first.
  await drafting.start({
    made: (key, born) => {
      const at = route.value;
      if (at.view !== "new" || at.key !== key) return;
      opened.note.value = born; // first, so that what shows the draft goes on without a gap
      go({ view: "note", id: born.id }, true);
    },
    told: opened.take,
  });
  texts.start();
  addEventListener("beforeunload", (event) => {
    if (outbox.unsent || texts.unsaved.value) event.preventDefault();
  });
  let before: Route = route.peek();
  effect(() => {
    const here = route.value;
    if (before.view === "new" && path(before) !== path(here)) outbox.dropBlank(before.key);
    before = here;
  });
  effect(() => {
    const id = opened.current();
    opened.open(id);
    feed.look(id, { name: people.me() });
    people.only(id);
  });
  listing.start((page) => {
    if (page.cursor) feed.start(page.cursor);
    // An event that the list overtook was for the open note, too.
    const open = page.items.find((one) => one.id === opened.note.value?.id);
    if (open && opened.note.value && open.version > opened.note.value.version) void opened.refresh(open.id);
  });
}
