"""A subscriber with its own transport: it sends everything once and in order, even if the transport is full."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from realtime.auth.permissions import UNRESTRICTED
from realtime.core.close_codes import CloseCode
from realtime.core.frames import Frame, FrameBatch, framed
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Event
from realtime.feed.hub import ALL_NOTES, FLUSH_DELAY_ITERATIONS, Hub
from realtime.feed.subscriber import MAX_BATCH_BYTES, Subscriber, SubscriberClosed
from tests.support.harness import eventually

SIZE = 1000


class MemoryTransport:
    """An in-memory transport with a limited buffer."""

    def __init__(self, capacity: int = 10**9) -> None:
        self.capacity = capacity
        self.client: Subscriber | None = None
        self.writes: list[bytes] = []
        self.full = False
        self.buffered = 0

    def write(self, data: bytes) -> None:
        assert not self.full
        self.writes.append(data)
        self.buffered += len(data)
        if self.buffered > self.capacity:
            self.full = True
            assert self.client is not None
            self.client.pause()  # in the same call, as transports do

    def send(self, packet: FrameBatch, limit: int) -> bool:
        raise NotImplementedError

    def probe(self) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        """Empty the buffer, as if the client had received everything."""
        self.buffered = 0
        if self.full:
            self.full = False
            assert self.client is not None
            self.client.resume()

    @property
    def texts(self) -> list[str]:
        return [text for data in self.writes for text in unframe(data)]


def unframe(data: bytes) -> Iterable[str]:
    while data:
        wide = {126: 2, 127: 8}.get(data[1], 0)
        size = int.from_bytes(data[2 : 2 + wide]) if wide else data[1]
        yield data[2 + wide : 2 + wide + size].decode().rstrip(".")
        data = data[2 + wide + size :]


def frame_of(text: str, key: object = None, version: int = 0) -> Frame:
    return Frame(text.encode().ljust(SIZE, b"."), key=key, version=version)


def event(offset: int, id: int = 1, size: int = SIZE) -> Event:
    cursor = Cursor("e", offset)
    full, slim = (
        Frame(f"{kind} {id} {offset}".encode().ljust(size, b"."), key=("note", id), version=offset, cursor=str(cursor))
        for kind in ("full", "slim")
    )
    return Event(id, cursor, full, slim)


@pytest.fixture
async def hub() -> Hub:
    return Hub(budget=10 * SIZE, stall_seconds=10)


def connect_transport(
    hub: Hub, capacity: int = 10**9, notes: frozenset[int] | None = None, *, live: bool = True
) -> MemoryTransport:
    wire = MemoryTransport(capacity)
    wire.client = hub.join(notes, content=True, principal=UNRESTRICTED)
    wire.client.connect(wire)
    if live:
        wire.client.start()
    return wire


def client_of(wire: MemoryTransport) -> Subscriber:
    assert wire.client is not None
    return wire.client


def publish(hub: Hub, *events: Event) -> None:
    for item in events:
        hub.publish(item)
    hub.flush()


async def test_sent_frames_precede_queued_and_later_events(hub: Hub) -> None:
    wire = connect_transport(hub, live=False)
    publish(hub, event(1))
    await client_of(wire).send([frame_of("missed"), frame_of("ready")])
    publish(hub, event(2))
    assert wire.texts == ["missed", "ready"]
    client_of(wire).start()
    publish(hub, event(3))
    client_of(wire).offer(frame_of("presence"))
    assert wire.texts == ["missed", "ready", "full 1 1", "full 1 2", "full 1 3", "presence"]


async def test_send_waits_for_a_full_transport_and_keeps_the_order(hub: Hub) -> None:
    wire = connect_transport(hub, MAX_BATCH_BYTES, live=False)
    sending = asyncio.create_task(client_of(wire).send([frame_of(f"missed {number}") for number in range(200)]))
    publish(hub, event(1))
    for _ in range(10):
        await asyncio.sleep(0)
        wire.drain()
    await sending
    assert max(map(len, wire.writes)) <= MAX_BATCH_BYTES + 100 * 4
    wire.full = True
    client_of(wire).start()
    publish(hub, event(2))
    wire.drain()
    assert wire.texts == [*(f"missed {number}" for number in range(200)), "full 1 1", "full 1 2"]


async def test_send_raises_when_the_client_is_closed(hub: Hub) -> None:
    wire = connect_transport(hub, live=False)
    wire.full = True
    sending = asyncio.create_task(client_of(wire).send([frame_of("missed")]))
    await asyncio.sleep(0)
    client_of(wire).close(CloseCode.RESUME)
    with pytest.raises(SubscriberClosed) as closed:
        await sending
    assert closed.value.code is CloseCode.RESUME
    client_of(wire).start()
    assert wire.writes == []
    assert client_of(wire) not in client_of(wire).subscription.ready


async def test_fan_out_that_fills_the_transport_is_not_repeated(hub: Hub) -> None:
    wire, other = connect_transport(hub, 2 * SIZE), connect_transport(hub)
    publish(hub, event(1), event(2), event(3))
    assert wire.full
    publish(hub, event(4))
    wire.drain()
    publish(hub, event(5))
    assert wire.texts == other.texts == [f"full 1 {offset}" for offset in range(1, 6)]


async def test_slow_subscribers_receive_every_event_once_and_in_order(hub: Hub) -> None:
    hub.budget = 10**9
    rng = random.Random(1)
    wires = [connect_transport(hub, rng.randrange(1, 20) * SIZE) for _ in range(20)]
    for offset in range(1, 500):
        hub.publish(event(offset, id=offset % 3))
        if rng.random() < 0.3:
            hub.flush()
        for wire in wires:
            if rng.random() < 0.05:
                wire.drain()
    hub.flush()
    for wire in wires:
        wire.capacity = 10**9
        wire.drain()
        assert wire.texts == [f"full {offset % 3} {offset}" for offset in range(1, 500)]
        assert client_of(wire) in client_of(wire).subscription.ready


async def test_slow_subscriber_queues_only_the_latest_event_per_note(hub: Hub) -> None:
    wire = connect_transport(hub, 1)
    publish(hub, event(1))
    for offset in range(2, 60):
        publish(hub, event(offset, id=offset % 2))
        assert client_of(wire).pending_bytes <= 10 * SIZE
    wire.capacity = 10**9
    wire.drain()
    assert wire.texts == ["full 1 1", "full 0 58", "full 1 59"]
    publish(hub, event(60), event(61))
    assert wire.texts[3:] == ["full 1 60", "full 1 61"]


async def test_subscriber_over_budget_is_closed_as_too_slow(hub: Hub) -> None:
    wire, other = connect_transport(hub, 1), connect_transport(hub)
    publish(hub, event(1))
    publish(hub, *(event(offset, id=offset) for offset in range(2, 40)))
    assert client_of(wire).closing.result() is CloseCode.TOO_SLOW
    assert client_of(wire).pending_bytes == 0
    wire.drain()
    assert wire.texts == ["full 1 1"]
    assert len(other.texts) == 39
    hub.leave(client_of(wire))
    assert hub.stats.too_slow_count == 1


async def test_closed_subscriber_receives_no_more_frames(hub: Hub) -> None:
    wire, other = connect_transport(hub), connect_transport(hub)
    client_of(wire).close(CloseCode.PERMISSION_GONE)
    client_of(wire).close(CloseCode.RESUME)
    publish(hub, event(1))
    hub.reset(frame_of("reset"))
    client_of(wire).offer(frame_of("presence"))
    client_of(wire).resume()
    assert client_of(wire).closing.result() is CloseCode.PERMISSION_GONE
    assert wire.writes == []
    assert other.texts == ["full 1 1", "reset"]
    hub.leave(client_of(wire))
    hub.leave(client_of(wire))
    assert list(hub.clients()) == [client_of(other)]


async def test_only_a_subscriber_without_progress_is_closed(hub: Hub) -> None:
    stalled, slow, caught_up, idle = (connect_transport(hub, capacity) for capacity in (1, 1, 1, 10**9))
    publish(hub, event(1), event(2))
    for second in range(60):
        slow.buffered -= 1
        if second == 9:
            caught_up.capacity = 10**9
            caught_up.drain()
        if second == 11:
            caught_up.full = True
            client_of(caught_up).pause()
            caught_up.buffered = 100
        if second == 20:
            caught_up.drain()
        hub.close_stalled(1000.0 + second)
        assert client_of(stalled).closing.done() is (second > 10), second
        for wire in (slow, caught_up, idle):
            assert not client_of(wire).closing.done(), second


async def test_stalled_subscriber_is_closed_before_it_is_live(hub: Hub) -> None:
    wire = connect_transport(hub, 1, live=False)
    await client_of(wire).send([frame_of("missed")])
    for now in (0.0, 5.0, 10.5):
        hub.close_stalled(now)
    assert client_of(wire).closing.result() is CloseCode.TOO_SLOW


async def test_reset_replaces_the_queues_of_slow_subscribers(hub: Hub) -> None:
    behind, early, live = connect_transport(hub, 1), connect_transport(hub, live=False), connect_transport(hub)
    publish(hub, event(1), event(2))
    publish(hub, event(3))
    hub.publish(event(4))
    hub.reset(frame_of("reset"))
    publish(hub, event(5))
    behind.capacity = 10**9
    behind.drain()
    client_of(early).start()
    assert behind.texts == ["full 1 1", "full 1 2", "reset", "full 1 5"]
    assert early.texts == ["reset", "full 1 5"]
    assert live.texts == ["full 1 1", "full 1 2", "full 1 3", "full 1 4", "reset", "full 1 5"]


async def test_heartbeats_are_sent_only_to_subscribers_with_empty_queues(hub: Hub) -> None:
    full, early, waiting, idle = (
        connect_transport(hub, 1),
        connect_transport(hub, live=False),
        connect_transport(hub, live=False),
        connect_transport(hub),
    )
    client_of(full).offer(frame_of("a"))
    client_of(waiting).offer(frame_of("b"))
    for _ in range(hub.heartbeat_groups):
        hub.heartbeat(frame_of("beat"))
    assert client_of(full).pending_bytes == 0
    client_of(early).start()
    client_of(waiting).start()
    assert [wire.texts for wire in (full, early, waiting, idle)] == [["a"], ["beat"], ["b"], ["beat"]]


# Fan-out of the hub


async def test_pending_events_are_sent_before_other_frames(hub: Hub) -> None:
    wire = connect_transport(hub, notes=frozenset({1}))
    hub.set_admitted(client_of(wire), 1, True)
    hub.publish(event(1))
    hub.publish_presence(1, [frame_of("presence")], ())
    hub.publish(event(2))
    hub.reset(frame_of("reset"))
    hub.publish(event(3))
    for _ in range(hub.heartbeat_groups):
        hub.heartbeat(frame_of("beat"))
    hub.publish(event(4))
    other = connect_transport(hub, notes=frozenset({1}))
    assert wire.texts == ["full 1 1", "presence", "full 1 2", "reset", "full 1 3", "beat", "full 1 4"]
    assert other.texts == []


async def test_events_of_several_loop_turns_share_one_write(hub: Hub) -> None:
    wire = connect_transport(hub)
    for offset in range(1, FLUSH_DELAY_ITERATIONS):
        hub.publish(event(offset))
        await asyncio.sleep(0)
    assert wire.writes == []
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(wire.writes) == 1
    assert wire.writes == [
        b"".join(framed(0x81, event(offset).full.data) for offset in range(1, FLUSH_DELAY_ITERATIONS))
    ]


async def test_events_over_the_batch_limit_are_sent_at_once(hub: Hub) -> None:
    wire = connect_transport(hub)
    hub.publish(event(1, size=MAX_BATCH_BYTES))
    assert wire.texts == []
    hub.publish(event(2))
    assert wire.texts == ["full 1 1", "full 1 2"]
    await asyncio.sleep(0)
    assert len(wire.writes) == 1


async def test_event_during_the_flush_delay_is_sent_at_its_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = connect_transport(hub)
    monkeypatch.setattr(hub.flush_delay, "next_delay", lambda started, ended, events: 0.02)
    publish(hub, event(1))
    hub.publish(event(2))
    for _ in range(3 * FLUSH_DELAY_ITERATIONS):
        await asyncio.sleep(0)
    hub.publish(event(3))
    assert len(wire.writes) == 1
    await eventually(lambda: len(wire.writes) == 2)
    assert wire.texts == ["full 1 1", "full 1 2", "full 1 3"]


async def test_subscription_is_removed_with_its_last_client(hub: Hub) -> None:
    wires = [connect_transport(hub, notes=notes) for notes in (None, None, frozenset({1, 2}), frozenset({2}))]
    hub.publish(event(1, id=2))
    for wire in wires[::2]:
        hub.leave(client_of(wire))
    hub.flush()
    assert [wire.texts for wire in wires] == [[], ["full 2 1"], [], ["full 2 1"]]
    assert len(hub) == 2
    assert [len(hub.subscriptions_of(key)) for key in (ALL_NOTES, 2)] == [1, 1]
    assert hub.subscriptions_of(1) == (), "not even an empty index entry is left"
    for wire in wires[1::2]:
        hub.leave(client_of(wire))
    assert len(hub) == 0
    assert [hub.subscriptions_of(key) for key in (ALL_NOTES, 1, 2)] == [(), (), ()]
    publish(hub, event(2, id=2))
    again = connect_transport(hub, notes=frozenset({2}))
    publish(hub, event(3, id=2))
    assert again.texts == ["full 2 3"]
