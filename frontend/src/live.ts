/** Wires the parts: what the feed tells goes to the list, the open note, the people and the trash. */

import { effect, signal, untracked } from "@preact/signals";
import * as account from "./account";
import { reachable, refused } from "./connection";
import { Feed, type Frame } from "./feed";
import * as fragment from "./fragment";
import * as listing from "./listing";
import * as opened from "./opened";
import * as drafting from "./outbox";
import { outbox } from "./outbox";
import * as people from "./people";
import { go, path, type Route, route } from "./router";
import * as sharing from "./sharing";
import * as texts from "./texts";

/** Counts the events of notes, so that the view of the trash knows when to look again. */
export const news = signal(0);

/** Milliseconds until every worker knows of a change of rights. */
const ROLE_DELAY = 1_000;

function frame(frame: Frame): void {
  if (frame.type === "presence" || frame.type === "presence.changed") {
    people.take(frame);
  } else if (frame.type === "note.created" || frame.type === "note.updated" || frame.type === "note.deleted") {
    if (frame.type === "note.deleted") people.forget(frame.id);
    opened.hear(frame);
    if (listing.hear(frame)) news.value++;
  }
}

/** Resolves when there is something to show; `late` is called if the server keeps the page waiting for that. */
export async function start(late: () => void): Promise<void> {
  const link = fragment.take();
  const waiting = setTimeout(late, 1_000);
  const begun = account.begin();
  if (link !== null) await begun.then(() => fragment.follow(link));
  let ready = (): void => {};
  const shown = new Promise<void>((done) => {
    ready = done;
  });
  listing.start(async (page) => {
    await shown;
    if (page.cursor) feed.start(page.cursor);
    // An event that the list overtook was for the open note, too.
    const open = page.items.find((one) => one.id === opened.note.value?.id);
    if (open && opened.note.value && open.version > opened.note.value.version) void opened.refresh(open.id);
  });
  await begun;
  clearTimeout(waiting);
  fragment.watch();
  const feed = new Feed({
    greeting: () => (account.stranger.value ? { type: "auth" } : null),
    frame,
    reset: () => {
      listing.reset();
      opened.reset();
      setTimeout(() => void account.check(), ROLE_DELAY); // one's role may have changed
    },
    link: (state) => {
      if (state === "live") {
        reachable.value = true;
        outbox.hurry();
        texts.renew();
      } else if (state === "offline") {
        reachable.value = false;
        people.only(null);
        void account.check(); // a session that ended cannot connect
      } else if (state === "ended") {
        void account.check().then(back);
      } else if (state === "refused") {
        refused.value = true;
      }
    },
  });
  let last = Number.NEGATIVE_INFINITY;
  const back = (): void => {
    if (account.ended.value) return;
    // The session is there, perhaps a new one; but what is refused twice is not tried on and on.
    refused.value = performance.now() - last < 60_000;
    last = performance.now();
    if (refused.value) return;
    texts.reconnect();
    feed.resume();
  };
  addEventListener("online", () => {
    feed.renew();
    texts.renew(true);
  });
  addEventListener("offline", () => {
    reachable.value = false;
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    void account.check();
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
    told: (note) => {
      listing.learn(note);
      opened.take(note);
    },
    restored: texts.restored,
  });
  texts.start();
  addEventListener("beforeunload", (event) => {
    if (!account.leaving.value && (outbox.unsent || texts.unsaved.value)) event.preventDefault();
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
    void sharing.open(id);
    feed.look(id, { name: people.me() });
    people.only(id);
  });
  effect(() => {
    // What was not taken before may be, by what is known now.
    const id = opened.current();
    if (id !== null && sharing.accessOf(id) && sharing.mayWrite(id)) untracked(() => texts.allowed(id));
  });
  effect(() => {
    const id = opened.current();
    if (id !== null && texts.denied(id)) void sharing.open(id);
  });
  let admin = account.user.peek()?.admin;
  effect(() => {
    if (account.user.value?.admin === admin) return;
    admin = account.user.value?.admin;
    listing.reset(); // the notes without an owner came, or went
    opened.reset();
  });
  let away = false;
  effect(() => {
    if (account.ended.value === away) return;
    away = account.ended.value;
    if (away) {
      feed.stop();
      texts.pause();
      return;
    }
    refused.value = false;
    texts.reconnect();
    outbox.hurry();
    listing.reset();
    opened.reset();
    feed.resume();
  });
  ready();
}
