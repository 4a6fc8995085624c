"""Which rows of the journal are in a room's text, and which snapshot they go on from."""

from __future__ import annotations

from collections.abc import Collection, Iterable

CROWD = 500


class AppliedRows:
    """The rows that a text has (``known``), and those of them that are still to be folded into the snapshot (``rows``).

    ``generation`` is that of the snapshot: it grows by one whenever rows are folded into it.
    """

    def __init__(self, generation: int = 0, rows: Iterable[str] = (), edited: str | None = None) -> None:
        self.generation = generation
        self.rows = set(rows)
        self.known = {*self.rows, edited or ""}

    def add(self, row: str, *, whole: bool = True) -> None:
        """The text has a row; one that is not ``whole`` there must not be folded."""
        self.known.add(row)
        if whole:
            self.rows.add(row)

    def has(self, row: str | None) -> bool:
        """Whether the text has a row."""
        return row is None or row in self.known

    def lacks(self, generation: int, rows: Collection[str]) -> bool:
        """Whether the journal has something that the text has not."""
        return generation != self.generation or not self.known.issuperset(rows)

    def fold(self, rows: Collection[str], generation: int) -> None:
        """These rows were folded into the snapshot of this generation. Passed over if that is not the next one."""
        if generation == self.generation + 1 and self.known.issuperset(rows):
            self.generation = generation
            self.known.difference_update(rows)
            self.rows.difference_update(rows)

    @property
    def crowded(self) -> bool:
        """Whether there are so many rows that they are to be folded while people type."""
        return len(self.rows) >= CROWD
