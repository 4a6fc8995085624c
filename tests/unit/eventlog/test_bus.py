"""The event log in Redis: numbered, monotonic per key, bounded, and with a new epoch after a possible loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from realtime.errors import BusUnavailable
from realtime.eventlog.bus import MAX_QUEUED_EVENTS, Bus, LogEntry
from realtime.eventlog.cursor import Cursor
from realtime.settings import Settings
from tests.support.harness import eventually
from tests.support.workers import NO_REDIS, open_bus, running_bus


@pytest.fixture
async def bus(settings: Settings) -> AsyncIterator[Bus]:
    async with running_bus(settings) as bus:
        yield bus


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    """Return a client of the Redis of the event log."""
    async with Redis.from_url(settings.redis_url or "") as redis:
        yield redis


def entry(key: str, version: int, size: int = 0) -> LogEntry:
    return LogEntry(key, version, f"{key}/{version}@".encode(), b"." * size)


async def append(bus: Bus, *entries: LogEntry) -> None:
    await asyncio.gather(*map(bus.append, entries))


async def payloads(bus: Bus, after: Cursor, *, collapse: bool = False) -> list[str] | None:
    read = await bus.read(after, 2**53, collapse=collapse)
    return None if read is None else [payload.decode() for _, payload in read]


async def test_offsets_start_at_1_and_are_in_the_payload(bus: Bus) -> None:
    start = await bus.position()
    await append(bus, entry("a", 1), entry("b", 1), entry("a", 2))
    assert start.offset == 0
    assert await bus.position() == start._replace(offset=3)
    assert await payloads(bus, start) == [
        f"{name}@{start.epoch}:{n}" for n, name in enumerate(["a/1", "b/1", "a/2"], 1)
    ]


async def test_older_or_repeated_version_is_dropped(bus: Bus) -> None:
    start = await bus.position()
    await append(bus, entry("a", 3))
    await append(bus, entry("a", 2), entry("a", 3), entry("a", 4))
    assert [text.split("@")[0] for text in await payloads(bus, start) or ()] == ["a/3", "a/4"]


async def test_collapsed_read_returns_the_latest_event_of_each_key(bus: Bus) -> None:
    start = await bus.position()
    await append(bus, *(entry(key, version) for version in range(1, 5) for key in "abc"), entry("a", 9))
    read = await payloads(bus, start, collapse=True)
    assert [text.split("@")[0] for text in read or ()] == ["b/4", "c/4", "a/9"]
    half = start._replace(offset=11)
    assert [text.split("@")[0] for text in await payloads(bus, half, collapse=True) or ()] == ["c/4", "a/9"]


async def test_read_is_limited_by_count_bytes_and_last_offset(bus: Bus) -> None:
    start = await bus.position()
    await append(bus, *(entry(str(n), 1, size=1000) for n in range(20)))
    assert len(await bus.read(start, 2**53, limit=7) or ()) == 7
    assert len(await bus.read(start, 2**53, limit_bytes=5000) or ()) == 4
    assert len(await bus.read(start, 2**53, limit_bytes=1) or ()) == 1
    assert [offset for offset, _ in await bus.read(start, 5) or ()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("collapse", [False, True])
async def test_read_after_a_trimmed_or_unknown_cursor_returns_none(bus: Bus, collapse: bool) -> None:
    start = await bus.position()
    await append(bus, *(entry(str(n % 50), n + 1) for n in range(3000)))
    assert await payloads(bus, start, collapse=collapse) is None
    assert await payloads(bus, start._replace(offset=3001), collapse=collapse) is None
    assert await payloads(bus, Cursor("other", 2999), collapse=collapse) is None
    assert await payloads(bus, start._replace(offset=3000), collapse=collapse) == []
    assert len(await payloads(bus, start._replace(offset=2990), collapse=collapse) or ()) == 10


async def test_index_is_trimmed_with_the_log(bus: Bus, redis: Redis, settings: Settings) -> None:
    for start in range(0, 10_000, 2000):
        await append(bus, *(entry(str(start + n), 1) for n in range(2000)))
    sizes = [
        await redis.xlen(f"{{{settings.database}}}:log"),
        await redis.zcard(f"{{{settings.database}}}:latest"),
        await redis.hlen(f"{{{settings.database}}}:versions"),
    ]
    assert sizes == [1000, 1000, 1000]


async def test_log_is_trimmed_to_its_byte_limit(settings: Settings) -> None:
    async with running_bus(settings, max_bytes=100_000) as bus:
        start = await bus.position()
        await append(bus, *(entry(str(n), 1, size=10_000) for n in range(25)))
        assert await payloads(bus, start) is None
        kept = await bus.read(start._replace(offset=16), 2**53)
        assert [offset for offset, _ in kept or ()] == list(range(17, 26))
        await append(bus, entry("large", 1, size=200_000))
        assert [offset for offset, _ in await bus.read(start._replace(offset=25), 2**53) or ()] == [26]


async def test_append_fails_while_redis_is_full_and_recovers(bus: Bus, redis: Redis) -> None:
    await append(bus, entry("a", 1))
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(BusUnavailable):
            await bus.append(entry("a", 2))
        assert bus.appending is False
    finally:
        await redis.config_set("maxmemory", 0)
    await append(bus, entry("a", 2))
    assert (await bus.position()).offset == 2


async def test_lost_log_starts_a_new_epoch(bus: Bus, redis: Redis, settings: Settings) -> None:
    await append(bus, entry("a", 5))
    before = await bus.position()
    await redis.delete(*[f"{{{settings.database}}}:{name}" for name in ("meta", "log")])
    after = await bus.position()
    assert after.epoch != before.epoch
    assert after.offset == 0
    assert await payloads(bus, before) is None
    await append(bus, entry("a", 1))
    assert (await bus.position()).offset == 1, "versions of the lost log do not block events of the new log"


async def test_restarted_redis_starts_a_new_epoch(bus: Bus, redis: Redis, settings: Settings) -> None:
    await append(bus, entry("a", 1))
    before = await bus.position()
    await redis.hset(f"{{{settings.database}}}:meta", "run_id", "previous process")
    after = await bus.position()
    assert (after.epoch != before.epoch, after.offset) == (True, 0)


async def test_subscription_yields_confirmations_and_then_messages(bus: Bus) -> None:
    async with bus.subscribe(bus.feed, bus.presence) as messages:
        confirmed = {(message.channel, message.data) for message in [await anext(messages), await anext(messages)]}
        assert confirmed == {(bus.feed, None), (bus.presence, None)}
        await append(bus, entry("a", 1))
        await bus.publish(bus.presence, b"hello")
        assert (await anext(messages)).data == (await bus.read((await bus.position())._replace(offset=0), 9) or [])[0][
            1
        ]
        assert (await anext(messages)).data == b"hello"


async def test_concurrent_appends_get_consecutive_offsets(bus: Bus) -> None:
    await asyncio.gather(*(bus.append(entry(str(n % 7), n + 1)) for n in range(500)))
    start = (await bus.position())._replace(offset=0)
    offsets: list[int] = []
    while read := await bus.read(start._replace(offset=len(offsets)), 2**53):
        offsets += [offset for offset, _ in read]
    assert offsets == list(range(1, len(offsets) + 1))


async def test_calls_to_an_unreachable_redis_raise_bus_unavailable() -> None:
    async with running_bus(Settings(redis_url=NO_REDIS), timeout=0.5) as bus:
        for call in (
            bus.position(),
            bus.read(Cursor("e", 1), 2),
            bus.publish(bus.presence, b""),
            bus.append(entry("a", 1)),
        ):
            with pytest.raises(BusUnavailable):
                await call
        with pytest.raises(BusUnavailable):
            async with bus.subscribe(bus.feed):
                pass
        assert not bus.available


async def test_append_to_a_full_queue_raises_bus_unavailable(settings: Settings) -> None:
    async with open_bus(settings) as bus:
        futures = [bus.append(entry("a", n)) for n in range(MAX_QUEUED_EVENTS + 1)]
        with pytest.raises(BusUnavailable, match="too many"):
            await futures[-1]
        assert not any(future.done() for future in futures[:-1])
    outcomes = await asyncio.gather(*futures[:-1], return_exceptions=True)
    assert all(isinstance(outcome, BusUnavailable) for outcome in outcomes)


async def test_subscription_that_reconnects_notifies_its_reader(bus: Bus, redis: Redis) -> None:
    """redis-py reconnects and subscribes automatically; readers must be notified."""
    async with bus.subscribe(bus.feed) as messages:
        assert (await anext(messages)).data is None
        waiting = asyncio.ensure_future(anext(messages))

        async def cut() -> bool:
            await redis.client_kill_filter(_type="pubsub")
            return waiting.done()

        await eventually(cut)
        outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert isinstance(outcome, BaseException) or outcome.data is None


async def test_cancellation_at_any_point_of_a_call_ends_it(bus: Bus) -> None:
    async def call_repeatedly() -> None:
        while True:
            await bus.position()
            await bus.publish(bus.presence, b"")
            await asyncio.sleep(0)

    for turns in range(60):  # iterations of the event loop, so that the cancellation arrives at any point of a call
        task = asyncio.create_task(call_repeatedly())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)
        assert task.done()
