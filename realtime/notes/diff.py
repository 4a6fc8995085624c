"""Differences between two texts: changed ranges, and hunks of lines."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple

from diff_match_patch import diff_match_patch

from realtime.notes.headings import lines_of

TIME_LIMIT = 1.0
CONTEXT = 3
_WORDS = re.compile(r"\w+|\s|[^\w\s]")


class Block(NamedTuple):
    """Units ``start`` to ``end`` of the one text became ``new_start`` to ``new_end`` of the other."""

    start: int
    end: int
    new_start: int
    new_end: int


class TextChange(NamedTuple):
    """Replace the characters ``start`` to ``end`` (Unicode code points of the text before) with others."""

    start: int
    end: int
    text: str


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


def changes(before: str, after: str) -> list[TextChange]:
    """What makes the one text of the other, places ascending: by lines, and within these by characters."""
    deadline = time.time() + TIME_LIMIT
    old, new = lines_of(before), lines_of(after)
    starts = [0, *accumulate(map(len, old))]
    found: list[TextChange] = []
    for start, end, new_start, new_end in blocks(old, new, deadline):
        at, words = starts[start], "".join(new[new_start:new_end])
        finer = blocks("".join(old[start:end]), words, deadline)
        found += [TextChange(at + one.start, at + one.end, words[one.new_start : one.new_end]) for one in finer]
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


def _words_of(text: str) -> list[str]:
    return _WORDS.findall(text)
