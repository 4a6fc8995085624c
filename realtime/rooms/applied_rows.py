"""Tracks the journal rows that a room's text contains, and the snapshot generation that they extend."""

from __future__ import annotations

from collections.abc import Collection, Iterable

COMPACT_ROWS = 500
"""Number of compactable rows from which they are compacted even while the text is being edited."""


class AppliedRows:
    """Tracks the rows in a text.

    Attributes:
        generation: Generation of the snapshot; 1 is added whenever rows are compacted into it.
        known: All rows in the text that are not in the snapshot.
        compactable: Known rows that can be compacted into the snapshot.
    """

    def __init__(self, generation: int = 0, rows: Iterable[str] = (), edited: str | None = None) -> None:
        self.generation = generation
        self.compactable = set(rows)
        self.known = {*self.compactable, edited or ""}

    def add(self, row: str, *, complete: bool = True) -> None:
        """Record that the text has a row. Rows that are not ``complete`` must not be compacted."""
        self.known.add(row)
        if complete:
            self.compactable.add(row)

    def contains(self, row: str | None) -> bool:
        """Return whether the text has a row."""
        return row is None or row in self.known

    def is_behind(self, generation: int, rows: Collection[str]) -> bool:
        """Return whether the journal has rows or a snapshot that the text does not have."""
        return generation != self.generation or not self.known.issuperset(rows)

    def mark_compacted(self, rows: Collection[str], generation: int) -> None:
        """Record that rows were compacted into the snapshot of a generation, if that is the next one."""
        if generation == self.generation + 1 and self.known.issuperset(rows):
            self.generation = generation
            self.known.difference_update(rows)
            self.compactable.difference_update(rows)

    @property
    def has_too_many_rows(self) -> bool:
        """Whether rows should be compacted even while the text is being edited, because of their number."""
        return len(self.compactable) >= COMPACT_ROWS
