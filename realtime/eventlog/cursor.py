"""A position in the log of events."""

from __future__ import annotations

from typing import NamedTuple


class Cursor(NamedTuple):
    """``<epoch>:<offset>``: the log's generation, and the number of the last event seen in it. Opaque to clients."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that a client sent. One that no log can have issued becomes one that no log reaches back to."""
        epoch, _, offset = text.rpartition(":")
        if epoch and offset.isascii() and offset.isdigit() and len(offset) <= 16:
            return cls(epoch, int(offset))
        return UNKNOWN


UNKNOWN = Cursor("none", 0)
