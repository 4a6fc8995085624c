"""How often somebody may do something: counted in Redis, over all workers; by each for itself while Redis is away."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from realtime.errors import TooMany

if TYPE_CHECKING:
    from limits.aio.strategies import RateLimiter

    from realtime.bus import Bus

log = logging.getLogger(__name__)

PATIENCE = 0.25
"""Seconds that Redis has to answer in."""
PAUSE = 1.0
"""Seconds without a question to a Redis that did not."""
AT_ONCE = 16
"""Questions to Redis under way; each takes a connection."""
BURST = 4
"""Seconds' worth of writes that may come at once."""


class Rule(NamedTuple):
    """At most so many, in so many seconds; a sliding window, so that they come back one by one."""

    name: str
    most: int
    seconds: int


SIGN_IN_ACCOUNT = Rule("sign-in-account", 5, 60)
SIGN_IN_ADDRESS = Rule("sign-in-address", 20, 60)


def writes(per_second: int) -> Rule:
    """The rule for the writes of one user."""
    return Rule("writes", per_second * BURST, BURST)


def neighbourhood(address: str) -> str:
    """What an address is counted as: itself, or the network of an IPv6 address, which one subscriber has as a whole."""
    try:
        place = ipaddress.ip_address(address)
    except ValueError:
        return address
    if place.version == 4:
        return address
    return str(place.ipv4_mapped or ipaddress.ip_network((place, 64), strict=False))


class Limits:
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

    async def take(self, rule: Rule, key: str) -> None:
        """Takes one; an address is counted with its :func:`neighbourhood`. Raises :class:`TooMany`."""
        key = neighbourhood(key) if ":" in key else key
        async with self._turns:
            if self._bus.available and time.monotonic() > self._ask_again:
                try:
                    async with asyncio.timeout(PATIENCE):
                        await self._take(self._shared, rule, key)
                    return
                except self._failures as error:
                    if time.monotonic() > self._ask_again:
                        told = {"error": str(error) or repr(error)}
                        log.warning("limits are counted by this worker alone", extra=told)
                    self._ask_again = time.monotonic() + PAUSE
        await self._take(self._own, rule, key)

    async def _take(self, limiter: RateLimiter, rule: Rule, key: str) -> None:
        item = self._item(rule.most, rule.seconds, namespace=rule.name)
        if not await limiter.hit(item, key):
            again = await limiter.get_window_stats(item, key)
            raise TooMany(max(1.0, again.reset_time - time.time()))
