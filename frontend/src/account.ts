/**
 * Whom the page is for. Where there are accounts, what it keeps in the browser is kept apart by person, and nothing is
 * sent for one person with the session of another.
 */

import { computed, signal } from "@preact/signals";
import * as api from "./api";
import { pause } from "./backoff";
import { confirmPassword } from "./confirmation";
import { reachable } from "./connection";
import { guarded, signedOut } from "./http";
import { addressOf, scoped } from "./root";
import type { Me } from "./types";

export const me = signal<Me>({ mode: "open", sign_up: "closed", user: null, failed_sign_ins: null });
export const accounts = computed(() => me.value.mode === "accounts");
export const user = computed(() => me.value.user);
/** Nobody is signed in, where that makes a difference. */
export const stranger = computed(() => accounts.value && user.value === null);
/** The session ended while the page was open: nothing is sent until the same person is back. */
export const ended = signal(false);
/** A stranger wants to sign in. */
export const asked = signal(false);
/** The page is about to load anew, and asks nobody whether it may. */
export const leaving = signal(false);
/** The texts of who signed out are dropped from this browser: nothing more is to be kept. */
export const parted = signal(false);

/** Where all tabs of this browser see who was signed in last; names cannot look like the others. */
const KEY = scoped("account");
const NOBODY = "*";
const SIGNED_OUT = "";

/** What the names of all that is kept for somebody begin with. */
export const space = (): string => (accounts.peek() ? `${user.peek()?.name ?? NOBODY}/` : "");

/** Whether something is kept for whom the page is for, by its name. */
export const own = (name: string): boolean => name.slice(0, name.indexOf("/") + 1) === space();

const here = (): string => user.peek()?.name ?? NOBODY;

function take(now: Me): void {
  if (JSON.stringify(now) !== JSON.stringify(me.peek())) me.value = now;
  if (now.mode === "accounts") localStorage.setItem(KEY, here());
}

function renew(): void {
  leaving.value = true;
  location.reload();
}

/** Finds out whom the page is for: before that, nothing can be shown. */
export async function begin(): Promise<void> {
  for (let failures = 0; ; failures++) {
    try {
      take(await api.me());
      reachable.value = true;
      break;
    } catch {
      reachable.value = false;
      await new Promise((done) => setTimeout(done, pause(failures)));
    }
  }
  if (!accounts.value) return;
  guarded({ before, doubts, confirm: confirmPassword });
  addEventListener("storage", ({ key, newValue }) => {
    if (key !== KEY || newValue === null) return;
    if (newValue === SIGNED_OUT) parted.value = user.value !== null;
    if (newValue === SIGNED_OUT ? parted.value : newValue !== NOBODY && newValue !== here()) renew();
    else void check();
  });
}

let checking: Promise<void> | null = null;

/** Asks who is signed in by now. */
export function check(): Promise<void> {
  if (!accounts.peek()) return Promise.resolve();
  checking ??= api
    .me()
    .then(found, () => {}) // as long as the server cannot be asked, all stays as it is
    .finally(() => {
      checking = null;
    });
  return checking;
}

/** Goes on with whoever is signed in: in place, if it is the same person, else with a page of their own. */
export function found(now: Me): void {
  const name = now.user?.name ?? NOBODY;
  if (name === here()) {
    take(now);
    ended.value = false;
  } else if (name === NOBODY) {
    ended.value = true;
  } else {
    localStorage.setItem(KEY, name);
    renew();
  }
}

/** Has the server report the failed sign-ins no more. */
export async function acknowledge(): Promise<void> {
  await api.acknowledgeFailedSignIns();
  me.value = { ...me.peek(), failed_sign_ins: null };
}

const signsIn = (path: string): boolean => path === "/auth/me" || path.startsWith("/auth/sign-");

function before(path: string): void {
  if (signsIn(path)) return;
  if (localStorage.getItem(KEY) !== here()) void check();
  else if (!ended.peek()) return;
  throw signedOut();
}

/** What a session that ended asks for is asked by a stranger, who sees less. */
async function doubts(path: string, status: number): Promise<boolean> {
  if ((status !== 401 && status !== 404) || signsIn(path) || stranger.peek()) return false;
  await check();
  return ended.peek() || leaving.peek();
}

/** Ends the session by a request, and drops what is kept in the browser for its user. */
export async function leave(end: () => Promise<void>, forget: () => Promise<void>): Promise<void> {
  await end();
  parted.value = leaving.value = true;
  localStorage.setItem(KEY, SIGNED_OUT); // first: the other tabs let go of what they have open
  await forget();
  location.assign(addressOf("/"));
}
