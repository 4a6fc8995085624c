"""Token buckets, which limit the rate of events."""

from __future__ import annotations


class TokenBucket:
    """A token bucket. Times are in seconds, of any monotonic clock.

    Args:
        per_second: Tokens added per second.
        burst: The initial and maximum number of tokens.
        now: The current time.
    """

    __slots__ = ("_burst", "_per_second", "_tokens", "_updated")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._updated = now

    def remaining(self, now: float) -> float:
        """Return the number of tokens, which is negative after more were taken than available."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_second)
        self._updated = now
        return self._tokens

    def consume(self, cost: float, now: float) -> bool:
        """Take tokens, and return whether there were enough. If not, the balance becomes negative."""
        self._tokens = self.remaining(now) - cost
        return self._tokens >= 0
