"""The relay between workers: messages arrive once, and a worker detects lost messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from realtime.core.tasks import running
from realtime.eventlog.bus import Bus
from realtime.rooms import crdt, relay
from realtime.rooms.relay import Relay, RelayKind, RelayMessage
from realtime.settings import Settings
from tests.support.harness import eventually


class Ear:
    """A relay that records the messages that it receives."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.heard: list[RelayMessage] = []
        self.holes = 0
        self.relay = Relay(bus, self.heard.append, self._hole)

    def _hole(self) -> None:
        self.holes += 1


@asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[Ear]:
    assert settings.redis_url
    bus = Bus(settings.redis_url, settings.database, max_entries=1000)
    ear = Ear(bus)
    try:
        async with running({"send": ear.relay.run_publish, "listen": ear.relay.run_receive}):
            await eventually(lambda: ear.holes)  # it begins not knowing what it missed
            yield ear
    finally:
        await bus.aclose()


def told(row: str) -> RelayMessage:
    return RelayMessage(RelayKind.UPDATES, 1, row, [b"update"], ["Ada"])


async def test_others_hear_it_once_and_not_oneself(settings: Settings) -> None:
    async with listening(settings) as one, listening(settings) as other:
        for number in range(100):
            one.relay.enqueue(told(str(number)))
        await eventually(lambda: len(other.heard) == 100)
        assert [each.row for each in other.heard] == list(map(str, range(100)))
        await eventually(lambda: one.relay.healthy and other.relay.healthy)
        assert one.heard == []
        assert (one.holes, other.holes) == (1, 1)


async def test_a_lost_message_is_a_hole(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(settings) as one, listening(settings) as other:
        one.relay.enqueue(told("heard"))
        await eventually(lambda: other.heard)

        async def lost(*_: object) -> None:
            dropped.set()

        dropped = asyncio.Event()
        with monkeypatch.context() as patch:
            patch.setattr(one.bus, "publish", lost)
            one.relay.enqueue(told("lost"))
            await dropped.wait()
        one.relay.enqueue(told("after"))
        await eventually(lambda: other.holes == 2)
        await eventually(lambda: [each.row for each in other.heard] == ["heard", "after"])


async def test_deaf_is_not_sound_and_who_ended_is_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(relay, "SILENCE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(relay, "FORGET_SENDER_SECONDS", 1.5)
    async with listening(settings) as one:
        assert not one.relay.healthy or one.relay._senders
        async with listening(settings):
            await eventually(lambda: len(one.relay._senders) == 2 and one.relay.healthy)
        await eventually(lambda: not one.relay.healthy)
        await eventually(lambda: one.relay.healthy)  # it ended, and nobody came


async def test_what_cannot_be_read_stops_nobody(settings: Settings) -> None:
    async with listening(settings) as one, listening(settings) as other:
        for junk in (b"", b"\xff" * 20, b"\1x\1\x09", b"\1x\2\0\1\5abc"):
            await one.bus.publish(one.bus.sync, junk)
        one.relay.enqueue(told("after"))
        await eventually(lambda: [each.row for each in other.heard] == ["after"])


def test_what_is_told_is_read_back() -> None:
    told = RelayMessage(RelayKind.UPDATES, 7, "row", [b"a", crdt.EMPTY_UPDATE], ["Ada"], 3)
    sender, serial, found = relay._decode(b"\1x\5" + told.encode() + told.encode())
    assert (sender, serial, list(found)) == ("x", 5, [told, told])
