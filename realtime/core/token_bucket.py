"""Token buckets, which limit the rate of events."""

from __future__ import annotations

from collections.abc import Hashable


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
        """Return the number of tokens. It is negative if more tokens were taken than were available."""
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_second)
        self._updated = now
        return self._tokens

    def consume(self, cost: float, now: float) -> bool:
        """Take tokens, and return whether there were enough. If not, the balance becomes negative."""
        self._tokens = self.remaining(now) - cost
        return self._tokens >= 0


class TokenBuckets:
    """Token buckets by key. They are kept when the connections that use them close.

    Args:
        per_second: Tokens added to each bucket per second.
        burst: The initial and maximum number of tokens of a bucket.
        limit: The maximum number of buckets. Above it, full buckets and the least recently used ones are dropped.
    """

    def __init__(self, per_second: float, burst: float, limit: int = 10_000) -> None:
        self._per_second = per_second
        self._burst = burst
        self._limit = limit
        self._buckets: dict[Hashable, TokenBucket] = {}

    def __len__(self) -> int:
        """Return the number of buckets that are kept."""
        return len(self._buckets)

    def remaining(self, key: Hashable, now: float) -> float:
        """Return the number of tokens in a bucket. It is negative if more tokens were taken than were available."""
        bucket = self._buckets.get(key)
        return self._burst if bucket is None else bucket.remaining(now)

    def consume(self, key: Hashable, cost: float, now: float) -> None:
        """Take tokens from a bucket. If there are not enough, the balance becomes negative."""
        bucket = self._buckets.pop(key, None) or TokenBucket(self._per_second, self._burst, now)
        bucket.consume(cost, now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._limit:
            self._buckets = {key: kept for key, kept in self._buckets.items() if kept.remaining(now) < self._burst}
            excess = len(self._buckets) - self._limit // 2 if len(self._buckets) > self._limit else 0
            for oldest in list(self._buckets)[:excess]:
                del self._buckets[oldest]
