"""The promise under faults: what was acknowledged is there, and every client ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from redis.asyncio import Redis

from realtime.embedded import Embedded
from realtime.settings import Settings
from tests.harness import Replica, ServerProcess, all_notes, eventually, note_in, rest_client

Serve = Callable[..., ServerProcess]


@pytest.fixture
def private(tmp_path: Path, settings: Settings) -> Iterator[Embedded]:
    """An embedded pair of this test alone, to be broken."""
    servers = Embedded(tmp_path / "private")
    servers.start()
    yield servers
    servers.stop()


def process_on(url: str) -> psutil.Process:
    """The process that listens on the port of a URL."""
    port = urlsplit(url).port
    return next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
    )


class Load:
    """Writers that remember what was acknowledged: the token of each note's last write that got a 2xx."""

    def __init__(self, url: str, writers: int = 4) -> None:
        self._url = url
        self._writers = writers
        self.acknowledged: dict[int, str] = {}
        self.unknown: dict[int, set[str]] = {}
        self.refused = 0
        self.stop = asyncio.Event()

    async def _write(self, writer: int) -> None:
        number = 0
        async with rest_client(self._url) as rest:
            id: int | None = None
            while not self.stop.is_set():
                number += 1
                token = f"w{writer}-{number}"
                body = note_in("token", token)
                try:
                    path = "/notes/" if id is None else f"/notes/{id}/"
                    answer = await rest.request("POST" if id is None else "PUT", path, json=body)
                except httpx.TransportError:
                    if id is not None:
                        self.unknown[id].add(token)
                    await asyncio.sleep(0.05)
                    continue
                if answer.is_success:
                    id = answer.json()["id"]
                    assert id is not None
                    self.acknowledged[id] = token
                    self.unknown[id] = set()
                else:
                    assert answer.status_code == 503, answer.text
                    assert answer.json()["outcome"] == "unknown"
                    self.refused += 1
                    if id is not None:
                        self.unknown[id].add(token)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes while the block lasts."""
        async with asyncio.TaskGroup() as tasks:
            for writer in range(self._writers):
                tasks.create_task(self._write(writer))
            try:
                yield
            finally:
                self.stop.set()

    async def more(self, writes: int = 20) -> None:
        """Waits until so many more writes were acknowledged."""
        last = dict(self.acknowledged)
        seen = 0

        def enough() -> bool:
            nonlocal last, seen
            seen += sum(last.get(id) != token for id, token in self.acknowledged.items())
            last = dict(self.acknowledged)
            return seen >= writes

        await eventually(enough, within=40)

    def check(self, notes: dict[int, Any]) -> None:
        """No acknowledged write is missing; what followed it can only be a write whose outcome is unknown."""
        for id, token in self.acknowledged.items():
            assert notes[id]["description"] in {token} | self.unknown.get(id, set())


async def _all_agree(load: Load, url: str, replicas: list[Replica], within: float = 20) -> None:
    async def agree() -> None:
        notes = await all_notes(url)
        load.check(notes)
        for replica in replicas:
            assert replica.notes == notes

    await eventually(agree, within)


@pytest.mark.parametrize("point", ["after_write_before_publish:kill:15", "after_publish_before_clear:kill:15"])
async def test_worker_killed_under_load(serve: Serve, point: str) -> None:
    survivor, victim = serve(), serve(failpoint=point)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(Replica(survivor.url)) for _ in range(5)]
        loads = [Load(survivor.url), Load(victim.url)]
        async with loads[0].running(), loads[1].running():
            await eventually(lambda: victim.process is not None and victim.process.poll() == -9, within=20)
            await loads[0].more()
        for load in loads:
            await _all_agree(load, survivor.url, replicas, within=5)


async def test_redis_killed_and_restarted_empty_under_load(serve: Serve, private: Embedded) -> None:
    servers = [serve(mongo_url=private.mongo_url, redis_url=private.redis_url) for _ in range(2)]
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(Replica(servers[number % 2].url)) for number in range(6)]
        load = Load(servers[0].url)
        async with load.running():
            await load.more()
            process_on(private.redis_url).kill()
            await load.more()  # a dead Redis fails no write
            await eventually(lambda: all(replica.resets for replica in replicas), within=20)
            await load.more()
        await _all_agree(load, servers[1].url, replicas)


async def test_redis_flushed_under_load(serve: Serve, private: Embedded) -> None:
    server = serve(mongo_url=private.mongo_url, redis_url=private.redis_url)
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(Replica(server.url)) for _ in range(3)]
        load = Load(server.url)
        async with load.running():
            await load.more()
            async with Redis.from_url(private.redis_url) as redis:
                await redis.flushall()
            await load.more()
        await _all_agree(load, server.url, replicas)
        assert all(replica.resets for replica in replicas)


async def test_redis_frozen_holds_no_write_up(serve: Serve, private: Embedded) -> None:
    server = serve(mongo_url=private.mongo_url, redis_url=private.redis_url, publish_wait=0.25)
    async with Replica(server.url) as replica:
        load = Load(server.url)
        redis = process_on(private.redis_url)
        async with load.running():
            await load.more()
            redis.suspend()
            try:
                await load.more(40)
            finally:
                redis.resume()
            await load.more()
        await _all_agree(load, server.url, [replica])


async def test_mongodb_stopped_and_started_again(serve: Serve, private: Embedded) -> None:
    server = serve(mongo_url=private.mongo_url, redis_url=private.redis_url, write_timeout=3, read_timeout=3)
    async with Replica(server.url) as replica, rest_client(server.url) as rest:
        load = Load(server.url)
        async with load.running():
            await load.more()
            process_on(private.mongo_url).kill()

            async def unready() -> bool:
                checks = (await rest.get("/readyz")).json()["checks"]
                return [name for name, check in checks.items() if not check["ok"]] == ["mongodb"]

            await eventually(unready)
            await load.more()
            # An outage that outlasts the budget of a write.
            mongod = process_on(private.mongo_url)
            mongod.suspend()
            try:
                await eventually(lambda: load.refused)
            finally:
                mongod.resume()
            await load.more()
        await _all_agree(load, server.url, [replica])


async def test_serves_on_and_recovers_when_both_come_late(serve: Serve, tmp_path: Path) -> None:
    """The server starts while neither is there, and finds them when they come."""
    first = Embedded(tmp_path / "late")
    first.start()
    mongo_url, redis_url = first.mongo_url, first.redis_url
    first.stop()
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
        assert answer.json()["outcome"] == "unknown"
        late = Embedded(tmp_path / "late")
        late.start()
        try:
            assert (late.mongo_url, late.redis_url) == (mongo_url, redis_url)

            async def is_ready() -> bool:
                return (await rest.get("/readyz")).status_code == 200

            await eventually(is_ready, within=20)
            assert (await rest.post("/notes/", json=note_in())).status_code == 201
        finally:
            late.stop()


async def test_frozen_worker_loses_nothing(serve: Serve) -> None:
    server, frozen = serve(), serve()
    async with Replica(frozen.url) as replica:
        load = Load(server.url)
        async with load.running():
            await load.more()
            os.kill(frozen.pid, signal.SIGSTOP)
            await load.more(100)
            os.kill(frozen.pid, signal.SIGCONT)
            await load.more()
        await _all_agree(load, server.url, [replica])
        assert replica.resets == 0
