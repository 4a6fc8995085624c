"""Positions in the event log."""

from __future__ import annotations

from typing import NamedTuple


class Cursor(NamedTuple):
    """A position ``<epoch>:<offset>``: the generation of the log, and an event's number in it. Opaque to clients."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Parse a cursor that a client sent. Return :data:`UNKNOWN`, which causes a reset, if it is invalid."""
        epoch, _, offset = text.rpartition(":")
        if epoch and offset.isascii() and offset.isdigit() and len(offset) <= 16:
            return cls(epoch, int(offset))
        return UNKNOWN


UNKNOWN = Cursor("none", 0)
