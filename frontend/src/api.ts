/** The REST interface, typed. Every failure is an `ApiError`; a server out of reach has status 0. */

import type {
  DifferenceOut,
  Merged,
  Note,
  NoteHead,
  NoteIn,
  NoteListed,
  NotePatch,
  Revision,
  RevisionText,
  TagCount,
  Trashed,
} from "./types";
import { unique } from "./unique";

export type Sort = "-updated" | "updated" | "title" | "-title" | "-created" | "created" | "id" | "-id";
export type Listed = NoteHead & Pick<NoteListed, "snippet">;

export interface Conflict {
  field: string;
  base: Part;
  current: Part;
  yours: Part;
  /** Where it is in the merged text, which holds the other side's words there. */
  merged: Part;
}

export interface Part {
  start: number;
  end: number;
  text: string;
}

export interface Refusal {
  detail?: unknown;
  note?: Note;
  conflicts?: Conflict[];
  merged?: Partial<Note>;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly body: Refusal,
  ) {
    super(told(body.detail) || (status === 0 ? "The server cannot be reached" : `The server answered ${status}`));
  }

  /** Whether the same request may succeed later. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

function told(detail: unknown): string {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return "";
  return detail.map((one: { loc: unknown[]; msg: string }) => `${one.loc.slice(1).join(".")}: ${one.msg}`).join("; ");
}

export interface Page<T> {
  items: T[];
  next: string | null;
  cursor: string | null;
}

const PATIENCE = 30_000;

interface Answer {
  headers: Headers;
  body: unknown;
}

/** An answer, read to its end: one that is cut off or takes too long counts as none. */
async function send(path: string, init: RequestInit = {}): Promise<Answer> {
  const late = AbortSignal.timeout(PATIENCE);
  const signal = init.signal ? AbortSignal.any([init.signal, late]) : late;
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(path, { ...init, signal });
    text = await answer.text();
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, {});
  }
  let body: unknown = null;
  try {
    body = text === "" ? null : JSON.parse(text);
  } catch {
    if (answer.ok) throw new ApiError(0, {});
  }
  if (answer.ok) return { headers: answer.headers, body };
  throw new ApiError(answer.status, (body ?? {}) as Refusal);
}

async function get<T>(path: string): Promise<T> {
  return (await send(path)).body as T;
}

async function page<T>(path: string, signal?: AbortSignal): Promise<Page<T>> {
  const { headers, body } = await send(path, signal ? { signal } : {});
  const next = /<([^>]*)>; rel="next"/.exec(headers.get("Link") ?? "")?.[1] ?? null;
  return { items: body as T[], next, cursor: headers.get("X-Cursor") };
}

async function write<T>(method: string, path: string, body?: unknown, key: string = unique()): Promise<T> {
  const headers: Record<string, string> = { "Idempotency-Key": key };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  return (await send(path, { method, headers, ...sent })).body as T;
}

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
export const tags = (): Promise<TagCount[]> => get("/tags/");
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

export async function bringIn(files: FileList): Promise<number> {
  const form = new FormData();
  for (const file of files) form.append("files", file);
  const { body } = await send("/import", { method: "POST", body: form, headers: { "Idempotency-Key": unique() } });
  return (body as { imported: number }).imported;
}
