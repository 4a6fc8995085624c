"""Differences between texts, and the three-way merge of two that grew out of one.

Differences come from diff-match-patch (Myers, "An O(ND) Difference Algorithm", 1986, with a time limit, past which a
difference is coarser but still right). The merge is diff3's (Khanna, Kunal, Pierce, "A Formal Investigation of Diff3",
2007): changes that neither overlap nor touch are both taken. It compares lines first, and words where lines are in
conflict, since a paragraph of a note is one line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from diff_match_patch import diff_match_patch

from realtime.errors import ContentTooLong, MergeConflict, WouldNotFit
from realtime.notes.headings import lines_of
from realtime.notes.models import MAX_CONTENT, MAX_TAGS

if TYPE_CHECKING:
    from realtime.notes.models import Note, RevisionText

TIME_LIMIT = 1.0
CONTEXT = 3
_WORDS = re.compile(r"\w+|\s|[^\w\s]")


class Block(NamedTuple):
    """Units ``start`` to ``end`` of the one text became ``new_start`` to ``new_end`` of the other."""

    start: int
    end: int
    new_start: int
    new_end: int


class Change(NamedTuple):
    """Replace the characters ``start`` to ``end`` (Unicode code points of the text before) with others."""

    start: int
    end: int
    text: str


class Part(NamedTuple):
    """A range of a text, in characters (Unicode code points), and what is there."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A range that both sides changed, each in its own way; ``merged`` is where it is in the merged text."""

    base: Part
    current: Part
    yours: Part
    merged: Part


def blocks(before: Sequence[str], after: Sequence[str], deadline: float) -> list[Block]:
    """Where two texts differ, in units: lines or words. Past the deadline, of :func:`time.time`, coarser."""
    codes: dict[str, str] = {}
    # The library compares characters, so each unit becomes one.
    one, two = ("".join(codes.setdefault(unit, chr(len(codes))) for unit in units) for units in (before, after))
    found: list[Block] = []
    at = new_at = 0
    compare = diff_match_patch()
    compare.Diff_Timeout = 0  # it has the deadline instead; and this turns off a shortcut that takes quadratic time
    pieces: list[tuple[int, str]] = compare.diff_main(one, two, False, deadline)
    for changed, group in groupby(pieces, key=lambda piece: piece[0] != diff_match_patch.DIFF_EQUAL):
        start, new_start = at, new_at
        for operation, units in group:
            at += len(units) * (operation != diff_match_patch.DIFF_INSERT)
            new_at += len(units) * (operation != diff_match_patch.DIFF_DELETE)
        if changed:
            found.append(Block(start, at, new_start, new_at))
    return found


def changes(before: str, after: str) -> list[Change]:
    """What makes the one text of the other, places ascending: by lines, and within these by characters."""
    deadline = time.time() + TIME_LIMIT
    old, new = lines_of(before), lines_of(after)
    starts = [0, *accumulate(map(len, old))]
    found: list[Change] = []
    for start, end, new_start, new_end in blocks(old, new, deadline):
        at, words = starts[start], "".join(new[new_start:new_end])
        finer = blocks("".join(old[start:end]), words, deadline)
        found += [Change(at + one.start, at + one.end, words[one.new_start : one.new_end]) for one in finer]
    return found


@dataclass(frozen=True, slots=True)
class Hunk:
    """Changed lines with some around them, as in a unified diff: each begins with a blank, ``-`` or ``+``."""

    from_line: int
    from_lines: int
    to_line: int
    to_lines: int
    lines: Sequence[str]

    def __str__(self) -> str:
        """As in a unified diff (POSIX ``diff -u``)."""
        head = f"@@ -{_range(self.from_line, self.from_lines)} +{_range(self.to_line, self.to_lines)} @@\n"
        ended = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in self.lines)
        return head + "".join(ended)


def _range(line: int, lines: int) -> str:
    return str(line) if lines == 1 else f"{line},{lines}"


def hunks(before: str, after: str) -> list[Hunk]:
    """The differences of two texts by lines, with :data:`CONTEXT` lines around them."""
    old, new = lines_of(before), lines_of(after)
    found: list[Hunk] = []
    groups: list[list[Block]] = []
    for block in blocks(old, new, time.time() + TIME_LIMIT):
        if groups and block.start - groups[-1][-1].end <= 2 * CONTEXT:
            groups[-1].append(block)
        else:
            groups.append([block])
    for group in groups:
        start, end = max(0, group[0].start - CONTEXT), min(len(old), group[-1].end + CONTEXT)
        new_start = group[0].new_start - (group[0].start - start)
        lines: list[str] = []
        at = start
        for block in group:
            lines += [f" {line}" for line in old[at : block.start]]
            lines += [f"-{line}" for line in old[block.start : block.end]]
            lines += [f"+{line}" for line in new[block.new_start : block.new_end]]
            at = block.end
        lines += [f" {line}" for line in old[at:end]]
        new_end = group[-1].new_end + (end - group[-1].end)
        # A range of no lines is named by the line before it.
        found.append(
            Hunk(
                start + (end > start), end - start, new_start + (new_end > new_start), new_end - new_start, tuple(lines)
            )
        )
    return found


