"""Differences between texts, and the three-way merge of two that grew out of one.

Differences come from diff-match-patch (Myers, "An O(ND) Difference Algorithm", 1986, with a time limit, past which a
difference is coarser but still right). The merge is diff3's (Khanna, Kunal, Pierce, "A Formal Investigation of Diff3",
2007): changes that neither overlap nor touch are both taken. It compares lines first, and words where lines are in
conflict, since a paragraph of a note is one line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from realtime.errors import ContentTooLong, FieldTooLong, MergeConflict
from realtime.notes.diff import TIME_LIMIT, _words_of, blocks
from realtime.notes.headings import lines_of
from realtime.notes.models import MAX_CONTENT, MAX_TAGS

if TYPE_CHECKING:
    from realtime.notes.diff import Block
    from realtime.notes.models import Note, RevisionText


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


def merged(base: str, current: str, yours: str) -> tuple[str, list[Conflict]]:
    """Both changes of a text in one, and where they are in conflict; there it is ``current``'s."""
    return _merged(base, current, yours, lines_of, time.time() + TIME_LIMIT)


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

    Raises :class:`MergeConflict`, :class:`FieldTooLong`.
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
        raise FieldTooLong(f"tags: would be more than {MAX_TAGS}")
    if len(fields.get("content", "").encode()) > MAX_CONTENT:
        raise ContentTooLong(MAX_CONTENT)
    return fields
