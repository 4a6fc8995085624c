"""Hostile clients: what they cost the others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pycrdt

from realtime.rooms import protocol
from realtime.updates import ROOT
from tests.faults.scenario import Figures, Run, scenario
from tests.harness import ServerProcess, eventually, note_in, rest_client
from tests.rooms.client import Wire

PIECES_PER_MESSAGE = 400


class Innocent:
    """Clients that do what people do, and how long it took."""

    def __init__(self, server: ServerProcess, wires: list[Wire]) -> None:
        self._server = server
        self._wires = wires
        self.pings: list[float] = []
        self.words: list[float] = []

    async def ping(self) -> None:
        """Ask for ``/ping``, some 50 times a second, over one connection."""
        async with rest_client(self._server.url) as rest:
            while True:
                started = time.perf_counter()
                assert (await rest.get("/ping")).status_code == 200
                self.pings.append(time.perf_counter() - started)
                await asyncio.sleep(0.02)

    async def type(self, wire: Wire) -> None:
        """Type a word, some ten times a second, and wait until it is safe."""
        while True:
            started = time.perf_counter()
            await wire.append("word ")
            await eventually(lambda: wire.text.all_acknowledged, within=60)
            self.words.append(time.perf_counter() - started)
            await asyncio.sleep(0.1)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Work while the block lasts."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.ping()), *(group.create_task(self.type(wire)) for wire in self._wires)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    def p99(self) -> tuple[float, float]:
        """Return the 99th percentiles of pings and words in seconds, and begin again."""
        figures = _p99(self.pings), _p99(self.words)
        self.pings, self.words = [], []
        return figures


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


async def _make_large(server: ServerProcess, rest: httpx.AsyncClient, pieces: int) -> int:
    """Make a note with a shared text of many pieces, as if each letter had been typed somewhere else."""
    id: int = (await rest.post("/notes/", json=note_in("large"))).json()["id"]
    document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=7)
    text = document.get(ROOT, type=pycrdt.Text)
    choose = random.Random(7)
    async with Wire(server.url, id) as wire:
        for start in range(0, pieces, PIECES_PER_MESSAGE):
            before = document.get_state()
            for length in range(start, min(start + PIECES_PER_MESSAGE, pieces)):
                text.insert(choose.randrange(length + 1), "a")
            await wire.say(protocol.update(document.get_update(before)))
            await asyncio.sleep(1 / 20)
        await eventually(lambda: len(str(wire.text)) == pieces, within=60)
    return id


@scenario(
    "hostile-clients",
    invariant="a hostile client costs only itself",
    mark="33 clients with 16 attacks: p99 of `GET /ping` ≤ 100 ms, p99 of typing ≤ 2×, nobody else disconnected",
    unit="clients",
    full=33,
    slice=16,
)
async def hostile(run: Run) -> Figures:
    """Hostile clients make every attack, on the note with people in it and on one with a large text."""
    settings = await run.stand.settings()
    server = await run.stand.serve(settings, log_level="error")
    async with rest_client(server.url) as rest, contextlib.AsyncExitStack() as stack:
        large = await _make_large(server, rest, 40_000 if run.thorough else 5_000)
        small = (await rest.post("/notes/", json=note_in("small"))).json()["id"]
        other = (await rest.post("/notes/", json=note_in("other"))).json()["id"]
        wires = [await stack.enter_async_context(Wire(server.url, note)) for note in (small, other)]
        innocent = Innocent(server, wires)
        seconds = 40.0 if run.thorough else 3.0
        async with innocent.working():
            await asyncio.sleep(seconds / 2)
        _, quiet = innocent.p99()
        arguments = (server.url, large, small, run.times, seconds)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.attacks", *map(str, arguments)
        )
        async with innocent.working():
            assert await process.wait() == 0
        ping, words = innocent.p99()
        for wire in wires:
            await wire.append("the end")
            await eventually(lambda wire=wire: wire.text.all_acknowledged, within=20)  # type: ignore[misc]
        assert [wire.codes for wire in wires] == [[], []], "somebody else was disconnected"
    figures = Figures(faults=run.times)
    figures.extra |= {
        "p99 of GET /ping": f"{ping * 1000:.0f} ms",
        "p99 of typing": f"{words * 1000:.0f} ms, {words / quiet:.2f}× of {quiet * 1000:.0f} ms without",
    }
    figures.must(not run.thorough or (ping <= 0.1 and words <= 2 * quiet))  # too short in a slice
    return figures
