"""Clients that lose their connection, that stop reading, and that connect all at once."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.faults.load import crowd
from tests.faults.scenario import Figures, Run, p99, scenario
from tests.support.harness import UNIT, BareSocket, eventually, note_in, rest_client

MIB = 1024 * 1024
LOG = 100
"""The size of the event log, in the scenario that exceeds it."""


@scenario(
    "client-drops",
    invariant="resume or reset, never a hole",
    mark="1 000 drops, for 1 s, 60 s, and longer than the log reaches back: 0 holes",
    unit="drops",
    full=1000,
    slice=12,
)
async def drops(run: Run) -> Figures:
    """Disconnect all clients during writes: briefly, for a while, or for longer than the event log can resume."""
    settings = await run.testbed.settings(log_entries=LOG)
    server = await run.testbed.serve(settings)
    proxy = await run.testbed.proxy(server.url)
    done = 0
    async with crowd(run, lambda: server.url, settings, readers=lambda: proxy.through(server.url)) as load:
        for number in range(run.times):
            if done >= run.times:
                break
            beyond = number % 2 == 1
            had = sum(replica.resets for replica in load.replicas)
            proxy.accepts = False
            proxy.cut()
            if run.thorough:
                await asyncio.sleep(60 if number % 40 == 1 else 1)
            await load.writers.more(3 * LOG if beyond else 10)
            proxy.heal()
            back = time.monotonic()
            await eventually(partial(load.watch.has_all_until, back), within=20)
            assert not beyond or sum(replica.resets for replica in load.replicas) > had
            done += len(load.replicas)
            run.progress(min(done, run.times))
    load.figures.faults = done
    return load.figures


class Visitor(BareSocket):
    """A client that records whether it was accepted, and the last message."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.status = 0
        self.ready = False
        self.versions: dict[int, int] = {}
        self.closed: float | None = None

    def data_received(self, data: bytes) -> None:
        """Store the status of the handshake response."""
        self.status = self.status or int(data[9:12])
        super().data_received(data)

    def told(self) -> bool:
        """Whether the client was accepted or rejected."""
        return self.ready or self.closed is not None

    async def listen(self) -> None:
        """Receive messages until the connection ends."""
        async for text in self:
            frame = json.loads(text)
            self.ready = self.ready or frame["type"] == "ready"
            if "version" in frame:
                assert frame["version"] > self.versions.get(frame["id"], 0), "went backwards"
                self.versions[frame["id"]] = frame["version"]
        self.closed = time.monotonic()


async def _frozen(url: str) -> socket.socket:
    """Connect a client that subscribes to everything and does not read."""
    to = urlsplit(url)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(plain, (to.hostname, to.port))
    lines = ("GET /ws HTTP/1.1", "Host: test", "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")  # fmt: skip
    await loop.sock_sendall(plain, "\r\n".join([*lines, "", ""]).encode())
    return plain


