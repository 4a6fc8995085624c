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

TIME_LIMIT_SECONDS = 1.0
"""The time after which a difference becomes coarser."""
CONTEXT_LINES = 3
"""The number of unchanged lines around the changes of a hunk."""
_WORDS = re.compile(r"\w+|\s|[^\w\s]")


class Block(NamedTuple):
    """A changed range: units ``start`` to ``end`` were replaced by ``new_start`` to ``new_end`` of the other text."""

    start: int
    end: int
    new_start: int
    new_end: int


class TextChange(NamedTuple):
    """A replacement of the characters ``start`` to ``end`` (Unicode code points of the old text) with ``text``."""

    start: int
    end: int
    text: str


def blocks(before: Sequence[str], after: Sequence[str], deadline: float) -> list[Block]:
    """Return the changed ranges of two texts in ascending order.

    Args:
        before: The units of the old text, such as lines or words, or the old text itself.
        after: The units of the new text.
        deadline: The time, as of :func:`time.time`, after which the result becomes coarser.
    """
    codes: dict[str, str] = {}
    # The library compares characters, so each unit that is not one is mapped to one.
    old, new = (
        units if isinstance(units, str) else "".join(codes.setdefault(unit, chr(len(codes))) for unit in units)
        for units in (before, after)
    )
    result: list[Block] = []
    end = new_end = 0
    compare = diff_match_patch()
    compare.Diff_Timeout = 0  # the deadline is passed instead; 0 also disables a heuristic with quadratic run time
    pieces: list[tuple[int, str]] = compare.diff_main(old, new, False, deadline)
    for changed, group in groupby(pieces, key=lambda piece: piece[0] != diff_match_patch.DIFF_EQUAL):
        start, new_start = end, new_end
        for operation, units in group:
            end += len(units) * (operation != diff_match_patch.DIFF_INSERT)
            new_end += len(units) * (operation != diff_match_patch.DIFF_DELETE)
        if changed:
            result.append(Block(start, end, new_start, new_end))
    return result


def changes(before: str, after: str) -> list[TextChange]:
    """Return the replacements that turn one text into the other, in ascending order.

    The texts are compared by lines, and changed lines by characters.
    """
    deadline = time.time() + TIME_LIMIT_SECONDS
    old, new = lines_of(before), lines_of(after)
    line_offsets = [0, *accumulate(map(len, old))]
    result: list[TextChange] = []
    for start, end, new_start, new_end in blocks(old, new, deadline):
        offset, text = line_offsets[start], "".join(new[new_start:new_end])
        result += [
            TextChange(offset + block.start, offset + block.end, text[block.new_start : block.new_end])
            for block in blocks("".join(old[start:end]), text, deadline)
        ]
    return result


@dataclass(frozen=True, slots=True)
class Hunk:
    """Changed lines with context, as in a unified diff.

    Attributes:
        from_line: The first line in the old text, starting at 1.
        from_lines: The number of lines in the old text.
        to_line: The first line in the new text, starting at 1.
        to_lines: The number of lines in the new text.
        lines: The lines, each with the prefix ``" "``, ``-`` or ``+``.
    """

    from_line: int
    from_lines: int
    to_line: int
    to_lines: int
    lines: Sequence[str]

    def __str__(self) -> str:
        """Return the hunk in the unified format (POSIX ``diff -u``)."""
        head = f"@@ -{_range(self.from_line, self.from_lines)} +{_range(self.to_line, self.to_lines)} @@\n"
        ended = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in self.lines)
        return head + "".join(ended)


def _range(line: int, lines: int) -> str:
    return str(line) if lines == 1 else f"{line},{lines}"


def hunks(before: str, after: str) -> list[Hunk]:
    """Return the differences between two texts by lines, with :data:`CONTEXT_LINES` lines of context."""
    old, new = lines_of(before), lines_of(after)
    result: list[Hunk] = []
    groups: list[list[Block]] = []
    for block in blocks(old, new, time.time() + TIME_LIMIT_SECONDS):
        if groups and block.start - groups[-1][-1].end <= 2 * CONTEXT_LINES:
            groups[-1].append(block)
        else:
            groups.append([block])
    for group in groups:
        start, end = max(0, group[0].start - CONTEXT_LINES), min(len(old), group[-1].end + CONTEXT_LINES)
        new_start = group[0].new_start - (group[0].start - start)
        lines: list[str] = []
        position = start
        for block in group:
            lines += [f" {line}" for line in old[position : block.start]]
            lines += [f"-{line}" for line in old[block.start : block.end]]
            lines += [f"+{line}" for line in new[block.new_start : block.new_end]]
            position = block.end
        lines += [f" {line}" for line in old[position:end]]
        new_end = group[-1].new_end + (end - group[-1].end)
        # As in POSIX, an empty range is numbered by the line before it.
        result.append(
            Hunk(
                start + (end > start), end - start, new_start + (new_end > new_start), new_end - new_start, tuple(lines)
            )
        )
    return result


def words_of(text: str) -> list[str]:
    """Split a text into words, whitespace characters and other characters."""
    return _WORDS.findall(text)
