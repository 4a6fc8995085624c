/** The REST interface, typed. */

import { ApiError, type Conflict, get, type Page, type Part, page, type Refusal, send, write } from "./http";
import type {
  AccessIn,
  AccessOut,
  DifferenceOut,
  Entry,
  Imported,
  Invite,
  InviteListed,
  Me,
  Merged,
  NewToken,
  Note,
  NoteHead,
  NoteIn,
  NoteListed,
  NotePatch,
  PasswordChange,
  Revision,
  RevisionText,
  SignIn,
  SignUpIn,
  TagCount,
  Token,
  Trashed,
  UserListed,
} from "./types";
import { unique } from "./unique";

export { ApiError, type Conflict, type Page, type Part, type Refusal };

export type Sort = "-updated" | "updated" | "title" | "-title" | "-created" | "created" | "id" | "-id";
export type Listed = NoteHead & Pick<NoteListed, "snippet">;

export interface Filter {
  q: string;
  tags: string[];
  sort: Sort;
}

export function listPath(filter: Filter, limit = 100): string {
  const query = new URLSearchParams({ content: "false", limit: String(limit) });
  const q = filter.q.trim();
  if (q) query.set("q", q);
  else query.set("sort", filter.sort);
  for (const tag of filter.tags) query.append("tag", tag);
  return `/notes/?${query}`;
}

export const list = (path: string, signal?: AbortSignal): Promise<Page<Listed>> => page(path, signal);
/** Never from the browser's cache: another note that has the id anew may have the same version. */
export const read = async (id: number): Promise<Note> =>
  (await send(`/notes/${id}/`, { cache: "no-store" })).body as Note;
export const create = (note: NoteIn, key: string): Promise<Note> => write("POST", "/notes/", note, key);
export const patch = (id: number, base: number, fields: Partial<NotePatch>, key: string): Promise<Merged> =>
  write("PATCH", `/notes/${id}/?base_version=${base}`, fields, key);
export const remove = (id: number): Promise<Note> => write("DELETE", `/notes/${id}/`);

export interface Tags {
  etag: string | null;
  tags: TagCount[];
}

/**
 * Returns the tags, or null if they are still those of `etag`.
 *
 * The condition is sent by the page: with accounts every answer is `no-store`, so the browser has none to revalidate.
 */
export async function tags(etag: string | null): Promise<Tags | null> {
  try {
    const { headers, body } = await send("/tags/", {
      cache: "no-store",
      headers: etag ? { "If-None-Match": etag } : {},
    });
    return { etag: headers.get("ETag"), tags: body as TagCount[] };
  } catch (error) {
    if (error instanceof ApiError && error.status === 304) return null;
    throw error;
  }
}

export const history = (id: number, path?: string): Promise<Page<Revision>> =>
  page(path ?? `/notes/${id}/history/?limit=50`);
export const version = (id: number, at: number): Promise<RevisionText> => get(`/notes/${id}/history/${at}/`);
export const restore = (id: number, to: number): Promise<Note> =>
  write("POST", `/notes/${id}/restore`, { version: to });
/** The newest of the trash, at least so many. */
export const trash = (many = 0): Promise<Page<Trashed>> => page(`/trash/?limit=${Math.min(1000, Math.max(100, many))}`);
export const trashAfter = (path: string): Promise<Page<Trashed>> => page(path);
export const undelete = (id: number): Promise<Note> => write("POST", `/trash/${id}/restore`);
export const purge = (id: number): Promise<void> => write("DELETE", `/trash/${id}/`);

export async function difference(id: number, before: number, after: number): Promise<DifferenceOut> {
  const path = `/notes/${id}/history/${before}..${after}/diff`;
  return (await send(path, { headers: { Accept: "application/json" } })).body as DifferenceOut;
}

/** Many files take their time to be sent and stored. */
const IMPORT_PATIENCE = 15 * 60_000;