@scenario(
    "frozen-readers",
    invariant="a client that reads nothing affects no other client",
    mark="100 of 1 000: p99 of the other clients ≤ 1.2×, ≤ 2 MiB held per frozen client, closed within 15 s",
    unit="readers",
    full=1000,
    slice=40,
)
async def frozen(run: Run) -> Figures:
    """Stop reading in one of ten clients while notes of 512 KiB are written."""
    stall = 10.0 if run.thorough else 1.0
    settings = await run.testbed.settings()
    server = await run.testbed.serve(settings, client_stall_seconds=stall)
    process = psutil.Process(server.pid)
    async with (
        crowd(run, lambda: server.url, settings, writers=1, each=1, typists=1) as load,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as tasks,
        rest_client(server.url) as rest,
    ):
        load.writers.pause = 0.05
        url = f"{server.ws}?content=false"
        readers = [await stack.enter_async_context(Visitor(url)) for _ in range(run.times - run.times // 10)]
        listening = [tasks.create_task(reader.listen()) for reader in readers]
        await load.writers.more(run.load(200))
        load.watch.seconds.clear()
        await load.writers.more(run.load(1000))
        before = load.watch.seconds.copy()
        held = process.memory_info().rss
        still = [stack.enter_context(await _frozen(server.url)) for _ in range(run.times // 10)]
        ports = {one.getsockname()[1] for one in still}
        load.watch.seconds.clear()
        large = []
        for number in range(24):
            answer = await rest.post("/notes/", json=note_in(f"large {number}", content="x" * (MIB // 2)))
            assert answer.status_code == 201
            large.append(answer.json()["id"])
            grown = process.memory_info().rss - held
        closing = tasks.create_task(_gone(process, ports))
        await load.writers.more(run.load(1000))
        during = load.watch.seconds.copy()
        closed = await closing
        for id in large:  # otherwise, comparing all notes of all clients would take too long
            await rest.delete(f"/notes/{id}/")
        last = (await rest.post("/notes/", json=note_in("last"))).json()["id"]
        await eventually(lambda: all(last in reader.versions for reader in readers), within=20)
        for task in listening:
            task.cancel()
    figures = load.figures
    figures.faults = len(still)
    ratio = p99(during) / p99(before)
    figures.extra |= {
        "p99 of the other clients": f"{ratio:.2f}×",
        "memory per frozen client": f"{grown / MIB / len(still):.2f} MiB",
        "closed after": f"{closed:.1f} s",
    }
    figures.must(closed <= 15)
    figures.must(not run.thorough or (ratio <= 1.2 and grown / len(still) <= 2 * MIB))  # the slice has too few samples
    return figures


async def _gone(process: psutil.Process, ports: set[int]) -> float:
    """Return the seconds until the process has no connections to these ports."""
    started = time.monotonic()
    while ports & await asyncio.to_thread(_peers, process):
        await asyncio.sleep(0.2)
    return time.monotonic() - started


def _peers(process: psutil.Process) -> set[int]:
    """Return the remote ports of the connections of a process."""
    connections: list[Any] = process.net_connections("tcp")
    return {one.raddr.port for one in connections if one.status != psutil.CONN_LISTEN}


@scenario(
    "storm",
    invariant="all clients connect and receive everything",
    mark="10 000 connections at once: all converge within 60 s, no 5xx except 503",
    unit="connections",
    full=10_000,
    slice=200,
)
async def storm(run: Run) -> Figures:
    """Connect all clients at the same time, each with a cursor and many missed events."""
    settings = await run.testbed.settings()
    server = await run.testbed.serve(settings, log_level="warning")
    refused = 0
    async with (
        crowd(run, lambda: server.url, settings, writers=2, each=1, typists=1) as load,
        AsyncExitStack() as stack,
    ):
        async with rest_client(server.url) as rest:
            cursor = (await rest.get("/changes")).json()["cursor"]
        await load.writers.more(run.load(1000))
        load.writers.pause = 0.2
        inside: list[Visitor] = []

        async def come() -> None:
            nonlocal refused
            while True:
                visitor = Visitor(f"{server.ws}?since={cursor}")
                with suppress(OSError):
                    await stack.enter_async_context(visitor)
                    listening = asyncio.create_task(visitor.listen())
                    stack.callback(listening.cancel)
                    await eventually(visitor.told, within=60)
                    if visitor.ready:
                        inside.append(visitor)
                        run.progress(len(inside))
                        return
                    assert visitor.status in (0, 101, 503), visitor.status
                refused += 1
                await asyncio.sleep(run.random.uniform(0.1, 1))

        started = time.monotonic()
        async with asyncio.timeout(120 * UNIT):
            await asyncio.gather(*(come() for _ in range(run.times)))
        async with rest_client(server.url) as rest:
            last = (await rest.post("/notes/", json=note_in("last"))).json()["id"]
        await eventually(lambda: all(last in visitor.versions for visitor in inside), within=60)
        took = time.monotonic() - started
        versions = [dict(visitor.versions) for visitor in inside]
    assert all(one.keys() == versions[0].keys() for one in versions), "a hole"
    figures = load.figures
    figures.faults = run.times
    figures.extra |= {"all converged after": f"{took:.1f} s", "retried": refused}
    figures.must(took <= 60)
    return figures
