"""Tracks the authors of changes to a text until a version of the note names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class TextSnapshot(NamedTuple):
    """The text at one point in time, the number of changes in it, and the authors that no version names yet."""

    text: str
    change_count: int
    authors: Sequence[str]


class Contributors:
    """Tracks the last change of each author of one text. ``change_count`` is the number of all changes."""

    def __init__(self) -> None:
        self.change_count = 0
        self._last_changes: dict[str, int] = {}

    def add(self, authors: Iterable[str]) -> None:
        """Count a change by these authors, when it is applied."""
        self.change_count += 1
        self._last_changes |= dict.fromkeys(authors, self.change_count)

    def snapshot(self, text: str) -> TextSnapshot:
        """Return the current text with the authors that its next version should name."""
        return TextSnapshot(text, self.change_count, list(self._last_changes))

    def mark_attributed(self, change_count: int) -> None:
        """Drop authors whose changes are all among the first ``change_count``: a version names them."""
        self._last_changes = {name: last for name, last in self._last_changes.items() if last > change_count}
