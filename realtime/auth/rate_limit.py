"""How often somebody may do something: counted in Redis, over all workers; by each for itself while Redis is away."""

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


PATIENCE = 0.25
"""Seconds that Redis has to answer in."""
PAUSE = 1.0
"""Seconds without a question to a Redis that did not."""
AT_ONCE = 16
"""Questions to Redis under way; each takes a connection."""
BURST = 4
"""Seconds' worth of writes that may come at once."""


class RateRule(NamedTuple):
    """At most so many, in so many seconds; a sliding window, so that they come back one by one."""

    name: str
    limit: int
    seconds: int


def write_rule(per_second: int) -> RateRule:
    """The rule for the writes of one user."""
    return RateRule("writes", per_second * BURST, BURST)


class RateUsage(NamedTuple):
    """The events that a rule counted for a key, at most as many as it allows, and the seconds until one expires."""

    used: int
    seconds: float


class RateLimiter:
    """What is left of each rule, by key. It never fails for want of Redis, nor waits for it for long."""

    def __init__(self, bus: Bus) -> None:
        # Here, not at the top: the library is slow to import, and not needed where there are no accounts.
        from limits import RateLimitItemPerSecond
        from limits.aio.storage import MemoryStorage, RedisStorage
        from limits.aio.strategies import SlidingWindowCounterRateLimiter
        from limits.errors import StorageError

        options: Any = {"implementation": "redispy", "connection_pool": bus.connections, "wrap_exceptions": True}
        shared = RedisStorage("async+redis://", key_prefix=bus.key("limit"), **options)
        self._bus = bus
        self._shared = SlidingWindowCounterRateLimiter(shared)
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerSecond
        self._failures = (StorageError, OSError, TimeoutError)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._ask_again = 0.0

    async def acquire(self, rule: RateRule, key: str) -> None:
        """Takes one; an address is counted with its :func:`network_of`. Raises :class:`TooManyRequests`."""
        key = network_of(key) if ":" in key else key

        async def take(limiter: Strategy) -> None:
            item = self._item_of(rule)
            if not await limiter.hit(item, key):
                again = await limiter.get_window_stats(item, key)
                raise TooManyRequests(_seconds_until(again.reset_time))

        await self._ask(take)

    async def add(self, rule: RateRule, key: str) -> None:
        """Count an event under a key, whether or not the rule allows more."""

        async def add(limiter: Strategy) -> None:
            await limiter.hit(self._item_of(rule), key)

        await self._ask(add)

    async def usage(self, rule: RateRule, key: str) -> RateUsage:
        """Return how many events were counted under a key, without counting one."""

        async def read(limiter: Strategy) -> RateUsage:
            stats = await limiter.get_window_stats(self._item_of(rule), key)
            return RateUsage(rule.limit - stats.remaining, _seconds_until(stats.reset_time))

        return await self._ask(read)

    def _item_of(self, rule: RateRule) -> Any:
        return self._item(rule.limit, rule.seconds, namespace=rule.name)

    async def _ask(self, question: Callable[[Strategy], Awaitable[T]]) -> T:
        """Return the answer of the limiter in Redis, or of that of this worker if Redis does not answer in time."""
        async with self._turns:
            if self._bus.available and time.monotonic() > self._ask_again:
                try:
                    async with asyncio.timeout(PATIENCE):
                        return await question(self._shared)
                except self._failures as error:
                    if time.monotonic() > self._ask_again:
                        told = {"error": str(error) or repr(error)}
                        log.warning("limits are counted by this worker alone", extra=told)
                    self._ask_again = time.monotonic() + PAUSE
        return await question(self._own)


def _seconds_until(time_of_day: float) -> float:
    return max(1.0, time_of_day - time.time())
