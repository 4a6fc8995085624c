"""Polling while Redis is unavailable: events are read from MongoDB once, also for new subscribers."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from starlette.testclient import TestClient

from benchmarks.processes import free_port
from realtime import create_app
from realtime.embedded.pair import EmbeddedServers
from realtime.eventlog.bus import SILENCE_SECONDS, Bus
from realtime.settings import Settings
from tests.faults.daemons import Valkey
from tests.faults.testbed import process_on
from tests.support.accounts import parts_of
from tests.support.harness import eventually, note_in


@pytest.fixture
def frozen(embedded: EmbeddedServers) -> Iterator[psutil.Process]:
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
    buffer = parts_of(client).feed._hub.replay_buffer
    event = asyncio.run(eventually(lambda: next(iter(buffer._events.values()), None) or False))
    buffer.add_unlogged(event)
    polled = client.get("/changes", params={"since": str(event.cursor), "timeout": 1}).json()
    assert polled["changes"] == []


@pytest.fixture(params=["nothing listens", "wrong password", "no answer", "no such host"])
def unreachable(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """The URL of a Redis that was never reached."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        yield {
            "nothing listens": f"redis://127.0.0.1:{free_port()}/0",
            "wrong password": re.sub("//.*@", "//:wrong@", settings.redis_url or ""),
            "no answer": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            "no such host": "redis://redis.invalid:6379/0",
        }[request.param]


def test_server_without_redis_since_its_start_delivers_from_mongodb(settings: Settings, unreachable: str) -> None:
    away = settings.model_copy(update={"redis_url": unreachable, "publish_wait": 0.1})
    with TestClient(create_app(away)) as client:
        assert client.get("/notes/").headers["X-Cursor"] == "none:0"
        polled = client.get("/changes").json()
        assert polled == {"cursor": "none:0", "reset": False, "changes": []}
        with client.websocket_connect("/ws?since=none:0") as socket:
            assert socket.receive_json() == {"type": "ready", "cursor": "none:0"}
            made = client.post("/notes/", json=note_in("around")).json()
            event = socket.receive_json()
            assert (event["type"], event["note"]) == ("note.created", made)
        assert client.get("/changes?since=none:0&timeout=60").json()["changes"] == [event]
        with client.websocket_connect("/ws?since=c2c16b7c2e32:17") as socket:  # of another time
            assert [socket.receive_json()["type"] for _ in range(3)] == ["reset", "note.created", "ready"]


async def test_once_redis_is_there_everyone_starts_over_and_nothing_stale_is_sent(
    settings: Settings, tmp_path: Path
) -> None:
    valkey = Valkey(tmp_path / "valkey")
    away = settings.model_copy(update={"redis_url": valkey.url, "publish_wait": 0.1})
    with TestClient(create_app(away)) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_json() == {"type": "ready", "cursor": "none:0"}
        client.post("/notes/", json=note_in("around"))
        assert socket.receive_json()["cursor"] == "none:0"
        async with valkey:
            frames = [await asyncio.to_thread(socket.receive_json)]
            while frames[-1]["type"] != "reset":
                frames.append(await asyncio.to_thread(socket.receive_json))
            cursor = client.get("/notes/").headers["X-Cursor"]
            assert not cursor.startswith("none:")
            with client.websocket_connect("/ws") as newcomer:
                assert newcomer.receive_json()["type"] == "ready"
            assert client.get("/changes?since=none:0").json()["reset"] is True


async def test_silent_is_who_lets_wait(settings: Settings, frozen: psutil.Process) -> None:
    assert settings.redis_url is not None
    bus = Bus(settings.redis_url, settings.database, max_entries=100, timeout=3 * SILENCE_SECONDS)
    await bus.position()
    assert not bus.silent
    frozen.suspend()
    asked = asyncio.ensure_future(bus.position())
    await eventually(lambda: bus.silent and bus.available)
    frozen.resume()
    await asked
    assert not bus.silent
    await bus.aclose()
