"""Presence: sent as changes, bounded, merged over workers, and expired if it is not renewed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED, Principal
from realtime.core.tasks import running
from realtime.errors import BusUnavailable, TooManyRequests
from realtime.feed import presence as module
from realtime.feed.hub import Hub
from realtime.feed.presence import MAX_CHANGES_BURST, MAX_NOTES, MAX_PEOPLE, Presence, PresenceEntry, PresenceMessage
from realtime.feed.subscriber import Subscriber
from tests.support.harness import Json, eventually, take_presence


async def discard(data: bytes) -> None:
    """Drop a message to the other workers."""


@pytest.fixture
async def hub() -> Hub:
    return Hub(budget=2**20, stall_seconds=10)


class Watcher:
    """A subscriber to notes, with the people at each note according to the messages it received."""

    def __init__(self, hub: Hub, *notes: int) -> None:
        self.client = hub.join(frozenset(notes), content=True, principal=UNRESTRICTED)
        self.people: dict[int, dict[str, Json]] = {}
        self.frames: list[Json] = []

    async def wait_for_people(self, note: int, *people: Any) -> None:
        """Read messages until exactly these people are at a note."""
        async with asyncio.timeout(5):
            while sorted(self.people.get(note, {}).values(), key=str) != sorted(people, key=str):
                for frame in await self.client.next_batch():
                    self.frames.append(json.loads(frame.text))
                    take_presence(self.people, self.frames[-1])


def join_client(hub: Hub, principal: Principal = UNRESTRICTED) -> Subscriber:
    return hub.join(None, content=True, principal=principal)


def presence_message(worker: str, note: int, people: dict[str, str | None], *, whole: bool = True) -> bytes:
    states = {
        id: None if name is None else PresenceEntry(state={"name": name}, user=False) for id, name in people.items()
    }
    return PresenceMessage(worker=worker, note=note, people=states, whole=whole).model_dump_json().encode()


async def test_watcher_receives_people_of_all_workers(hub: Hub) -> None:
    presence, watcher = Presence(hub, discard), Watcher(hub, 1, 2)
    client = join_client(hub)
    async with running({"presence": presence.run}):
        presence.set_state(client, 1, {"name": "Ann"})
        presence.receive(presence_message("b", 1, {"b1": "Ben", "b2": "Bea"}))
        presence.receive(presence_message("c", 2, {"c1": "Cid"}))
        await watcher.wait_for_people(1, {"name": "Ann"}, {"name": "Ben"}, {"name": "Bea"})
        presence.receive(presence_message("b", 1, {"b2": None, "b3": "Bob"}, whole=False))
        await watcher.wait_for_people(1, {"name": "Ann"}, {"name": "Ben"}, {"name": "Bob"})
        presence.receive(presence_message("b", 1, {}))
        presence.leave(client)
        await watcher.wait_for_people(1)
        await watcher.wait_for_people(2, {"name": "Cid"})
    assert presence.people(2) == [{"name": "Cid"}]


async def test_presence_change_is_sent_instead_of_the_list(hub: Hub) -> None:
    presence, watcher = Presence(hub, discard), Watcher(hub, 1)
    clients = [join_client(hub) for _ in range(20)]
    async with running({"presence": presence.run}):
        for number, client in enumerate(clients):
            presence.set_state(client, 1, {"name": f"name {number}"})
        await watcher.wait_for_people(1, *({"name": f"name {number}"} for number in range(20)))
        seen = len(watcher.frames)
        presence.set_state(clients[0], 1, {"name": "Ann"})
        presence.set_state(clients[1], 1, {"name": "name 1"})  # no change
        await watcher.wait_for_people(1, {"name": "Ann"}, *({"name": f"name {number}"} for number in range(1, 20)))
    assert [frame["state"] for frame in watcher.frames[seen:]] == [{"name": "Ann"}]


async def test_presence_bytes_sent_to_each_client_are_limited(hub: Hub) -> None:
    """Each client receives at most 20 times the bytes that all clients send, even for the smallest states."""
    presence, watcher = Presence(hub, discard), Watcher(hub, 1)
    received = 0
    async with running({"presence": presence.run}):
        clients = [join_client(hub) for _ in range(60)]
        for round in range(10):
            for client in clients:
                state: module.State | None = None if round % 2 else {"a": round}
                received += len(json.dumps({"type": "presence", "id": 1, "state": state}))
                presence.set_state(client, 1, state)
            await watcher.wait_for_people(1, *([] if round % 2 else [{"a": round}] * 60))
    assert sum(len(json.dumps(frame)) for frame in watcher.frames) < 20 * received


async def test_new_viewer_receives_the_presence_list(hub: Hub) -> None:
    presence, watcher = Presence(hub, discard), Watcher(hub, 1)
    async with running({"presence": presence.run}):
        presence.set_state(join_client(hub), 1, {"name": "Ann"})
        await watcher.wait_for_people(1, {"name": "Ann"})
        late = join_client(hub)
        presence.set_state(late, 1, {"name": "Ben"})
        presence.set_state(late, 1, {"name": "Bea"})
        (frame,) = await late.next_batch()
        (person,) = json.loads(frame.text)["people"].values()
        assert person == {"name": "Ann"}
        assert frame.text == presence.frame(1).text


async def test_own_and_invalid_presence_messages_are_ignored(hub: Hub) -> None:
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    presence = Presence(hub, sent.put)
    presence.set_state(join_client(hub), 1, {"name": "Ann"})
    async with running({"presence": presence.run}):
        presence.receive(await sent.get())
        presence.receive(b"nonsense")
        assert presence.people(1) == [{"name": "Ann"}]
    await presence.aclose()
    last = PresenceMessage.model_validate_json(await sent.get())
    assert (last.people, last.whole) == ({}, True)


async def test_presence_changes_are_sent_to_other_workers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[PresenceMessage] = []

    def states() -> list[list[module.State | None]]:
        return [[None if person is None else person.state for person in message.people.values()] for message in sent]

    async def send(data: bytes) -> None:
        sent.append(PresenceMessage.model_validate_json(data))

    presence = Presence(hub, send)
    clients = [join_client(hub) for _ in range(2)]
    async with running({"presence": presence.run}):
        presence.set_state(clients[0], 1, {"name": "Ann"})
        await eventually(lambda: len(sent) == 1)
        presence.set_state(clients[1], 1, {"name": "Ben"})
        await eventually(lambda: len(sent) == 2)
        presence.set_state(clients[0], 1, None)
        await eventually(lambda: len(sent) == 3)
    assert states() == [[{"name": "Ann"}], [{"name": "Ben"}], [None]]
    monkeypatch.setattr(module, "ANNOUNCE_INTERVAL_SECONDS", 0.0)
    async with running({"presence": presence.run}):
        await eventually(lambda: sent[-1].whole)
    assert states()[-1] == [{"name": "Ben"}]


async def test_client_that_leaves_is_removed_from_all_its_notes(hub: Hub) -> None:
    presence, watcher = Presence(hub, discard), Watcher(hub, 1, 2, 3)
    leaving, staying = join_client(hub), join_client(hub)
    async with running({"presence": presence.run}):
        for note in (1, 2, 3):
            presence.set_state(leaving, note, {"name": "Ann"})
        presence.set_state(staying, 2, {"name": "Ben"})
        presence.set_state(leaving, 3, None)
        await watcher.wait_for_people(1, {"name": "Ann"})
        await watcher.wait_for_people(2, {"name": "Ann"}, {"name": "Ben"})
        presence.leave(leaving)
        await watcher.wait_for_people(1)
        await watcher.wait_for_people(2, {"name": "Ben"})
        presence.set_state(staying, 2, None)
        await watcher.wait_for_people(2)
    assert presence.people(3) == []


async def test_presence_set_while_redis_is_unavailable_is_announced_later(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []
    announced: set[int] = set()
    available = False

    async def send(data: bytes) -> None:
        message = PresenceMessage.model_validate_json(data)
        attempts.append(message.note)
        if not available:
            raise BusUnavailable("no Redis")
        announced.add(message.note)

    presence = Presence(hub, send)
    client = join_client(hub)
    for note in (1, 2, 3):
        presence.set_state(client, note, {"name": "Ann"})
    async with running({"presence": presence.run}):
        await eventually(lambda: bool(attempts))
    available = True
    monkeypatch.setattr(module, "ANNOUNCE_INTERVAL_SECONDS", 0.0)
    async with running({"presence": presence.run}):
        await eventually(lambda: announced == {1, 2, 3})


async def test_client_can_view_a_limited_number_of_notes(hub: Hub) -> None:
    presence = Presence(hub, discard)
    client = join_client(hub)
    for note in range(1, MAX_NOTES + 1):
        presence.set_state(client, note, {})
    presence.set_state(client, 1, {"again": True})
    with pytest.raises(ValueError, match="more than"):
        presence.set_state(client, MAX_NOTES + 1, {})
    presence.set_state(client, 1, None)
    presence.set_state(client, MAX_NOTES + 1, {})


async def test_presence_changes_of_a_client_are_rate_limited(hub: Hub) -> None:
    presence = Presence(hub, discard)
    client, other = join_client(hub), join_client(hub)
    with pytest.raises(TooManyRequests):
        for number in range(2 * MAX_CHANGES_BURST):
            presence.set_state(client, 1, {"number": number})
    presence.set_state(other, 1, {})


async def test_large_presence_list_counts_against_the_rate_limit(hub: Hub) -> None:
    presence = Presence(hub, discard)
    presence.receive(presence_message("b", 1, {str(number): "x" * 1000 for number in range(MAX_PEOPLE)}))
    async with running({"presence": presence.run}):
        await eventually(lambda: len(presence.people(1)) == MAX_PEOPLE)
    client = join_client(hub)
    with pytest.raises(TooManyRequests):
        for _ in range(MAX_CHANGES_BURST // 20):
            presence.set_state(client, 1, {})
            presence.set_state(client, 1, None)


async def test_anonymous_clients_do_not_displace_users_in_a_full_list(hub: Hub) -> None:
    presence = Presence(hub, discard)
    anonymous_clients = [join_client(hub, ANONYMOUS) for _ in range(MAX_PEOPLE + 20)]
    ann = join_client(hub, Principal(keys=frozenset({"@ann"}), name="ann"))
    async with running({"presence": presence.run}):
        for client in anonymous_clients:
            presence.set_state(client, 1, {})
        await eventually(lambda: len(presence.people(1)) == MAX_PEOPLE)
        presence.set_state(ann, 1, {})
        await eventually(lambda: {"name": "ann"} in presence.people(1))
        assert len(presence.people(1)) == MAX_PEOPLE


async def test_people_of_a_silent_worker_expire(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANNOUNCE_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.3)
    presence, watcher = Presence(hub, discard), Watcher(hub, 1)
    presence.receive(presence_message("b", 1, {"b1": "Ben"}))
    async with running({"presence": presence.run}):
        await watcher.wait_for_people(1, {"name": "Ben"})
        await watcher.wait_for_people(1)
    assert presence.people(1) == []
