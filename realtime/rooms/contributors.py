"""The authors of changes to a text that no version of the note names yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class TextSnapshot(NamedTuple):
    """The text at a moment, the number of changes up to then, and the authors that no version names yet."""

    text: str
    changes: int
    authors: Sequence[str]


class Contributors:
    """Tracks the last change of each author of one text. ``changes`` is the number of all changes."""

    def __init__(self) -> None:
        self.changes = 0
        self._last_changes: dict[str, int] = {}

    def add(self, authors: Iterable[str]) -> None:
        """Count a change by these authors, when it is applied."""
        self.changes += 1
        self._last_changes |= dict.fromkeys(authors, self.changes)

    def snapshot(self, text: str) -> TextSnapshot:
        """Return the current text with the authors that its next version should name."""
        return TextSnapshot(text, self.changes, list(self._last_changes))

    def mark_attributed(self, changes: int) -> None:
        """Drop authors whose changes are all among the first ``changes``: a version names them."""
        self._last_changes = {name: last for name, last in self._last_changes.items() if last > changes}
