/** Requests and their answers. Every failure is an `ApiError`; a server out of reach has status 0. */

import { addressOf, base, linked } from "./root";
import type { Note } from "./types";
import { unique } from "./unique";

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
  /** Names nobody goes by. */
  unknown?: string[];
  /** Set if the user has to do something else before the request is repeated. */
  required?: "password_confirmation";
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly body: Refusal,
    /** Seconds after which the server wants to be asked again. */
    readonly after = 0,
  ) {
    const words =
      told(body.detail) || (status === 0 ? "The server cannot be reached" : `The server answered ${status}`);
    super(status === 429 && after ? `Too many requests: try again in ${after} s` : words);
  }

  /** Whether the same request may succeed later, for example once somebody is signed in again. */
  get passing(): boolean {
    return this.status === 0 || this.status === 401 || this.status === 429 || this.status >= 500;
  }
}

/** What is not even sent, as the one whom this page is for is not signed in. */
export const signedOut = (): ApiError => new ApiError(401, { detail: "You are signed out" });

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

/** What watches over whom requests are sent for, and answered. */
export interface Guard {
  /** Throws if the one whom this page is for is not signed in. */
  before(path: string): void;
  /** Whether a refusal was not meant for the one whom this page is for, as they are not signed in any more. */
  doubts(path: string, status: number): Promise<boolean>;
  /** Asks the user to confirm the password, and returns whether they did. */
  confirm(): Promise<boolean>;
}

let guard: Guard = { before: () => {}, doubts: async () => false, confirm: async () => false };

export function guarded(by: Guard): void {
  guard = by;
}

export interface Answer {
  headers: Headers;
  body: unknown;
}

/** An answer, read to its end: one that is cut off or takes too long counts as none. */
export async function send(path: string, init: RequestInit = {}, patience = PATIENCE): Promise<Answer> {
  guard.before(path);
  const late = AbortSignal.timeout(patience);
  const signal = init.signal ? AbortSignal.any([init.signal, late]) : late;
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(addressOf(path), { ...init, signal });
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
  const refused = new ApiError(answer.status, (body ?? {}) as Refusal, Number(answer.headers.get("Retry-After")) || 0);
  if (refused.body.required === "password_confirmation") {
    if (await guard.confirm()) return send(path, init, patience);
    throw new ApiError(403, { detail: "Nothing was changed: the password was not confirmed" });
  }
  throw (await guard.doubts(path, answer.status)) ? signedOut() : refused;
}

export async function get<T>(path: string): Promise<T> {
  return (await send(path)).body as T;
}

export async function page<T>(path: string, signal?: AbortSignal): Promise<Page<T>> {
  const { headers, body } = await send(path, signal ? { signal } : {});
  const next = /<([^>]*)>; rel="next"/.exec(headers.get("Link") ?? "")?.[1];
  const from = base() + path;
  return { items: body as T[], next: next ? linked(next, from) : null, cursor: headers.get("X-Cursor") };
}

export async function write<T>(method: string, path: string, body?: unknown, key: string = unique()): Promise<T> {
  const headers: Record<string, string> = { "Idempotency-Key": key };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  return (await send(path, { method, headers, ...sent })).body as T;
}
