/** What can be done from several places: the buttons, the keys. */

import * as api from "./api";
import { neighbours } from "./listing";
import { complain, say } from "./notices";
import { current } from "./opened";
import { outbox } from "./outbox";
import { go } from "./router";

export function step(by: 1 | -1): void {
  const { before, after } = neighbours(current());
  const to = by === 1 ? after : before;
  if (to) go({ view: "note", id: to.id });
}

export function compose(): void {
  go({ view: "new", key: outbox.compose().key });
}

export async function remove(id: number): Promise<void> {
  try {
    await outbox.flushed(id);
    await api.remove(id);
    const { after, before } = neighbours(id);
    const to = after ?? before;
    go(to && matchMedia("(min-width: 800px)").matches ? { view: "note", id: to.id } : { view: "home" });
    say("Moved to the trash", () => void api.undelete(id).then(() => go({ view: "note", id }), complain));
  } catch (error) {
    complain(error);
  }
}
