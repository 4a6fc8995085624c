"""Presence: sent as changes, bounded, merged over workers, and expired if it is not renewed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED, Principal
from realtime.core.close_codes import CloseCode
from realtime.errors import TooManyRequests
from realtime.feed import presence as module
from realtime.feed.hub import Hub
from realtime.feed.presence import MAX_CHANGES_BURST, MAX_NOTES, MAX_PEOPLE, Presence, PresenceEntry, PresenceMessage
from realtime.feed.subscriber import Subscriber
from tests.support.harness import Json, eventually, take_presence


async def unheard(data: bytes) -> None:
    """Nobody listens."""


@pytest.fixture
async def hub() -> Hub:
    return Hub(budget=2**20, stall_seconds=10, too_slow=CloseCode.TOO_SLOW)


class Watcher:
    """A client that subscribed to a note, and the people there as it knows them."""

    def __init__(self, hub: Hub, *notes: int) -> None:
        self.client = hub.join(frozenset(notes), content=True, principal=UNRESTRICTED)
        self.people: dict[int, dict[str, Json]] = {}
        self.frames: list[Json] = []

    async def see(self, note: int, *people: Any) -> None:
        """Read messages until the people at a note are these."""
        async with asyncio.timeout(5):
            while sorted(self.people.get(note, {}).values(), key=str) != sorted(people, key=str):
                for frame in await self.client.next_batch():
                    self.frames.append(json.loads(frame.text))
                    take_presence(self.people, self.frames[-1])


@contextlib.asynccontextmanager
async def running(presence: Presence) -> AsyncIterator[None]:
    task = asyncio.create_task(presence.run())
    try:
        yield
    finally:
        task.cancel()


def joined(hub: Hub, principal: Principal = UNRESTRICTED) -> Subscriber:
    return hub.join(None, content=True, principal=principal)


def told(worker: str, note: int, people: dict[str, str | None], *, whole: bool = True) -> bytes:
    states = {
        id: None if name is None else PresenceEntry(state={"name": name}, user=False) for id, name in people.items()
    }
    return PresenceMessage(worker=worker, note=note, people=states, whole=whole).model_dump_json().encode()


async def test_people_of_all_workers(hub: Hub) -> None:
    presence, watcher = Presence(hub, unheard), Watcher(hub, 1, 2)
    client = joined(hub)
    async with running(presence):
        presence.set_state(client, 1, {"name": "Ann"})
        presence.receive(told("b", 1, {"b1": "Ben", "b2": "Bea"}))
        presence.receive(told("c", 2, {"c1": "Cid"}))
        await watcher.see(1, {"name": "Ann"}, {"name": "Ben"}, {"name": "Bea"})
        presence.receive(told("b", 1, {"b2": None, "b3": "Bob"}, whole=False))
        await watcher.see(1, {"name": "Ann"}, {"name": "Ben"}, {"name": "Bob"})
        presence.receive(told("b", 1, {}))
        presence.leave(client)
        await watcher.see(1)
        await watcher.see(2, {"name": "Cid"})
    assert presence.people(2) == [{"name": "Cid"}]


async def test_changes_are_sent_and_not_lists(hub: Hub) -> None:
    presence, watcher = Presence(hub, unheard), Watcher(hub, 1)
    clients = [joined(hub) for _ in range(20)]
    async with running(presence):
        for number, client in enumerate(clients):
            presence.set_state(client, 1, {"name": f"name {number}"})
        await watcher.see(1, *({"name": f"name {number}"} for number in range(20)))
        seen = len(watcher.frames)
        presence.set_state(clients[0], 1, {"name": "Ann"})
        presence.set_state(clients[1], 1, {"name": "name 1"})  # no change
        await watcher.see(1, {"name": "Ann"}, *({"name": f"name {number}"} for number in range(1, 20)))
    assert [frame["state"] for frame in watcher.frames[seen:]] == [{"name": "Ann"}]


async def test_bytes_sent_to_each_client_are_few_for_the_bytes_received(hub: Hub) -> None:
    """Whatever a client sends, others receive at most 20 times as much: also for the smallest states."""
    presence, watcher = Presence(hub, unheard), Watcher(hub, 1)
    received = 0
    async with running(presence):
        clients = [joined(hub) for _ in range(60)]
        for round in range(10):
            for client in clients:
                state: module.State | None = None if round % 2 else {"a": round}
                received += len(json.dumps({"type": "presence", "id": 1, "state": state}))
                presence.set_state(client, 1, state)
            await watcher.see(1, *([] if round % 2 else [{"a": round}] * 60))
    assert sum(len(json.dumps(frame)) for frame in watcher.frames) < 20 * received


async def test_client_that_begins_to_look_gets_the_list(hub: Hub) -> None:
    presence, watcher = Presence(hub, unheard), Watcher(hub, 1)
    async with running(presence):
        presence.set_state(joined(hub), 1, {"name": "Ann"})
        await watcher.see(1, {"name": "Ann"})
        late = joined(hub)
        presence.set_state(late, 1, {"name": "Ben"})
        presence.set_state(late, 1, {"name": "Bea"})
        (frame,) = await late.next_batch()
        (person,) = json.loads(frame.text)["people"].values()
        assert person == {"name": "Ann"}
        assert frame.text == presence.frame(1).text


async def test_own_messages_and_nonsense_are_ignored(hub: Hub) -> None:
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    presence = Presence(hub, sent.put)
    presence.set_state(joined(hub), 1, {"name": "Ann"})
    async with running(presence):
        presence.receive(await sent.get())
        presence.receive(b"nonsense")
        assert presence.people(1) == [{"name": "Ann"}]
    await presence.aclose()
    last = PresenceMessage.model_validate_json(await sent.get())
    assert (last.people, last.whole) == ({}, True)


async def test_other_workers_are_sent_changes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[PresenceMessage] = []

    def states() -> list[list[module.State | None]]:
        return [[None if person is None else person.state for person in one.people.values()] for one in sent]

    async def send(data: bytes) -> None:
        sent.append(PresenceMessage.model_validate_json(data))

    presence = Presence(hub, send)
    clients = [joined(hub) for _ in range(2)]
    async with running(presence):
        presence.set_state(clients[0], 1, {"name": "Ann"})
        await eventually(lambda: len(sent) == 1)
        presence.set_state(clients[1], 1, {"name": "Ben"})
        await eventually(lambda: len(sent) == 2)
        presence.set_state(clients[0], 1, None)
        await eventually(lambda: len(sent) == 3)
    assert states() == [[{"name": "Ann"}], [{"name": "Ben"}], [None]]
    monkeypatch.setattr(module, "ANNOUNCE_INTERVAL_SECONDS", 0.0)
    async with running(presence):
        await eventually(lambda: sent[-1].whole)
    assert states()[-1] == [{"name": "Ben"}]


async def test_client_looks_at_a_limited_number_of_notes(hub: Hub) -> None:
    presence = Presence(hub, unheard)
    client = joined(hub)
    for note in range(1, MAX_NOTES + 1):
        presence.set_state(client, note, {})
    presence.set_state(client, 1, {"again": True})
    with pytest.raises(ValueError, match="more than"):
        presence.set_state(client, MAX_NOTES + 1, {})
    presence.set_state(client, 1, None)
    presence.set_state(client, MAX_NOTES + 1, {})


async def test_client_changes_its_state_a_limited_number_of_times(hub: Hub) -> None:
    presence = Presence(hub, unheard)
    client, other = joined(hub), joined(hub)
    with pytest.raises(TooManyRequests):
        for number in range(2 * MAX_CHANGES_BURST):
            presence.set_state(client, 1, {"number": number})
    presence.set_state(other, 1, {})


async def test_list_of_large_states_is_charged(hub: Hub) -> None:
    presence = Presence(hub, unheard)
    presence.receive(told("b", 1, {str(number): "x" * 1000 for number in range(MAX_PEOPLE)}))
    async with running(presence):
        await eventually(lambda: len(presence.people(1)) == MAX_PEOPLE)
    client = joined(hub)
    with pytest.raises(TooManyRequests):
        for _ in range(MAX_CHANGES_BURST // 20):
            presence.set_state(client, 1, {})
            presence.set_state(client, 1, None)


async def test_strangers_do_not_push_users_off_the_list(hub: Hub) -> None:
    presence = Presence(hub, unheard)
    strangers = [joined(hub, ANONYMOUS) for _ in range(MAX_PEOPLE + 20)]
    ann = joined(hub, Principal(keys=frozenset({"@ann"}), name="ann"))
    async with running(presence):
        for client in strangers:
            presence.set_state(client, 1, {})
        await eventually(lambda: len(presence.people(1)) == MAX_PEOPLE)
        presence.set_state(ann, 1, {})
        await eventually(lambda: {"name": "ann"} in presence.people(1))
        assert len(presence.people(1)) == MAX_PEOPLE


async def test_worker_that_falls_silent_is_forgotten(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANNOUNCE_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.3)
    presence, watcher = Presence(hub, unheard), Watcher(hub, 1)
    presence.receive(told("b", 1, {"b1": "Ben"}))
    async with running(presence):
        await watcher.see(1, {"name": "Ben"})
        await watcher.see(1)
    assert presence.people(1) == []
