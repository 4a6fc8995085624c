"""Presence: bounded, merged over workers, and forgotten when it is not told again."""

from __future__ import annotations

import asyncio

import pytest

from realtime import presence as module
from realtime.access import OPEN
from realtime.errors import CloseCode
from realtime.hub import Hub
from realtime.presence import MAX_NOTES, Presence, Told


async def unheard(data: bytes) -> None:
    """Nobody listens."""


@pytest.fixture
async def hub() -> Hub:
    return Hub(budget=2**20, stall=10, too_slow=CloseCode.TOO_SLOW)


def told(worker: str, note: int, *names: str) -> bytes:
    return Told(worker=worker, note=note, people=[{"name": name} for name in names]).model_dump_json().encode()


async def test_people_of_all_workers(hub: Hub) -> None:
    presence = Presence(hub, unheard)
    client = hub.join(None, content=True, viewer=OPEN)
    presence.look(client, 1, {"name": "Ann"})
    presence.heard(told("b", 1, "Ben", "Bea"))
    presence.heard(told("c", 2, "Cid"))
    assert presence.people(1) == [{"name": "Ann"}, {"name": "Ben"}, {"name": "Bea"}]
    presence.heard(told("b", 1))
    presence.leave(client)
    assert presence.people(1) == []
    assert presence.people(2) == [{"name": "Cid"}]


async def test_own_words_and_nonsense_are_not_heard(hub: Hub) -> None:
    said: asyncio.Queue[bytes] = asyncio.Queue()
    tell = said.put

    presence = Presence(hub, tell)
    presence.look(hub.join(None, content=True, viewer=OPEN), 1, {"name": "Ann"})
    running = asyncio.create_task(presence.run())
    presence.heard(await said.get())
    running.cancel()
    presence.heard(b"nonsense")
    assert presence.people(1) == [{"name": "Ann"}]
    await presence.aclose()
    assert Told.model_validate_json(await said.get()).people == []


async def test_one_client_may_look_at_so_many_notes(hub: Hub) -> None:
    presence = Presence(hub, unheard)
    client = hub.join(None, content=True, viewer=OPEN)
    for note in range(1, MAX_NOTES + 1):
        presence.look(client, note, {})
    presence.look(client, 1, {"again": True})
    with pytest.raises(ValueError, match="more than"):
        presence.look(client, MAX_NOTES + 1, {})
    presence.look(client, 1, None)
    presence.look(client, MAX_NOTES + 1, {})


async def test_worker_that_falls_silent_is_forgotten(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TELL_INTERVAL", 0.1)
    monkeypatch.setattr(module, "FORGET_AFTER", 0.3)
    presence = Presence(hub, unheard)
    watcher = hub.join(frozenset({1}), content=True, viewer=OPEN)
    presence.heard(told("b", 1, "Ben"))
    running = asyncio.create_task(presence.run())
    async with asyncio.timeout(5):
        shown = [frame.text for frame in await watcher.take()]
        while '"people":[]' not in shown[-1]:
            shown += [frame.text for frame in await watcher.take()]
    running.cancel()
    assert presence.people(1) == []
