/** What can be done from several places: the buttons, the keys. */

import * as account from "./account";
import * as api from "./api";
import { BLANK, type Fields, waiting } from "./drafts";
import { neighbours } from "./listing";
import { complain, say } from "./notices";
import { current } from "./opened";
import { outbox, shelf } from "./outbox";
import { go } from "./router";
import * as texts from "./texts";

export function step(by: 1 | -1): void {
  const { before, after } = neighbours(current());
  const to = by === 1 ? after : before;
  if (to) go({ view: "note", id: to.id });
}

export function compose(): void {
  if (account.stranger.value) account.asked.value = true;
  else go({ view: "new", key: outbox.compose().key });
}

/** Milliseconds after a deletion in which a click on Delete was meant for the note before. */
const SECOND_CLICK = 1_000;
let removing = false;

export async function remove(id: number): Promise<void> {
  if (removing) return;
  removing = true;
  try {
    await outbox.flushed(id);
    await texts.saved(id);
    await api.remove(id);
    const { after, before } = neighbours(id);
    const to = after ?? before;
    go(to && matchMedia("(min-width: 800px)").matches ? { view: "note", id: to.id } : { view: "home" });
    say("Moved to the trash", () => void api.undelete(id).then(() => go({ view: "note", id }), complain));
    // The next note has its button in the same place.
    await new Promise((done) => setTimeout(done, SECOND_CLICK));
  } catch (error) {
    complain(error);
  } finally {
    removing = false;
  }
}

/** Makes a new note of what was typed into one that is gone. */
export function rescue(id: number, fields: Fields): void {
  const { key } = outbox.compose({ ...BLANK, ...fields });
  forgetWords(id);
  go({ view: "new", key });
}

/** Drops what was typed into a note and is not on the server. */
export function forgetWords(id: number): void {
  const draft = outbox.of(id);
  if (draft) outbox.discard(draft.key);
  void texts.discard(id);
}

/** Signs out, and leaves nothing in the browser; words that are on no server only after a question. */
export async function signOut(): Promise<void> {
  await shelf.stored();
  const unsent = texts.waiting() || outbox.unsent > 0 || (await shelf.all()).some(waiting);
  if (unsent && !confirm("Some of your words are not on the server yet. Sign out, and discard them?")) return;
  try {
    await account.leave(api.signOut, forgetAll);
  } catch (error) {
    complain(error);
  }
}

/** Deletes the account of the signed-in user, and leaves nothing in the browser. */
export const deleteOwnAccount = (to: string): Promise<void> =>
  account.leave(() => api.deleteAccount(null, to), forgetAll);

async function forgetAll(): Promise<void> {
  await texts.dropAll();
  await shelf.clear();
}
