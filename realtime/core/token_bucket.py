"""Token buckets: how much a connection may do per second."""

from __future__ import annotations

from collections.abc import Hashable


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


class TokenBuckets:
    """Token buckets by key, which outlive the connections that use them. At most ``limit`` are kept.

    A bucket that is full is not kept, as a new one is the same. If there are more, the ones that were used longest ago
    are dropped.
    """

    def __init__(self, per_second: float, burst: float, limit: int = 10_000) -> None:
        self._per_second = per_second
        self._burst = burst
        self._limit = limit
        self._buckets: dict[Hashable, TokenBucket] = {}

    def __len__(self) -> int:
        """Return the number of buckets that are kept."""
        return len(self._buckets)

    def left(self, key: Hashable, now: float) -> float:
        """Return the number of tokens left in a bucket; negative after more were taken than there were."""
        bucket = self._buckets.get(key)
        return self._burst if bucket is None else bucket.left(now)

    def take(self, key: Hashable, cost: float, now: float) -> None:
        """Take tokens from a bucket. If there are not enough, the missing ones are owed."""
        bucket = self._buckets.pop(key, None) or TokenBucket(self._per_second, self._burst, now)
        bucket.take(cost, now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._limit:
            self._buckets = {key: kept for key, kept in self._buckets.items() if kept.left(now) < self._burst}
            excess = len(self._buckets) - self._limit // 2 if len(self._buckets) > self._limit else 0
            for oldest in list(self._buckets)[:excess]:
                del self._buckets[oldest]
