"""Detects clients that stopped reading."""

from __future__ import annotations


class StallDetector:
    """Watches whether a client takes what it is sent. Times are in seconds, of any clock."""

    __slots__ = ("_buffered", "_moved")

    def __init__(self, now: float) -> None:
        self._buffered = 0
        self._moved = now

    def seconds_stalled(self, buffered: int, now: float) -> float:
        """For how long it has taken nothing, given what waits for it now. To be asked every second or so."""
        if buffered == 0 or buffered < self._buffered:
            self._moved = now
        self._buffered = buffered
        return now - self._moved
