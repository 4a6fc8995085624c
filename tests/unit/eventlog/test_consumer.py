"""The consumer of the event log: every event once and in order or a reset, even if the channel loses messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from realtime.core.tasks import running
from realtime.eventlog.bus import Bus, LogEntry
from realtime.eventlog.consumer import LogConsumer
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Event
from realtime.settings import Settings
from tests.support.harness import eventually


class ConsumerBench:
    """A consumer that records its deliveries, and access to the log."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis_url is not None
        self.namespace = settings.database
        self.redis: Redis = Redis.from_url(settings.redis_url)
        self.bus = Bus(settings.redis_url, settings.database, max_entries=1000)
        self.events: list[Event] = []
        self.resets: list[Cursor] = []
        self.presence: list[bytes] = []
        self.consumer = LogConsumer(self.bus, self)
        self.versions = 0

    def deliver(self, event: Event, *, logged: bool = True) -> None:
        """Record an event."""
        self.events.append(event)

    def reset(self, position: Cursor) -> None:
        """Record a reset."""
        self.resets.append(position)

    def receive_presence(self, message: bytes) -> None:
        """Record a message of the presence channel."""
        self.presence.append(message)

    async def append(self, count: int = 1) -> None:
        """Append events of note 1."""
        for _ in range(count):
            self.versions += 1
            await self.bus.append(
                LogEntry(
                    "1", self.versions, b'{"type":"note.deleted","cursor":"', b'","id":1,"version":%d}' % self.versions
                )
            )

    async def append_unpublished(self, *offsets: int) -> None:
        """Append events of note 1 without publishing them, as if the messages were lost."""
        for offset in offsets:
            cursor = f"{self.consumer.position.epoch}:{offset}"
            payload = f'{{"type":"note.deleted","cursor":"{cursor}","id":1,"version":{offset}}}'
            await self.redis.xadd(f"{{{self.namespace}}}:log", {"e": payload}, id=f"{offset}-0")
        await self.redis.hset(f"{{{self.namespace}}}:meta", "top", str(offsets[-1]))

    async def wait_for_offsets(self, *offsets: int) -> None:
        """Wait until exactly the events with these offsets are delivered."""
        await eventually(lambda: [event.cursor.offset for event in self.events] == list(offsets))


@pytest.fixture
async def bench(settings: Settings) -> AsyncIterator[ConsumerBench]:
    bench = ConsumerBench(settings)
    async with running({"append": bench.bus.run, "consume": bench.consumer.run}):
        await bench.consumer.ready()
        await eventually(lambda: bench.consumer.connected)
        assert len(bench.resets) == 1, "the first connection resets earlier clients"
        bench.resets.clear()
        yield bench
    await bench.bus.aclose()
    await bench.redis.aclose()


async def test_events_are_delivered_once_and_in_order(bench: ConsumerBench) -> None:
    await bench.append(50)
    await bench.wait_for_offsets(*range(1, 51))
    assert bench.consumer.position == bench.events[-1].cursor
    assert bench.resets == []


async def test_position_before_the_first_connection_is_unknown(settings: Settings) -> None:
    bench = ConsumerBench(settings)
    assert str(bench.consumer.position) == "none:0"
    assert not bench.consumer.connected
    await bench.bus.aclose()
    await bench.redis.aclose()


async def test_gap_in_the_channel_is_filled_from_the_log(bench: ConsumerBench) -> None:
    await bench.append(2)
    await bench.wait_for_offsets(1, 2)
    await bench.append_unpublished(3, 4)
    bench.versions = 4
    await bench.append()
    await bench.wait_for_offsets(1, 2, 3, 4, 5)
    assert bench.resets == []


@pytest.mark.slow
async def test_event_missing_on_the_channel_is_read_from_the_log(bench: ConsumerBench) -> None:
    await bench.append()
    await bench.wait_for_offsets(1)
    await bench.append_unpublished(2)
    await bench.wait_for_offsets(1, 2)
    assert bench.resets == []


async def test_lost_log_causes_a_reset(bench: ConsumerBench) -> None:
    await bench.append(3)
    await bench.wait_for_offsets(1, 2, 3)
    await bench.redis.flushdb()
    await bench.append(1)
    await eventually(lambda: bench.resets)
    assert bench.resets[-1].epoch != bench.events[0].cursor.epoch
    await bench.append(2)
    await eventually(lambda: bench.consumer.position.offset == 3)


async def test_no_event_is_lost_when_connections_drop(bench: ConsumerBench) -> None:
    for _ in range(5):
        await bench.append(3)
        await bench.redis.client_kill_filter(_type="pubsub")
        with suppress(Exception):
            await bench.append(3)
    await eventually(lambda: bench.consumer.position.offset == (bench.events and bench.versions))
    offsets = [event.cursor.offset for event in bench.events]
    assert offsets == list(range(1, len(offsets) + 1))
    assert bench.resets == []


async def test_invalid_message_on_the_channel_is_ignored(bench: ConsumerBench) -> None:
    await bench.redis.publish(bench.bus.feed, b"nonsense \xff")
    await bench.append()
    await bench.wait_for_offsets(1)
    assert bench.resets == []


async def test_repeated_event_is_dropped(bench: ConsumerBench) -> None:
    await bench.append(2)
    await bench.wait_for_offsets(1, 2)
    await bench.redis.publish(bench.bus.feed, bench.events[0].full.text)
    await bench.append()
    await bench.wait_for_offsets(1, 2, 3)


async def test_presence_message_is_passed_to_its_handler(bench: ConsumerBench) -> None:
    await bench.bus.publish(bench.bus.presence, b"presence")
    await eventually(lambda: bench.presence == [b"presence"])
