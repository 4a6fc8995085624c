"""Who is to be named for a text: those who changed it since a version last told who did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class TextSnapshot(NamedTuple):
    """The text at a moment: the count of changes up to it, and who made those of them that no version tells of."""

    text: str
    changes: int
    people: Sequence[str]


class Contributors:
    """The people of one text, by the last change that each of them made. ``changes`` counts all there were."""

    def __init__(self) -> None:
        self.changes = 0
        self._people: dict[str, int] = {}

    def add(self, people: Iterable[str]) -> None:
        """Counts a change by these people, in the moment in which the text has it."""
        self.changes += 1
        self._people |= dict.fromkeys(people, self.changes)

    def show(self, text: str) -> TextSnapshot:
        """The text as it is, and whom a version of it is to name."""
        return TextSnapshot(text, self.changes, list(self._people))

    def mark_attributed(self, changes: int) -> None:
        """Versions tell of who made the first so many changes."""
        self._people = {name: last for name, last in self._people.items() if last > changes}
