"""Redis faults: it dies, loses data, freezes, or delivers no messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from redis.asyncio import Redis

from realtime.settings import Settings
from tests.faults.daemons import Valkey
from tests.faults.load import Crowd, crowd
from tests.faults.proxy import Toxics
from tests.faults.scenario import Figures, Run, p99, scenario
from tests.support.harness import Replica, eventually

RESUME_OR_RESET = "resume or reset, never a silent hole"
FIFTY = "50 times, 0 lost, all clients converge within 10 s after Redis is available again"


@asynccontextmanager
async def _loaded(run: Run, *, kept: bool = False) -> AsyncIterator[tuple[Valkey, Crowd]]:
    """Start a Redis, two servers that use it, and load on both."""
    valkey = await run.testbed.exits.enter_async_context(Valkey(run.testbed.folder / "valkey", kept=kept))
    settings = await run.testbed.settings(redis_url=valkey.url)
    fleet = await run.testbed.fleet(settings, 2, run.random)
    async with crowd(run, fleet.url, settings) as load:
        yield valkey, load
    fleet.check()


async def _repeatedly(run: Run, load: Crowd, fault: Callable[[], Awaitable[None]]) -> Figures:
    """Repeat a fault, and check that all clients converge soon after each recovery."""
    longest = 0.0
    for number in range(run.times):
        await load.writers.more(run.load(200))
        await fault()
        back = time.monotonic()
        await load.writers.more(run.load(100))
        await eventually(partial(load.watch.has_all_until, back), within=20)
        longest = max(longest, time.monotonic() - back)
        run.progress(number + 1)
    load.figures.faults = run.times
    load.figures.extra["all updated after"] = f"{longest:.1f} s at most"
    load.figures.must(longest <= 10)
    return load.figures


@scenario("redis-killed", invariant=RESUME_OR_RESET, mark=FIFTY, unit="kills", full=50, slice=1)
async def killed(run: Run) -> Figures:
    """Kill Redis, and restart it without data."""
    async with _loaded(run) as (valkey, load):

        async def fault() -> None:
            valkey.kill()
            await load.writers.more(run.load(100))  # a dead Redis does not make writes fail
            await valkey.start()

        figures = await _repeatedly(run, load, fault)
        # Because of MongoDB, clients may have all events before they receive a reset.
        await eventually(lambda: all(replica.resets for replica in load.replicas))
    return figures


@scenario("redis-flushed", invariant=RESUME_OR_RESET, mark=FIFTY, unit="flushes", full=50, slice=1)
async def flushed(run: Run) -> Figures:
    """Delete all data of Redis."""
    async with _loaded(run) as (valkey, load), Redis.from_url(valkey.url) as redis:

        async def fault() -> None:
            await redis.flushall()

        figures = await _repeatedly(run, load, fault)
        assert all(replica.resets for replica in load.replicas)
    return figures


@scenario("redis-lost-tail", invariant=RESUME_OR_RESET, mark=FIFTY, unit="kills", full=50, slice=1)
async def lost_tail(run: Run) -> Figures:
    """Kill Redis, and restart it without its last events, so that it would assign their offsets to other events."""
    async with _loaded(run, kept=True) as (valkey, load):

        async def fault() -> None:
            valkey.kill()
            valkey.lose_tail(run.random.randrange(1, 50_000))
            await valkey.start()

        return await _repeatedly(run, load, fault)


@scenario(
    "redis-frozen",
    invariant="REST is unaffected, and all clients receive changes through MongoDB",
    mark="30 s; write p99 ≤ 1.5× the value before, all clients updated within 2 s",
    unit="seconds",
    full=30,
    slice=4,
)
async def frozen(run: Run) -> Figures:
    """Freeze Redis, with its connections open."""
    async with _loaded(run) as (valkey, load):
        writers = load.writers
        writers.pause = 0.01  # the measurement is the time of a write, not the throughput
        before: list[float] = []
        writers.times = before
        await asyncio.sleep(run.times / 3)
        await eventually(lambda: load.watch.waiting < 100)
        during: list[float] = []
        writers.times = during
        load.watch.seconds.clear()
        valkey.freeze()
        frozen = time.monotonic()
        lag = 0.0
        while time.monotonic() - frozen < run.times:
            await asyncio.sleep(0.05)
            lag = max(lag, load.watch.lag)
            run.progress(int(time.monotonic() - frozen))
        writers.times = None
        valkey.thaw()
        await writers.more(run.load(100))
    figures = load.figures
    figures.faults = run.times
    ratio = p99(during) / p99(before)
    figures.extra |= {"write p99": f"{ratio:.2f}×", "writes": len(during), "updated after": f"{lag:.2f} s at most"}
    figures.must(lag <= 2)
    figures.must(ratio <= 1.5 or not run.thorough)  # the slice has too few writes
    return figures


@scenario(
    "redis-never-there",
    invariant="a server that starts without Redis reads, writes and delivers by way of MongoDB",
    mark="30 s; all clients updated within 2 s; once Redis is available, all are reset and none gets an earlier frame",
    unit="seconds",
    full=30,
    slice=4,
)
async def never_there(run: Run) -> Figures:
    """Start the servers before Redis is available."""
    valkey = Valkey(run.testbed.folder / "valkey")
    settings = await run.testbed.settings(redis_url=valkey.url)
    fleet = await run.testbed.fleet(settings, 2, run.random)
    async with crowd(run, fleet.url, settings) as load:
        started = time.monotonic()
        lag = 0.0
        while time.monotonic() - started < run.times:
            await asyncio.sleep(0.05)
            lag = max(lag, load.watch.lag)
            run.progress(int(time.monotonic() - started))
        delivered = len(load.watch.seconds)
        await run.testbed.exits.enter_async_context(valkey)
        await load.writers.more(run.load(100))
        await eventually(lambda: all(replica.resets for replica in load.replicas), within=20)
        for server in fleet.servers:
            async with Replica(server.url) as newcomer:
                assert newcomer.cursor is not None
                assert not newcomer.cursor.startswith("none:")
                await load.writers.more(run.load(50))
                stale = [frame for frame in newcomer.frames if frame.get("cursor", "").startswith("none:")]
                assert stale == []
    fleet.check()
    figures = load.figures
    figures.faults = run.times
    figures.extra |= {"updated after": f"{lag:.2f} s at most", "deliveries without Redis": delivered}
    figures.must(lag <= 2)
    figures.must(delivered > 0)
    return figures


@scenario(
    "pubsub-black-hole",
    invariant="a subscription that delivers nothing is detected",
    mark="20 times, ≤ 10 s",
    unit="holes",
    full=20,
    slice=1,
)
async def black_hole(run: Run) -> Figures:
    """Discard all messages of the subscription while its connection stays open."""
    valkey = await run.testbed.exits.enter_async_context(Valkey(run.testbed.folder / "valkey"))
    proxy = await run.testbed.proxy(valkey.url)
    settings: Settings = await run.testbed.settings(redis_url=proxy.through(valkey.url))
    fleet = await run.testbed.fleet(settings, 2, run.random)
    longest = 0.0
    async with crowd(run, fleet.url, settings) as load:
        for number in range(run.times):
            await load.writers.more(run.load(100))
            proxy.down = Toxics(hole=True, match=b"message\r\n")
            begun = time.monotonic()
            await load.writers.more(run.load(100))
            told = time.monotonic()
            await eventually(partial(load.watch.has_all_until, told), within=20)
            longest = max(longest, time.monotonic() - begun)
            proxy.heal()
            run.progress(number + 1)
    figures = load.figures
    figures.faults = run.times
    figures.extra["all updated after"] = f"{longest:.1f} s at most"
    figures.must(longest <= 10)
    return figures
