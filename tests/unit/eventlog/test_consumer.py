"""The consumer of the event log: every event once and in order or a reset, even if the channel loses messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from realtime.core.tasks import running
from realtime.eventlog.bus import Bus, LogEntry
from realtime.eventlog.codec import decode_event
from realtime.eventlog.consumer import ConsumerHandlers, LogConsumer
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Event
from realtime.settings import Settings
from tests.support.harness import eventually


class Follow:
    """A follower with what it handed out, and hands on the log."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis_url is not None
        self.namespace = settings.database
        self.redis: Redis = Redis.from_url(settings.redis_url)
        self.bus = Bus(settings.redis_url, settings.database, max_entries=1000)
        self.events: list[Event] = []
        self.resets: list[Cursor] = []
        self.presence: list[bytes] = []
        self.follower = LogConsumer(
            self.bus, ConsumerHandlers(decode_event, self.events.append, self.resets.append, self.presence.append)
        )
        self.versions = 0

    async def append(self, count: int = 1) -> None:
        """Appends events of note 1."""
        for _ in range(count):
            self.versions += 1
            await self.bus.append(
                LogEntry(
                    "1", self.versions, b'{"type":"note.deleted","cursor":"', b'","id":1,"version":%d}' % self.versions
                )
            )

    async def has(self, *offsets: int) -> None:
        """Waits until exactly these events were handed out."""
        await eventually(lambda: [event.cursor.offset for event in self.events] == list(offsets))


@pytest.fixture
async def follow(settings: Settings) -> AsyncIterator[Follow]:
    follow = Follow(settings)
    async with running({"append": follow.bus.run, "follow": follow.follower.run}):
        await follow.follower.ready()
        await eventually(lambda: follow.follower.connected)
        assert len(follow.resets) == 1, "with the first contact, who came before starts over"
        follow.resets.clear()
        yield follow
    await follow.bus.aclose()
    await follow.redis.aclose()


async def test_events_come_once_and_in_order(follow: Follow) -> None:
    await follow.append(50)
    await follow.has(*range(1, 51))
    assert follow.follower.position == follow.events[-1].cursor
    assert follow.resets == []


async def test_before_redis_is_reached_the_position_leads_to_a_reset(settings: Settings) -> None:
    follow = Follow(settings)
    assert str(follow.follower.position) == "none:0"
    assert not follow.follower.connected
    await follow.bus.aclose()
    await follow.redis.aclose()


async def test_hole_in_the_channel_is_filled_from_the_log(follow: Follow) -> None:
    await follow.append(2)
    await follow.has(1, 2)
    meta = f"{{{follow.namespace}}}:meta"
    # Appended but not published: exactly what a lost message looks like.
    epoch = follow.follower.position.epoch
    for offset in (3, 4):
        payload = f'{{"type":"note.deleted","cursor":"{epoch}:{offset}","id":1,"version":{offset}}}'
        await follow.redis.xadd(f"{{{follow.namespace}}}:log", {"e": payload}, id=f"{offset}-0")
    await follow.redis.hset(meta, "top", "4")
    follow.versions = 4
    await follow.append()
    await follow.has(1, 2, 3, 4, 5)
    assert follow.resets == []


async def test_channel_that_delivers_nothing_is_noticed(follow: Follow) -> None:
    await follow.append()
    await follow.has(1)
    epoch = follow.follower.position.epoch
    payload = f'{{"type":"note.deleted","cursor":"{epoch}:2","id":1,"version":2}}'
    await follow.redis.xadd(f"{{{follow.namespace}}}:log", {"e": payload}, id="2-0")
    await follow.redis.hset(f"{{{follow.namespace}}}:meta", "top", "2")
    await follow.has(1, 2)
    assert follow.resets == []


async def test_log_that_was_lost_is_a_reset(follow: Follow) -> None:
    await follow.append(3)
    await follow.has(1, 2, 3)
    await follow.redis.flushdb()
    await follow.append(1)
    await eventually(lambda: follow.resets)
    assert follow.resets[-1].epoch != follow.events[0].cursor.epoch
    await follow.append(2)
    await eventually(lambda: follow.follower.position.offset == 3)


async def test_dropped_connections_lose_nothing(follow: Follow) -> None:
    for _ in range(5):
        await follow.append(3)
        await follow.redis.client_kill_filter(_type="pubsub")
        with suppress(Exception):
            await follow.append(3)
    await eventually(lambda: follow.follower.position.offset == (follow.events and follow.versions))
    offsets = [event.cursor.offset for event in follow.events]
    assert offsets == list(range(1, len(offsets) + 1))
    assert follow.resets == []


async def test_nonsense_on_the_channel_harms_nothing(follow: Follow) -> None:
    await follow.redis.publish(follow.bus.feed, b"nonsense \xff")
    await follow.append()
    await follow.has(1)
    assert follow.resets == []


async def test_repeats_are_dropped(follow: Follow) -> None:
    await follow.append(2)
    await follow.has(1, 2)
    await follow.redis.publish(follow.bus.feed, follow.events[0].full.text)
    await follow.append()
    await follow.has(1, 2, 3)


async def test_presence_is_handed_on(follow: Follow) -> None:
    await follow.bus.publish(follow.bus.presence, b"somebody")
    await eventually(lambda: follow.presence == [b"somebody"])
