"""The three-way merge of texts and notes.

Differences are computed by diff-match-patch (Myers, "An O(ND) Difference Algorithm", 1986) with a time limit, after
which they are coarser but still correct. The merge follows diff3 (Khanna, Kunal, Pierce, "A Formal Investigation of
Diff3", 2007): changes that neither overlap nor touch are both applied. Lines are compared first, and words where lines
are in conflict, since a paragraph of a note is a single line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from realtime.errors import ContentTooLong, FieldTooLong, MergeConflict
from realtime.notes.diff import TIME_LIMIT_SECONDS, blocks, words_of
from realtime.notes.headings import lines_of
from realtime.notes.models import MAX_CONTENT_BYTES, MAX_TAGS

if TYPE_CHECKING:
    from realtime.notes.diff import Block
    from realtime.notes.models import Note, RevisionText


class Part(NamedTuple):
    """A range of a text in characters (Unicode code points), with the text in it."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A range that both sides changed differently.

    Attributes:
        base: The range in the common version.
        current: The range in the current version.
        yours: The range in the text of the caller.
        merged: The range in the merged text, which has the text of ``current``.
    """

    base: Part
    current: Part
    yours: Part
    merged: Part


def merged(base: str, current: str, yours: str) -> tuple[str, list[Conflict]]:
    """Merge two changed versions of a text.

    Args:
        base: The common version.
        current: The text with the changes that take precedence.
        yours: The text with the other changes.

    Returns:
        The merged text and the conflicts. In a conflict, the merged text has the text of ``current``.
    """
    return _merged(base, current, yours, lines_of, time.time() + TIME_LIMIT_SECONDS)


def _merged(
    base: str, current: str, yours: str, units: Callable[[str], list[str]], deadline: float
) -> tuple[str, list[Conflict]]:
    """Merge two changed versions of a text by the units that ``units`` splits it into."""
    texts = [units(text) for text in (base, current, yours)]
    sides = [blocks(texts[0], texts[1], deadline), blocks(texts[0], texts[2], deadline)]
    starts = [[0, *accumulate(map(len, text))] for text in texts]

    def part(text: int, start: int, end: int) -> Part:
        return Part(starts[text][start], starts[text][end], "".join(texts[text][start:end]))

    out: list[str] = []
    conflicts: list[Conflict] = []
    position = 0
    for region in _regions(sides):
        start = min(block.start for side in region for block in side)
        end = max(block.end for side in region for block in side)
        out += texts[0][position:start]
        position = end
        current_part, your_part = (
            part(number, side[0].new_start - (side[0].start - start), side[-1].new_end + (end - side[-1].end))
            if side
            else part(0, start, end)
            for number, side in enumerate(region, 1)
        )
        if not region[1] or current_part.text == your_part.text:
            out.append(current_part.text)
        elif not region[0]:
            out.append(your_part.text)
        else:
            base_part = part(0, start, end)
            if units is not words_of:
                text, word_conflicts = _merged(base_part.text, current_part.text, your_part.text, words_of, deadline)
                if not word_conflicts:
                    out.append(text)
                    continue
            offset = sum(map(len, out))
            merged_part = Part(offset, offset + len(current_part.text), current_part.text)
            conflicts.append(Conflict(base_part, current_part, your_part, merged_part))
            out.append(current_part.text)
    out += texts[0][position:]
    return "".join(out), conflicts


def _regions(sides: Sequence[Sequence[Block]]) -> list[tuple[list[Block], list[Block]]]:
    """Group the blocks of both sides that overlap or touch."""
    regions: list[tuple[list[Block], list[Block]]] = []
    reach = -1
    for block, side in sorted((block, side) for side, changed in enumerate(sides) for block in changed):
        if block.start > reach:
            regions.append(([], []))
        regions[-1][side].append(block)
        reach = max(reach, block.end)
    return regions


def merge_fields(base: RevisionText, current: Note, yours: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the fields of a write that is based on an earlier version into the current note.

    Args:
        base: The version that the write is based on.
        current: The current note.
        yours: The fields of the write.

    Returns:
        The merged fields.

    Raises:
        MergeConflict: Both sides changed the same words, or the same title or description.
        FieldTooLong: A merged field exceeds its limit.
    """
    fields: dict[str, Any] = {}
    conflicts: list[Any] = []
    for name, wanted in yours.items():
        before, now = getattr(base, name), getattr(current, name)
        if wanted in (before, now):
            fields[name] = now
        elif now == before:
            fields[name] = wanted
        elif name == "tags":
            kept = [tag for tag in now if tag in wanted or tag not in before]
            fields[name] = kept + [tag for tag in wanted if tag not in before and tag not in kept]
        elif name == "content":
            fields[name], text_conflicts = merged(before, now, wanted)
            conflicts += [
                {"field": name, **{side: getattr(conflict, side)._asdict() for side in Conflict.__annotations__}}
                for conflict in text_conflicts
            ]
        else:
            fields[name] = now
            texts = {"base": before, "current": now, "yours": wanted, "merged": now}
            whole = {side: Part(0, len(text), text)._asdict() for side, text in texts.items()}
            conflicts.append({"field": name, **whole})
    if conflicts:
        raise MergeConflict(conflicts, dict(yours), fields, current)
    if len(fields.get("tags", ())) > MAX_TAGS:
        raise FieldTooLong(f"tags: the merged note would have more than {MAX_TAGS} tags")
    if len(fields.get("content", "").encode()) > MAX_CONTENT_BYTES:
        raise ContentTooLong(MAX_CONTENT_BYTES)
    return fields
