"""A load of all kinds for hours, which checks that no resource leaks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import fmean
from typing import Any

import psutil
from pymongo import AsyncMongoClient

from realtime.settings import Settings
from tests.faults.load import Crowd, crowd
from tests.faults.readers import Visitor
from tests.faults.scenario import Figures, Run, scenario
from tests.support.harness import Json, ServerProcess, eventually, rest_client

SAMPLES = 40
GROWING = {"notes", "history", "updates", "texts", "operations"}
"""Collections that grow with the number of writes. Stored responses are kept for a day."""
CALLS = (
    "/notes/", "/notes/?limit=20&sort=-updated", "/notes/?q=shared", "/tags/", "/notes/1/", "/notes/1/history/",
    "/trash/", "/changes", "/readyz", "/metrics", "/export",
)  # fmt: skip


@scenario(
    "soak",
    invariant="only notes and history grow",
    mark="2 h of mixed load; resident memory drifts by < 5 %, and the outbox empties",
    unit="seconds",
    full=7200,
    slice=6,
    limit=3 * 3600.0,
)
async def soak(run: Run) -> Figures:
    """Run writers, typing clients, readers of all kinds, short connections, and all REST reads."""
    settings = await run.testbed.settings(log_level="warning")
    server = await run.testbed.serve(settings)
    async with rest_client(server.url) as client:
        await client.get("/readyz")  # it creates the only document of its collection
    process = psutil.Process(server.pid)
    memory: list[int] = []
    before: Counter[str] = Counter()
    rest = 0.1 if run.thorough else 0.02
    async with crowd(run, lambda: server.url, settings, pause=20 * rest) as load:
        load.writers.pause = rest
        async with _callers(run, server, load, 5 * rest):
            started = time.monotonic()
            for sample in range(SAMPLES):
                await asyncio.sleep(started + run.times * (sample + 1) / SAMPLES - time.monotonic())
                memory.append(process.memory_info().rss)
                run.progress(round(run.times * (sample + 1) / SAMPLES))
                if sample == SAMPLES // 2:
                    before = await _sizes(settings)
    assert server.log() == "", server.log()[-1000:]
    after = await eventually(lambda: _settled(settings))
    grown = {name: f"+{after[name] - before[name]}" for name in sorted(after) if after[name] > before[name]}
    half = len(memory) // 2
    drift = fmean(memory[-half // 2 :]) / fmean(memory[half : half + half // 2]) - 1
    figures = load.figures
    figures.faults = run.times
    figures.extra |= {
        "memory": f"{memory[half] / 2**20:.0f} MiB, {drift:+.1%} over the second half",
        "grown": ", ".join(f"{name} {more}" for name, more in grown.items()),
    }
    figures.must(grown.keys() <= GROWING)
    figures.must(drift < 0.05 or not run.thorough)
    return figures


@asynccontextmanager
async def _callers(run: Run, server: ServerProcess, load: Crowd, rest: float) -> AsyncIterator[None]:
    """Run readers with a pause in seconds between two requests, and clients that connect and disconnect."""

    async def read() -> None:
        async with rest_client(server.url) as calls:
            while True:
                answer = await calls.get(run.random.choice(CALLS))
                assert answer.status_code == 200, answer.text
                await asyncio.sleep(rest)

    async def visit() -> None:
        while True:
            since = run.random.choice([replica.cursor for replica in load.replicas])
            async with Visitor(f"{server.ws}?since={since}") as visitor:
                listening = asyncio.create_task(visitor.listen())
                await eventually(visitor.told)
                await asyncio.sleep(run.random.uniform(0, 5 * rest))
                listening.cancel()

    callers = [asyncio.create_task(call()) for call in (read, visit)]
    try:
        yield
        for caller in callers:
            if caller.done():
                caller.result()
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def _sizes(settings: Settings) -> Counter[str]:
    """Return the number of documents in each collection."""
    async with AsyncMongoClient[Any](settings.mongo_url) as client:
        database = client[settings.database]
        return Counter(
            {name: await database[name].count_documents({}) for name in await database.list_collection_names()}
        )


async def _settled(settings: Settings) -> Counter[str]:
    """Return the same numbers when nothing is left to publish."""
    async with AsyncMongoClient[Json](settings.mongo_url) as client:
        assert await client[settings.database].notes.count_documents({"dirty": True}) == 0
    return await _sizes(settings)
