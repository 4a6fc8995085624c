"""The way around Redis: what it cannot tell of comes from MongoDB, once, and to those who come meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psutil
import pytest
from starlette.testclient import TestClient

from realtime.bus import SILENCE, Bus
from realtime.embedded import Embedded
from realtime.settings import Settings
from tests.accounts.people import parts_of
from tests.faults.stand import process_on
from tests.harness import eventually, note_in


@pytest.fixture
def frozen(embedded: Embedded) -> Iterator[psutil.Process]:
    """The process of Redis, which goes on when the test ends."""
    process = process_on(embedded.redis_url)
    yield process
    process.resume()


def test_while_redis_is_frozen_clients_are_told_from_mongodb(client: TestClient, frozen: psutil.Process) -> None:
    made = client.post("/notes/", json=note_in("before")).json()
    with client.websocket_connect("/ws") as socket:
        ready = socket.receive_json()
        frozen.suspend()
        client.put(f"/notes/{made['id']}/", json=note_in("around"))
        around = socket.receive_json()
        assert (around["note"]["title"], around["version"]) == ("around", 2)
        assert around["cursor"] == ready["cursor"], "a client resumes before what the log does not have"
        with client.websocket_connect(f"/ws?since={ready['cursor']}") as late:
            assert late.receive_json() == around
            assert late.receive_json()["type"] == "ready"
        polled = client.get("/changes", params={"since": ready["cursor"], "timeout": 60}).json()
        assert polled == {"cursor": ready["cursor"], "reset": False, "changes": [around]}
        frozen.resume()
        again = socket.receive_json()
        assert again["note"] == around["note"]
        assert again["cursor"] != ready["cursor"]


def test_who_polls_is_not_told_again_and_again_once_redis_is_back(client: TestClient) -> None:
    """Also if something came around the log when the log had told of it already."""
    client.post("/notes/", json=note_in())
    recent = parts_of(client).feed._hub.recent
    event = asyncio.run(eventually(lambda: next(iter(recent._events.values()), None) or False))
    recent.put_aside(event)
    polled = client.get("/changes", params={"since": str(event.cursor), "timeout": 1}).json()
    assert polled["changes"] == []


async def test_silent_is_who_lets_wait(settings: Settings, frozen: psutil.Process) -> None:
    assert settings.redis_url is not None
    bus = Bus(settings.redis_url, settings.database, keep=100, timeout=3 * SILENCE)
    await bus.position()
    assert not bus.silent
    frozen.suspend()
    asked = asyncio.ensure_future(bus.position())
    await eventually(lambda: bus.silent and bus.available)
    frozen.resume()
    await asked
    assert not bus.silent
    await bus.aclose()