export async function bringIn(files: FileList): Promise<Imported> {
  const form = new FormData();
  for (const file of files) form.append("files", file);
  const headers = { "Idempotency-Key": unique() };
  return (await send("/import", { method: "POST", body: form, headers }, IMPORT_PATIENCE)).body as Imported;
}

/** While somebody guesses passwords, an unknown browser waits for its turn. */
const SIGN_IN_PATIENCE = 90_000;

/** Sends a password. */
async function prove<T>(path: string, body: unknown): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  return (await send(path, { method: "POST", headers, body: JSON.stringify(body) }, SIGN_IN_PATIENCE)).body as T;
}

export const me = (): Promise<Me> => get("/auth/me");
export const signIn = (name: string, password: string): Promise<Me> => prove("/auth/sign-in", { name, password });
export const signUp = (account: SignUpIn): Promise<Me> => prove("/auth/sign-up", account);
export const acknowledgeFailedSignIns = (): Promise<void> => write("DELETE", "/auth/failed-sign-ins");
export const signOut = (): Promise<void> => write("POST", "/auth/sign-out");
export const confirmPassword = (password: string): Promise<void> => prove("/auth/confirm", { password });
export const changePassword = (change: PasswordChange): Promise<void> => prove("/auth/password", change);
export const sessions = (): Promise<SignIn[]> => get("/auth/sessions");
export const endSession = (id: string): Promise<void> => write("DELETE", `/auth/sessions/${id}`);
export const endOtherSessions = (): Promise<void> => write("DELETE", "/auth/sessions");
export const tokens = (): Promise<Token[]> => get("/auth/tokens");
export const makeToken = (name: string, scope: Token["scope"], days: number): Promise<NewToken> =>
  write("POST", "/auth/tokens", { name, scope, expires_days: days });
export const endToken = (id: string): Promise<void> => write("DELETE", `/auth/tokens/${id}`);
export const users = (): Promise<UserListed[]> => get("/users");
export const setDisabled = (name: string, disabled: boolean): Promise<UserListed> =>
  write("POST", `/users/${name}/${disabled ? "disable" : "enable"}`);
export const setAdmin = (name: string, admin: boolean): Promise<UserListed> =>
  write("POST", `/users/${name}/${admin ? "promote" : "demote"}`);

/** Deletes an account: one's own without a name. Without `to` nobody in particular gets the notes. */
export const deleteAccount = (name: string | null, to: string): Promise<void> =>
  write(
    "DELETE",
    `${name === null ? "/auth/account" : `/users/${name}`}?${new URLSearchParams(to && { transfer_to: to })}`,
  );
export const invites = (): Promise<InviteListed[]> => get("/invites");
export const revokeInvite = (id: string): Promise<void> => write("DELETE", `/invites/${id}`);
export const invite = (): Promise<Invite> => write("POST", "/invites");
export const audit = (who: string): Promise<Page<Entry>> =>
  page(`/audit?${new URLSearchParams({ limit: "50", ...(who && { who }) })}`);
export const auditAfter = (path: string): Promise<Page<Entry>> => page(path);
/** The note that a link opens, from now on, for this browser. */
export const openLink = (token: string): Promise<{ id: number }> => write("POST", "/auth/links", { token });

/** Who may do what with a note, as of a version of it. */
export interface Access extends AccessOut {
  etag: string;
}

export async function access(id: number): Promise<Access> {
  const { headers, body } = await send(`/notes/${id}/access`, { cache: "no-store" });
  return { ...(body as AccessOut), etag: headers.get("ETag") ?? "" };
}

export async function share(id: number, wanted: AccessIn, etag: string): Promise<Access> {
  const headers = { "Content-Type": "application/json", "If-Match": etag };
  const answer = await send(`/notes/${id}/access`, { method: "PUT", headers, body: JSON.stringify(wanted) });
  return { ...(answer.body as AccessOut), etag: answer.headers.get("ETag") ?? "" };
}
