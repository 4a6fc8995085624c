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


class RecordingRelay:
    """A relay that records the messages that it receives."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.received: list[RelayMessage] = []
        self.gaps = 0
        self.relay = Relay(bus, self)

    def receive_relayed(self, message: RelayMessage) -> None:
        """Record a message."""
        self.received.append(message)

    def relay_interrupted(self) -> None:
        """Count a gap."""
        self.gaps += 1


@asynccontextmanager
async def open_relay(settings: Settings) -> AsyncIterator[RecordingRelay]:
    assert settings.redis_url
    bus = Bus(settings.redis_url, settings.database, max_entries=1000)
    recorder = RecordingRelay(bus)
    try:
        async with running({"send": recorder.relay.run_publish, "listen": recorder.relay.run_receive}):
            await eventually(lambda: recorder.gaps)  # the subscription starts with a gap
            yield recorder
    finally:
        await bus.aclose()


def updates_message(row: str) -> RelayMessage:
    return RelayMessage(RelayKind.UPDATES, 1, row, [b"update"], ["Ada"])


async def test_message_reaches_other_workers_once_and_not_its_sender(settings: Settings) -> None:
    async with open_relay(settings) as one, open_relay(settings) as other:
        for number in range(100):
            one.relay.enqueue(updates_message(str(number)))
        await eventually(lambda: len(other.received) == 100)
        assert [each.row for each in other.received] == list(map(str, range(100)))
        await eventually(lambda: one.relay.healthy and other.relay.healthy)
        assert one.received == []
        assert (one.gaps, other.gaps) == (1, 1)


async def test_lost_message_is_reported_as_a_gap(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_relay(settings) as one, open_relay(settings) as other:
        one.relay.enqueue(updates_message("heard"))
        await eventually(lambda: other.received)

        async def lost(*_: object) -> None:
            dropped.set()

        dropped = asyncio.Event()
        with monkeypatch.context() as patch:
            patch.setattr(one.bus, "publish", lost)
            one.relay.enqueue(updates_message("lost"))
            await dropped.wait()
        one.relay.enqueue(updates_message("after"))
        await eventually(lambda: other.gaps == 2)
        await eventually(lambda: [each.row for each in other.received] == ["heard", "after"])


async def test_relay_is_unhealthy_until_an_ended_worker_is_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(relay, "SILENCE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(relay, "FORGET_SENDER_SECONDS", 1.5)
    async with open_relay(settings) as one:
        async with open_relay(settings):
            await eventually(lambda: one.relay.other_workers == 1 and one.relay.healthy)
        await eventually(lambda: not one.relay.healthy)
        await eventually(lambda: one.relay.healthy)  # the ended worker is forgotten


async def test_invalid_message_does_not_stop_later_messages(settings: Settings) -> None:
    async with open_relay(settings) as one, open_relay(settings) as other:
        for junk in (b"", b"\xff" * 20, b"\1x\1\x09", b"\1x\2\0\1\5abc"):
            await one.bus.publish(one.bus.sync, junk)
        one.relay.enqueue(updates_message("after"))
        await eventually(lambda: [each.row for each in other.received] == ["after"])


def test_encoded_messages_are_decoded_unchanged() -> None:
    message = RelayMessage(RelayKind.UPDATES, 7, "row", [b"a", crdt.EMPTY_UPDATE], ["Ada"], 3)
    sender, serial, found = relay.decode(b"\1x\5" + message.encode() + message.encode())
    assert (sender, serial, list(found)) == ("x", 5, [message, message])
