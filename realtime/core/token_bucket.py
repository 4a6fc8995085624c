"""Token buckets: how much a connection may do per second."""

from __future__ import annotations


class TokenBucket:
    """Tokens that refill at a constant rate, up to a limit. Times are in seconds, of any clock that only goes forward.

    Args:
        per_second: Tokens added per second.
        burst: Tokens at the start, and the most that can be saved up.
        now: The current time.
    """

    __slots__ = ("_burst", "_counted", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._counted = now

    def left(self, now: float) -> float:
        """Return the number of tokens left; negative after more were taken than there were."""
        self._left = min(self._burst, self._left + (now - self._counted) * self._per_second)
        self._counted = now
        return self._left

    def take(self, cost: float, now: float) -> bool:
        """Take tokens, and return whether enough of them were left. If not, the missing ones are owed."""
        self._left = self.left(now) - cost
        return self._left >= 0