def merged(base: str, current: str, yours: str) -> tuple[str, list[Conflict]]:
    """Both changes of a text in one, and where they are in conflict; there it is ``current``'s."""
    return _merged(base, current, yours, lines_of, time.time() + TIME_LIMIT)


def _words_of(text: str) -> list[str]:
    return _WORDS.findall(text)


def _merged(
    base: str, current: str, yours: str, units: Callable[[str], list[str]], deadline: float
) -> tuple[str, list[Conflict]]:
    texts = [units(text) for text in (base, current, yours)]
    sides = [blocks(texts[0], texts[1], deadline), blocks(texts[0], texts[2], deadline)]
    starts = [[0, *accumulate(map(len, text))] for text in texts]

    def part(text: int, start: int, end: int) -> Part:
        return Part(starts[text][start], starts[text][end], "".join(texts[text][start:end]))

    out: list[str] = []
    conflicts: list[Conflict] = []
    at = 0
    for region in _regions(sides):
        start = min(block.start for side in region for block in side)
        end = max(block.end for side in region for block in side)
        out += texts[0][at:start]
        at = end
        # What either side made of the region.
        parts = [
            part(number, side[0].new_start - (side[0].start - start), side[-1].new_end + (end - side[-1].end))
            if side
            else part(0, start, end)
            for number, side in enumerate(region, 1)
        ]
        if not region[1] or parts[0].text == parts[1].text:
            out.append(parts[0].text)
        elif not region[0]:
            out.append(parts[1].text)
        else:
            before = part(0, start, end)
            if units is not _words_of:
                finer, overlaps = _merged(before.text, parts[0].text, parts[1].text, _words_of, deadline)
                if not overlaps:
                    out.append(finer)
                    continue
            at_out = sum(map(len, out))
            merged = Part(at_out, at_out + len(parts[0].text), parts[0].text)
            conflicts.append(Conflict(before, parts[0], parts[1], merged))
            out.append(parts[0].text)
    out += texts[0][at:]
    return "".join(out), conflicts


def _regions(sides: Sequence[Sequence[Block]]) -> list[tuple[list[Block], list[Block]]]:
    """The blocks of both sides, those together that overlap or touch."""
    regions: list[tuple[list[Block], list[Block]]] = []
    reach = -1
    for block, side in sorted((block, side) for side, found in enumerate(sides) for block in found):
        if block.start > reach:
            regions.append(([], []))
        regions[-1][side].append(block)
        reach = max(reach, block.end)
    return regions


def merge_fields(base: RevisionText, current: Note, yours: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that merge what someone wrote on ``base`` into what the note has become.

    Raises :class:`MergeConflict`, :class:`WouldNotFit`.
    """
    fields: dict[str, Any] = {}
    conflicts: list[dict[str, Any]] = []
    for name, wanted in yours.items():
        known, now = getattr(base, name), getattr(current, name)
        if wanted in (known, now):
            fields[name] = now
        elif now == known:
            fields[name] = wanted
        elif name == "tags":
            kept = [tag for tag in now if tag in wanted or tag not in known]
            fields[name] = kept + [tag for tag in wanted if tag not in known and tag not in kept]
        elif name == "content":
            fields[name], found = merged(known, now, wanted)
            conflicts += [
                {"field": name, **{side: getattr(one, side)._asdict() for side in Conflict.__annotations__}}
                for one in found
            ]
        else:
            fields[name] = now
            texts = {"base": known, "current": now, "yours": wanted, "merged": now}
            whole = {side: Part(0, len(text), text)._asdict() for side, text in texts.items()}
            conflicts.append({"field": name, **whole})
    if conflicts:
        raise MergeConflict(conflicts, dict(yours), fields, current)
    if len(fields.get("tags", ())) > MAX_TAGS:
        raise WouldNotFit(f"tags: would be more than {MAX_TAGS}")
    if len(fields.get("content", "").encode()) > MAX_CONTENT:
        raise ContentTooLong
    return fields
