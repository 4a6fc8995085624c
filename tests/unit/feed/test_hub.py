"""The hub's queues: bounded, in order, and never blocking."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED, Principal
from realtime.core.close_codes import CloseCode
from realtime.core.frames import Frame
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.event import Audience, Event
from realtime.feed.hub import Hub
from realtime.feed.subscriber import MAX_BATCH_BYTES, Subscriber, SubscriberClosed

SIZE = 1000


def event(offset: int, id: int = 1, version: int | None = None, size: int = SIZE) -> Event:
    cursor = Cursor("e", offset)
    key = ("note", id)
    version = offset if version is None else version
    full = Frame(f"full {id} {version}".encode(), key=key, version=version, cursor=str(cursor))
    full.size = size
    slim = Frame(f"slim {id} {version}".encode(), key=key, version=version, cursor=str(cursor))
    return Event(id, cursor, full, slim)


@pytest.fixture
async def hub() -> Hub:
    return Hub(budget=10 * SIZE, stall_seconds=10)


async def queued_texts(hub: Hub, client: Subscriber) -> list[str]:
    """Return the texts of all frames that are queued for a client."""
    hub.flush()
    texts = []
    while not client.idle:
        texts += [frame.text for frame in await client.next_batch()] if client.pending_bytes else []
        client.busy_since = None
    return texts


async def test_subscriber_receives_every_event_in_order(hub: Hub) -> None:
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    for offset in range(1, 6):
        hub.publish(event(offset))
    assert await queued_texts(hub, client) == [f"full 1 {version}" for version in range(1, 6)]


async def test_queued_frames_of_a_lost_note_are_dropped(hub: Hub) -> None:
    principal = Principal(frozenset({"@ann"}), "ann")
    shared, lost = Audience(1, frozenset({"@ann"}), {}), Audience(3, frozenset(), {"@ann": 3})
    slow = hub.join(None, content=True, principal=principal)
    hub.set_admitted(slow, 1, True)
    for offset, id in enumerate((1, 2, 1), 1):
        hub.publish(replace(event(offset, id), audience=shared))
    hub.publish_presence(
        1, [Frame(b"presence 1", key=("presence", 1)), Frame(b"presence 2", key=("presence", 1, "a"))], [slow]
    )
    hub.publish(replace(event(4), audience=lost, gone=Frame(b"gone 1", key=("note", 1), version=3)))
    assert await queued_texts(hub, slow) == ["full 2 2", "gone 1"]
    assert slow.pending_bytes == 0


async def test_subscribers_receive_events_of_their_filter_and_variant(hub: Hub) -> None:
    everything, one, slim = (
        hub.join(None, content=True, principal=UNRESTRICTED),
        hub.join(frozenset({2, 3}), content=True, principal=UNRESTRICTED),
        hub.join(None, content=False, principal=UNRESTRICTED),
    )
    hub.publish(event(1, id=1))
    hub.publish(event(2, id=2))
    assert await queued_texts(hub, everything) == ["full 1 1", "full 2 2"]
    assert await queued_texts(hub, one) == ["full 2 2"]
    assert await queued_texts(hub, slim) == ["slim 1 1", "slim 2 2"]
    assert hub.stats.deliveries == 5


async def test_queue_over_budget_keeps_the_latest_event_of_each_note(hub: Hub) -> None:
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    for offset in range(1, 100):
        hub.publish(event(offset, id=offset % 4 + 1))
        assert client.pending_bytes <= 10 * SIZE
    assert await queued_texts(hub, client) == ["full 1 96", "full 2 97", "full 3 98", "full 4 99"]
    hub.publish(event(100))
    hub.publish(event(101))
    assert await queued_texts(hub, client) == ["full 1 100", "full 1 101"], (
        "a subscriber that caught up receives every event again"
    )


async def test_conflation_keeps_the_newer_version(hub: Hub) -> None:
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    for offset in range(1, 12):
        hub.publish(event(offset, version=offset))
    hub.publish(event(12, version=3))
    assert await queued_texts(hub, client) == ["full 1 11"]


async def test_subscriber_over_twice_the_budget_is_closed(hub: Hub) -> None:
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    for offset in range(1, 30):
        hub.publish(event(offset, id=offset))
    hub.flush()
    assert client.closing.result() is CloseCode.TOO_SLOW
    assert client.pending_bytes == 0
    with pytest.raises(SubscriberClosed):
        await client.next_batch()


async def test_single_event_over_budget_is_delivered(hub: Hub) -> None:
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    hub.publish(event(1, size=100 * SIZE))
    assert await queued_texts(hub, client) == ["full 1 1"]


async def test_batch_is_limited_in_bytes(hub: Hub) -> None:
    hub.budget = 10 * MAX_BATCH_BYTES
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    for offset in range(1, 200):
        hub.publish(event(offset))
    frames = await client.next_batch()
    assert MAX_BATCH_BYTES - SIZE < sum(frame.size for frame in frames) <= MAX_BATCH_BYTES


async def test_stalled_client_is_closed_and_busy_client_is_not(hub: Hub) -> None:
    stalled, busy, idle = (hub.join(None, content=True, principal=UNRESTRICTED) for _ in range(3))
    hub.publish(event(1))
    for client in (stalled, busy):
        client.start_write((await client.next_batch())[0])
    idle.clear()
    now = asyncio.get_running_loop().time()
    assert stalled.busy_since is not None
    stalled.busy_since -= 11
    hub.close_stalled(now)
    assert stalled.closing.result() is CloseCode.TOO_SLOW
    assert not busy.closing.done()
    assert not idle.closing.done()


async def test_reset_replaces_queued_events(hub: Hub) -> None:
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    hub.publish(event(1))
    hub.reset(Frame(b"reset", cursor="f:0"))
    assert await queued_texts(hub, client) == ["reset"]
    assert hub.stats.resets == 1


async def test_heartbeats_to_idle_clients_are_spread_over_the_interval(hub: Hub) -> None:
    clients = [hub.join(None, content=True, principal=UNRESTRICTED) for _ in range(30)]
    hub.publish(event(1))
    for client in clients[:26]:
        client.clear()
    got: list[int] = []
    for beat in range(1, hub.heartbeat_groups + 1):
        hub.heartbeat(Frame(b"heartbeat"))
        got += [beat for client in clients[:26] if "heartbeat" in await queued_texts(hub, client)]
    assert len(got) == 26, "one heartbeat per client and interval"
    assert min(got) > 0.8 * hub.heartbeat_groups, "the first heartbeat is almost an interval away"
    assert set(got) == set(range(min(got), hub.heartbeat_groups + 1)), "spread over the slots"
    assert [await queued_texts(hub, client) for client in clients[26:]] == [["full 1 1"]] * 4, (
        "busy clients receive none"
    )


async def test_presence_is_sent_to_note_subscribers_and_watchers(hub: Hub) -> None:
    everything, other, subscribed, watching = (
        hub.join(None, content=True, principal=UNRESTRICTED),
        hub.join(frozenset({2}), content=True, principal=UNRESTRICTED),
        hub.join(frozenset({1}), content=True, principal=UNRESTRICTED),
        hub.join(None, content=True, principal=UNRESTRICTED),
    )
    hub.publish_presence(1, [Frame(b"presence")], [watching])
    assert [await queued_texts(hub, client) for client in (everything, other, subscribed, watching)] == [
        [],
        [],
        ["presence"],
        ["presence"],
    ]


async def test_client_that_loses_a_note_receives_no_presence(hub: Hub) -> None:
    client = hub.join(frozenset({1}), content=True, principal=ANONYMOUS)
    hub.set_admitted(client, 1, True)
    hub.publish(event(1))
    hub.publish_presence(1, [Frame(b"presence")], ())
    assert await queued_texts(hub, client) == []


async def test_event_reaches_each_subscriber_with_access_once(hub: Hub) -> None:
    """A subscription to all notes is found by each of its principal keys, also by several and by a lost one."""
    keys: list[frozenset[str | None]] = [frozenset({"*"}), frozenset({"*", "@ann"}), frozenset({"*", "@bob"})]
    everyone, ann, bob = (hub.join(None, content=True, principal=Principal(own)) for own in keys)
    subscribed = hub.join(frozenset({1}), content=True, principal=Principal(keys[1]))
    gone = Frame(b"gone 1", key=("note", 1), version=2)
    public, private = Audience(1, frozenset({"*", "@ann"}), {}), Audience(2, frozenset({"@ann"}), {"*": 2, "@bob": 2})
    hub.publish(replace(event(1), audience=public, gone=gone))
    hub.flush()
    hub.publish(replace(event(2), audience=private, gone=gone))
    assert [await queued_texts(hub, client) for client in (everyone, bob)] == [["gone 1"]] * 2
    assert [await queued_texts(hub, client) for client in (ann, subscribed)] == [["full 1 1", "full 1 2"]] * 2


async def test_event_ends_the_access_of_clients_that_subscribe_to_other_notes(hub: Hub) -> None:
    clients = [hub.join(frozenset({2}), content=True, principal=Principal(frozenset({key}))) for key in ("@ann", "*")]
    for client in clients:
        hub.set_admitted(client, 1, True)
    hub.publish(replace(event(1), audience=Audience(1, frozenset({"@ann"}), {})))
    hub.flush()
    assert [client.sees(1) for client in clients] == [True, False]
    assert hub.clear_admitted(1) == clients[:1]


async def test_client_that_left_is_not_admitted(hub: Hub) -> None:
    """The permission of a client can be read while it leaves."""
    client = hub.join(None, content=True, principal=ANONYMOUS)
    hub.set_admitted(client, 1, False)
    hub.leave(client)
    hub.set_admitted(client, 1, True)
    assert not client.sees(1)
    assert hub.clear_admitted(1) == []


async def test_waiting_client_receives_a_published_event(hub: Hub) -> None:
    client = hub.join(None, content=True, principal=UNRESTRICTED)
    taking = asyncio.create_task(client.next_batch())
    await asyncio.sleep(0)
    hub.publish(event(1))
    assert [frame.text for frame in await taking] == ["full 1 1"]


async def test_client_that_left_receives_no_events(hub: Hub) -> None:
    clients = [
        hub.join(None, content=True, principal=UNRESTRICTED),
        hub.join(frozenset({1, 2}), content=True, principal=UNRESTRICTED),
    ]
    assert len(hub) == 2
    for client in clients:
        hub.leave(client)
        hub.leave(client)
    hub.publish(event(1))
    assert len(hub) == 0
    assert hub.stats.deliveries == 0


async def test_drain_closes_clients_over_the_given_duration(hub: Hub) -> None:
    clients = [hub.join(None, content=True, principal=UNRESTRICTED) for _ in range(10)]
    draining = asyncio.create_task(hub.drain(CloseCode.DRAIN, 0.3))
    await asyncio.sleep(0)
    assert 0 < sum(client.closing.done() for client in clients) < 10
    await draining
    assert {client.closing.result() for client in clients} == {CloseCode.DRAIN}
