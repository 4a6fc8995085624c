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
from realtime.eventlog.bus import SILENCE_SECONDS
from realtime.eventlog.cursor import Cursor
from realtime.settings import Settings
from tests.faults.daemons import Valkey
from tests.faults.testbed import process_on
from tests.support.accounts import parts_of
from tests.support.harness import eventually, note_in
from tests.support.workers import open_bus


@pytest.fixture
def redis_process(embedded: EmbeddedServers) -> Iterator[psutil.Process]:
    """Return the process of Redis, which is resumed when the test ends."""
    process = process_on(embedded.redis_url)
    yield process
    process.resume()


@pytest.mark.slow
def test_changes_are_delivered_from_mongodb_while_redis_is_suspended(
    client: TestClient, redis_process: psutil.Process
) -> None:
    made = client.post("/notes/", json=note_in("before")).json()
    with client.websocket_connect("/ws") as socket:
        ready = socket.receive_json()
        redis_process.suspend()
        client.put(f"/notes/{made['id']}/", json=note_in("around"))
        around = socket.receive_json()
        assert (around["note"]["title"], around["version"]) == ("around", 2)
        assert around["cursor"] == ready["cursor"], "a client resumes before the change that is not in the log"
        with client.websocket_connect(f"/ws?since={ready['cursor']}") as late:
            assert late.receive_json() == around
            assert late.receive_json()["type"] == "ready"
        polled = client.get("/changes", params={"since": ready["cursor"], "timeout": 60}).json()
        assert polled == {"cursor": ready["cursor"], "reset": False, "changes": [around]}
        redis_process.resume()
        again = socket.receive_json()
        assert again["note"] == around["note"]
        assert again["cursor"] != ready["cursor"]


def test_poll_ignores_unlogged_events_while_redis_is_available(client: TestClient) -> None:
    """The event arrives from MongoDB after the log has delivered it."""
    feed = parts_of(client).feed
    start = Cursor.parse(client.get("/changes").json()["cursor"])
    client.post("/notes/", json=note_in())
    (event,) = asyncio.run(eventually(lambda: feed.replay_buffer.between(start, feed.position) or False))
    feed.replay_buffer.add_unlogged(event)
    polled = client.get("/changes", params={"since": str(event.cursor), "timeout": 1}).json()
    assert polled["changes"] == []


@pytest.fixture(params=["nothing listens", "wrong password", "no answer", "no such host"])
def unreachable(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """Return the URL of a Redis that was never reached."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        yield {
            "nothing listens": f"redis://127.0.0.1:{free_port()}/0",
            "wrong password": re.sub("//.*@", "//:wrong@", settings.redis_url or ""),
            "no answer": f"redis://127.0.0.1:{silent.getsockname()[1]}/0",
            "no such host": "redis://redis.invalid:6379/0",
        }[request.param]


@pytest.mark.slow
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
        with client.websocket_connect("/ws?since=c2c16b7c2e32:17") as socket:  # the cursor of another log
            assert [socket.receive_json()["type"] for _ in range(3)] == ["reset", "note.created", "ready"]


async def test_clients_are_reset_when_redis_becomes_available(settings: Settings, tmp_path: Path) -> None:
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


async def test_bus_is_silent_while_redis_does_not_respond(settings: Settings, redis_process: psutil.Process) -> None:
    async with open_bus(settings, timeout=3 * SILENCE_SECONDS) as bus:
        await bus.position()
        assert not bus.silent
        redis_process.suspend()
        call = asyncio.ensure_future(bus.position())
        await eventually(lambda: bus.silent and bus.available)
        redis_process.resume()
        await call
        assert not bus.silent
