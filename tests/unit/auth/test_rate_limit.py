"""Rate limits: shared by the workers, refilled gradually, and never a reason to block or to fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from realtime.auth.rate_limit import REDIS_TIMEOUT_SECONDS, RateLimiter, RateRule, write_rule
from realtime.core.networks import network_of, wide_network_of
from realtime.errors import TooManyRequests
from realtime.settings import Settings
from tests.support.harness import UNIT, eventually
from tests.support.workers import NO_REDIS, open_bus

RULE = RateRule("test", 3, 10**6)


@asynccontextmanager
async def rate_limiter(redis_url: str) -> AsyncIterator[RateLimiter]:
    """Create the rate limiter of a worker with another Redis."""
    async with open_bus(Settings(redis_url=redis_url)) as bus:
        yield RateLimiter(bus)


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[RateLimiter]:
    async with open_bus(settings) as bus:
        yield RateLimiter(bus)


other_worker = worker
"""The rate limiter of another worker on the same database."""


async def count_acquired(limits: RateLimiter, rule: RateRule, key: str, tries: int) -> int:
    """Return how many of the attempts succeed."""
    outcomes = await asyncio.gather(*(limits.acquire(rule, key) for _ in range(tries)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), TooManyRequests}
    return outcomes.count(None)


async def test_rate_limit_is_shared_by_workers_per_key_and_rule(worker: RateLimiter, other_worker: RateLimiter) -> None:
    assert (
        sum(await asyncio.gather(count_acquired(worker, RULE, "ann", 5), count_acquired(other_worker, RULE, "ann", 5)))
        == 3
    )
    assert await count_acquired(other_worker, RULE, "bob", 2) == 2
    assert await count_acquired(worker, RateRule("other", 5, 60), "ann", 7) == 5


async def test_refused_request_states_the_seconds_until_retry(worker: RateLimiter) -> None:
    rule = RateRule("short", 4, 1)
    assert await count_acquired(worker, rule, "ann", 5) == 4
    with pytest.raises(TooManyRequests) as refused:
        await worker.acquire(rule, "ann")
    assert 1 <= refused.value.seconds <= 2

    async def is_refilled() -> bool:
        return await count_acquired(worker, rule, "ann", 1) == 1

    await eventually(is_refilled)
    assert await count_acquired(worker, rule, "ann", 4) < 4, "tokens are refilled one at a time"


async def test_usage_is_shared_by_workers_and_not_counted_when_read(
    worker: RateLimiter, other_worker: RateLimiter
) -> None:
    for _ in range(5):  # two more than the rule allows
        await worker.add(RULE, "ann")
        assert (await other_worker.usage(RULE, "bob")).used == 0
    assert (await other_worker.usage(RULE, "ann")).used == 3
    assert (await other_worker.usage(RULE, "ann")).seconds >= 1
    assert await count_acquired(other_worker, RULE, "ann", 1) == 0


async def test_write_rule_allows_bursts(worker: RateLimiter) -> None:
    started = time.monotonic()
    granted = await count_acquired(worker, write_rule(30), "ann", 200)
    assert 120 <= granted <= 120 + 30 * (time.monotonic() - started + 1)


async def test_rate_limit_without_redis_is_counted_by_the_worker() -> None:
    async with rate_limiter(NO_REDIS) as limits:
        assert await count_acquired(limits, RULE, "ann", 9) == 3
        assert await count_acquired(limits, RULE, "bob", 1) == 1
        await limits.add(RULE, "cid")
        assert (await limits.usage(RULE, "cid")).used == 1


async def test_unresponsive_redis_delays_only_the_first_requests() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        async with rate_limiter(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0") as limits:
            started = time.monotonic()
            assert await count_acquired(limits, RULE, "ann", 50) == 3
            assert time.monotonic() - started < REDIS_TIMEOUT_SECONDS + UNIT
            started = time.monotonic()
            assert await count_acquired(limits, RULE, "bob", 50) == 3
            assert time.monotonic() - started < REDIS_TIMEOUT_SECONDS


@pytest.mark.parametrize(
    ("address", "network", "wide_network"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ("testclient", "testclient", "testclient"),
    ],
)
def test_networks_of_an_address_are_its_narrow_and_wide_prefix(address: str, network: str, wide_network: str) -> None:
    assert (network_of(address), wide_network_of(address)) == (network, wide_network)
