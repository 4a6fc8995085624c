/**
 * The secrets that an address has behind its `#`, which browsers send to nobody: a link to a note, an invite, the token
 * that makes the first administrator.
 */

import { signal } from "@preact/signals";
import { accounts, asked, leaving } from "./account";
import * as api from "./api";
import { complain } from "./notices";
import { pathOf } from "./root";
import { go } from "./router";

/** The invite that the address brought. */
export const invite = signal("");
/** The token that the address brought, with which the first administrator signs up. */
export const setup = signal("");
/** The address brought a link that opens nothing any more. */
export const dead = signal(false);

/** Takes the secret out of the address bar, and thereby out of the history; answers with that of a link. */
export function take(): string | null {
  const { hash, pathname, search } = location;
  const link = /^#link=([\w-]+)$/.exec(hash)?.[1] ?? null;
  const token = /^#setup=([\w-]+)$/.exec(hash)?.[1];
  if (token) {
    setup.value = token;
    asked.value = true;
  } else if (pathOf(pathname).startsWith("/invite") && hash) invite.value = decodeURIComponent(hash.slice(1));
  else if (link === null) return null;
  history.replaceState(history.state, "", pathname + search);
  return link;
}

/** Opens a link, and goes to its note. */
export async function follow(token: string): Promise<void> {
  if (!accounts.value) return;
  try {
    go({ view: "note", id: (await api.openLink(token)).id }, true);
    dead.value = false;
  } catch (error) {
    if (error instanceof api.ApiError && !error.passing) dead.value = true;
    else complain(error);
  }
}

/** Follows links that are put into the address bar of an open page: what is connected does not know of them. */
export function watch(): void {
  addEventListener("hashchange", () => {
    const link = take();
    if (link === null) return;
    void follow(link).then(() => {
      if (dead.value) return;
      leaving.value = true;
      location.reload();
    });
  });
}
