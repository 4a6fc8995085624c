/** The three-way merge of texts, by lines, and by words where lines are in conflict, as the server does it. */

import { diff3Merge } from "node-diff3";
import type { Conflict, Part } from "./http";
import { splice } from "./splice";

/** The texts of both sides. Where they are in conflict, `text` has theirs. Of the ranges only `merged` has its place. */
export interface Merge {
  text: string;
  conflicts: Omit<Conflict, "field">[];
}

const lines = (text: string): string[] => text.match(/[^\n]*\n|[^\n]+/g) ?? [];
const words = (text: string): string[] => text.match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_]/gu) ?? [];
/** Longer conflicts are not compared by words: that takes quadratic time. */
const MAX_CONFLICT_LENGTH = 20_000;

const length = (text: string): number => [...text].length;
const part = (start: number, text: string): Part => ({ start, end: start + length(text), text });

/** Returns both changes of `base` in one text, and where they are in conflict. */
export function merge(base: string, mine: string, theirs: string): Merge {
  if (mine === base || mine === theirs) return { text: theirs, conflicts: [] };
  if (theirs === base) return { text: mine, conflicts: [] };
  const single = spliced(base, mine, theirs);
  if (single !== null) return { text: single, conflicts: [] };
  return merged(base, mine, theirs, lines);
}

/** Merges two changes of one place each; null if they touch, unless one goes on where the other ends. */
function spliced(base: string, mine: string, theirs: string): string | null {
  const [a, b] = [splice(base, mine), splice(base, theirs)];
  if (a.end < b.start) return base.slice(0, a.start) + a.text + base.slice(a.end, b.start) + b.text + base.slice(b.end);
  if (b.end < a.start) return base.slice(0, b.start) + b.text + base.slice(b.end, a.start) + a.text + base.slice(a.end);
  if (a.start !== b.start || a.end !== b.end || !a.text || !b.text) return null;
  // One side has received the beginning of what the other typed.
  if (a.text.startsWith(b.text)) return mine;
  return b.text.startsWith(a.text) ? theirs : null;
}

function merged(base: string, mine: string, theirs: string, units: (text: string) => string[]): Merge {
  const conflicts: Merge["conflicts"] = [];
  let [text, at] = ["", 0];
  const pieces = diff3Merge(units(mine), units(base), units(theirs), { excludeFalseConflicts: true });
  for (const piece of pieces) {
    if (piece.ok) {
      const ok = piece.ok.join("");
      text += ok;
      at += length(ok);
      continue;
    }
    const [a, o, b] = [piece.conflict?.a ?? [], piece.conflict?.o ?? [], piece.conflict?.b ?? []].map((side) =>
      side.join(""),
    ) as [string, string, string];
    const short = a.length + o.length + b.length <= MAX_CONFLICT_LENGTH;
    const finer = units === lines && short ? merged(o, a, b, words) : null;
    const whole = spliced(o, a, b) ?? (finer?.conflicts.length === 0 ? finer.text : null);
    if (whole === null) {
      conflicts.push({
        base: part(0, o),
        current: part(0, b),
        yours: part(0, a),
        merged: part(at, b),
      });
    }
    text += whole ?? b;
    at += length(whole ?? b);
  }
  return { text, conflicts };
}

/** Returns a merged text with one's own side of its conflicts. */
export function withMine({ text, conflicts }: Merge): string {
  const signs = [...text];
  for (const { merged, yours } of conflicts.toSorted((a, b) => b.merged.start - a.merged.start)) {
    signs.splice(merged.start, merged.end - merged.start, yours.text);
  }
  return signs.join("");
}

/**
 * Applies to a text what was changed from `ancestor` to `changed`.
 *
 * Without an ancestor, what was only added is added; else both texts are one conflict.
 */
export function transplant(ancestor: string | null, changed: string, target: string): Merge {
  if (changed === target) return { text: target, conflicts: [] };
  if (ancestor !== null) return merge(ancestor, changed, target);
  const { start, end } = splice(target, changed);
  if (start === end) return { text: changed, conflicts: [] };
  const [current, yours] = [part(0, target), part(0, changed)];
  return { text: target, conflicts: [{ base: current, current, yours, merged: current }] };
}
