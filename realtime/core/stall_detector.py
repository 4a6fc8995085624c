"""Detects clients that stopped reading."""

from __future__ import annotations


class StallDetector:
    """Measures for how long a client has not read from its connection. Times are in seconds, of any clock."""

    __slots__ = ("_buffered", "_last_progress")

    def __init__(self, now: float) -> None:
        self._buffered = 0
        self._last_progress = now

    def seconds_stalled(self, buffered: int, now: float) -> float:
        """Return the seconds without progress. Call it about once a second.

        Args:
            buffered: Bytes in the send buffer of the connection.
            now: The current time.
        """
        if buffered == 0 or buffered < self._buffered:
            self._last_progress = now
        self._buffered = buffered
        return now - self._last_progress
