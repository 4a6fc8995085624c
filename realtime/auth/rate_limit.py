"""Rate limits, counted in Redis over all workers. Without Redis, each worker counts only its own events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from realtime.core.networks import network_of
from realtime.errors import TooManyRequests

if TYPE_CHECKING:
    from limits.aio.strategies import RateLimiter as Strategy

    from realtime.eventlog.bus import Bus


log = logging.getLogger(__name__)


T = TypeVar("T")


REDIS_TIMEOUT_SECONDS = 0.25
"""Seconds to wait for a response from Redis."""
REDIS_RETRY_DELAY_SECONDS = 1.0
"""Seconds after a failed call before Redis is called again."""
MAX_CONCURRENT_CALLS = 16
"""Maximum number of concurrent calls to Redis. Each of them uses a connection."""
BURST_SECONDS = 4
"""Window of the rule for writes. A user can send the writes allowed in this time in one burst."""


class RateRule(NamedTuple):
    """A maximum number of events in a sliding window.

    Attributes:
        name: The name of the rule, which is part of the Redis key.
        limit: The maximum number of events in the window.
        seconds: The length of the window.
    """

    name: str
    limit: int
    seconds: int


def write_rule(per_second: int) -> RateRule:
    """Return the rule for the writes of one user."""
    return RateRule("writes", per_second * BURST_SECONDS, BURST_SECONDS)


class RateUsage(NamedTuple):
    """The usage of a rule by one key.

    Attributes:
        used: The number of events in the window, at most the limit.
        seconds: The seconds until the oldest event expires.
    """

    used: int
    seconds: float


class RateLimiter:
    """Counts events by rule and key. If Redis does not respond in time, the events are counted in this process."""

    def __init__(self, bus: Bus) -> None:
        # Imported here because the library is slow to import, and servers without accounts do not need it.
        from limits import RateLimitItemPerSecond
        from limits.aio.storage import MemoryStorage, RedisStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter
        from limits.errors import StorageError

        options: Any = {"implementation": "redispy", "connection_pool": bus.connections, "wrap_exceptions": True}
        shared = RedisStorage("async+redis://", key_prefix=bus.key("limit"), **options)
        self._bus = bus
        self._shared = SlidingWindowCounterRateLimiter(shared)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerSecond
        self._failures = (StorageError, OSError, TimeoutError)
        self._concurrency = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
        self._retry_time = 0.0

    async def acquire(self, rule: RateRule, key: str) -> None:
        """Count an event. Raises :class:`TooManyRequests` if the rule does not allow it.

        Args:
            rule: The rule.
            key: The key. An IPv6 address is replaced by its :func:`network_of`.
        """
        key = network_of(key) if ":" in key else key

        async def hit(limiter: Strategy) -> None:
            item = self._item_of(rule)
            if not await limiter.hit(item, key):
                stats = await limiter.get_window_stats(item, key)
                raise TooManyRequests(_seconds_until(stats.reset_time))

        await self._call(hit)

    async def add(self, rule: RateRule, key: str) -> None:
        """Count an event even if the rule does not allow it."""

        async def add(limiter: Strategy) -> None:
            await limiter.hit(self._item_of(rule), key)

        await self._call(add)

    async def usage(self, rule: RateRule, key: str) -> RateUsage:
        """Return the usage of a rule by a key."""

        async def read(limiter: Strategy) -> RateUsage:
            stats = await limiter.get_window_stats(self._item_of(rule), key)
            return RateUsage(rule.limit - stats.remaining, _seconds_until(stats.reset_time))

        return await self._call(read)

    def _item_of(self, rule: RateRule) -> Any:
        return self._item(rule.limit, rule.seconds, namespace=rule.name)

    async def _call(self, operation: Callable[[Strategy], Awaitable[T]]) -> T:
        """Run an operation in Redis, or in this process if Redis does not respond in time."""
        async with self._concurrency:
            if self._bus.available and time.monotonic() > self._retry_time:
                try:
                    async with asyncio.timeout(REDIS_TIMEOUT_SECONDS):
                        return await operation(self._shared)
                except self._failures as error:
                    if time.monotonic() > self._retry_time:
                        reason = {"error": str(error) or repr(error)}
                        log.warning("rate limits are counted by this worker only", extra=reason)
                    self._retry_time = time.monotonic() + REDIS_RETRY_DELAY_SECONDS
        return await operation(self._local)


def _seconds_until(time_of_day: float) -> float:
    return max(1.0, time_of_day - time.time())
