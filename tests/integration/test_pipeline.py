"""End to end: a write on one server reaches the clients of all servers, even if processes fail."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from itertools import takewhile
from pathlib import Path

import httpx

from realtime.embedded.pair import EmbeddedServers
from tests.support.harness import Replica, ServerProcess, all_notes, eventually, note_in, rest_client
from tests.support.http import Serve


async def _write(url: str, seed: int, writes: int) -> None:
    """Send random creates, updates and deletes."""
    choose = random.Random(seed)
    async with rest_client(url) as rest:
        mine: list[int] = []
        for number in range(writes):
            kind = choose.random()
            body = note_in(f"note {number}", f"writer {seed}", content="x" * choose.randrange(200))
            if not mine or kind < 0.3:
                answer = await rest.post("/notes/", json=body)
                mine.append(answer.json()["id"])
            elif kind < 0.9:
                answer = await rest.put(f"/notes/{choose.choice(mine)}/", json=body)
            else:
                answer = await rest.delete(f"/notes/{mine.pop(choose.randrange(len(mine)))}/")
            assert answer.is_success, answer.text


async def test_replicas_on_two_servers_converge_under_concurrent_writes(shared_servers: list[ServerProcess]) -> None:
    servers = shared_servers
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(Replica(servers[number % 2].url)) for number in range(60)]
        await asyncio.gather(*(_write(servers[seed % 2].url, seed, 63) for seed in range(8)))
        notes = await all_notes(servers[0].url)
        assert notes
        await eventually(lambda: all(replica.notes == notes for replica in replicas), within=20)
        assert not any(replica.resets for replica in replicas)


async def test_event_of_a_server_killed_before_publishing_is_delivered(serve: Serve) -> None:
    survivor, victim = serve(), serve(failpoint="after_write_before_publish:kill")
    async with Replica(survivor.url) as replica, rest_client(victim.url) as rest:
        with suppress(httpx.TransportError):
            await rest.post("/notes/", json=note_in("orphan"))
        assert victim.wait() == -9
        await eventually(lambda: [note["title"] for note in replica.notes.values()] == ["orphan"])


async def test_client_resumes_after_hundreds_of_missed_writes(shared_servers: list[ServerProcess]) -> None:
    server = shared_servers[0]
    async with Replica(server.url) as stayed, Replica(server.url) as left:
        await _write(server.url, 1, 50)
        await left.away()
        await asyncio.gather(*(_write(server.url, seed, 75) for seed in range(4)))
        left.frames.clear()
        left.go()
        notes = await all_notes(server.url)
        await eventually(lambda: stayed.notes == left.notes == notes, within=20)
        assert left.resets == 0
        missed = [frame["id"] for frame in takewhile(lambda frame: frame["type"] != "ready", left.frames)]
        assert missed
        assert len(missed) == len(set(missed)), "missed events are reduced to the latest one of each note"


async def test_cursor_older_than_the_log_causes_a_reset(serve: Serve) -> None:
    server = serve(log_entries=100)
    async with Replica(server.url) as left:
        await left.away()
        await asyncio.gather(*(_write(server.url, seed, 70) for seed in range(4)))
        left.go()
        notes = await all_notes(server.url)
        await eventually(lambda: left.notes == notes, within=20)
        assert left.resets == 1


async def test_server_started_before_the_databases_recovers(serve: Serve, tmp_path: Path) -> None:
    """The server starts while MongoDB and Redis are down, and connects when they start."""
    with EmbeddedServers(tmp_path / "late") as first:
        mongo_url, redis_url = first.mongo_url, first.redis_url
    server = serve(mongo_url=mongo_url, redis_url=redis_url, write_timeout=1, read_timeout=1)
    async with rest_client(server.url) as rest:
        assert (await rest.get("/healthz")).status_code == 200
        ready = await rest.get("/readyz")
        assert ready.status_code == 503
        assert {name for name, check in ready.json()["checks"].items() if not check["ok"]} == {
            "mongodb", "redis", "feed",
        }  # fmt: skip
        answer = await rest.post("/notes/", json=note_in())
        assert answer.status_code == 503
        assert "outcome" not in answer.json(), "nothing is written before the check for accounts"
        with EmbeddedServers(tmp_path / "late") as late:
            assert (late.mongo_url, late.redis_url) == (mongo_url, redis_url)

            async def is_ready() -> bool:
                return bool((await rest.get("/readyz")).json()["status"] == "ready")

            await eventually(is_ready, within=20)
            assert (await rest.post("/notes/", json=note_in())).status_code == 201
