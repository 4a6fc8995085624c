"""Hosts with a wrong clock or a full disk."""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from realtime.embedded.pair import EmbeddedServers
from tests.faults.load import crowd
from tests.faults.scenario import Figures, Run, scenario
from tests.faults.testbed import Fleet
from tests.support.harness import Json, ServerProcess, eventually, note_in, rest_client

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
"""The library of Debian's package libfaketime."""
ROOM = 420
"""The size in MiB of the disk that fills up. An empty MongoDB uses about 310."""


@scenario(
    "clock",
    invariant="ordering and the outbox do not depend on clocks",
    mark="the clock of one worker is an hour fast or slow, 0 lost",
    unit="changes of the clock",
    full=20,
    slice=1,
)
async def clock(run: Run) -> Figures:
    """Run one of two servers with a wrong clock, and repeatedly restart it with a different one."""
    assert FAKETIME, "no libfaketime: apt-get install libfaketime"
    settings = await run.testbed.settings()
    one = await run.testbed.serve(settings)
    other = ServerProcess(settings.model_copy(update={"port": 0}))
    run.testbed.exits.callback(other.kill)
    fleet = Fleet([one, other], run.random)
    hours = [1, -1]
    run.random.shuffle(hours)

    def changed(number: int) -> None:
        # The timers of asyncio do not depend on the wall clock.
        other.environment = {
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME": f"{hours[number % 2]:+d}h",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    changed(0)
    await asyncio.to_thread(other.start)
    async with rest_client(other.url) as rest:
        told = parsedate_to_datetime((await rest.get("/ping")).headers["Date"]).timestamp()
        assert abs(told - time.time()) > 3000, "the clock is not another one"
    async with crowd(run, fleet.url, settings) as load:
        for number in range(run.times):
            await load.writers.more(run.load(300))
            changed(number + 1)
            await fleet.kill(other)
            run.progress(number + 1)
        await load.writers.more(run.load(300))
    fleet.check()
    load.figures.faults = run.times
    return load.figures


@asynccontextmanager
async def _disk(folder: Path, size: int) -> AsyncIterator[Path]:
    """Mount a file system with a size in MiB in a separate namespace, without root. It disappears with its process."""
    await asyncio.to_thread(folder.mkdir)
    command = f'mount -t tmpfs -o size={size}m tmpfs "$0" && cd "$0" && echo mounted && exec cat'
    namespace = await asyncio.create_subprocess_exec(
        "unshare", "--map-root-user", "--mount", "sh", "-c", command, str(folder), stdin=PIPE, stdout=PIPE
    )
    assert namespace.stdin is not None
    assert namespace.stdout is not None
    try:
        assert await namespace.stdout.readline(), "no disk to fill: user namespaces are not allowed here"
        yield Path(f"/proc/{namespace.pid}/cwd")
    finally:
        namespace.stdin.close()
        await namespace.wait()


@scenario(
    "disk-full",
    invariant="503 with a reason, and the server recovers",
    mark="5 times, 0 lost",
    unit="times",
    full=5,
    slice=1,
)
async def disk_full(run: Run) -> Figures:
    """Fill the disk of the embedded MongoDB, and free space again."""
    disk = await run.testbed.exits.enter_async_context(_disk(run.testbed.folder / "disk", ROOM))
    pair = EmbeddedServers(disk / "data")
    run.testbed.exits.push_async_callback(asyncio.to_thread, pair.stop)
    await asyncio.to_thread(pair.start)
    settings = await run.testbed.settings(mongo_url=pair.mongo_url, write_timeout=2, read_timeout=2)
    server = await run.testbed.serve(settings)
    filler = disk / "filler"
    async with crowd(run, lambda: server.url, settings) as load, rest_client(server.url) as rest:
        for number in range(run.times):
            await load.writers.more(run.load(200))
            with filler.open("wb") as file, suppress(OSError):
                while True:
                    file.write(bytes(64 * 1024))
            await _checkpoint(pair.mongo_url)
            await load.writers.refusal()
            answer = await rest.post("/notes/", json=note_in())
            assert (answer.status_code, answer.json()["outcome"]) == (503, "unknown"), answer.text
            assert answer.json()["detail"], answer.text
            assert "Retry-After" in answer.headers
            ready = await rest.get("/readyz")
            assert ready.status_code == 503
            assert not ready.json()["checks"]["mongodb"]["ok"]
            filler.unlink()
            back = time.monotonic()
            await load.writers.more(run.load(100))
            await eventually(partial(load.watch.has_all_until, back), within=40)
            run.progress(number + 1)
    load.figures.faults = run.times
    return load.figures


async def _checkpoint(url: str) -> None:
    """Make MongoDB write a checkpoint now instead of within a minute."""
    async with AsyncMongoClient[Json](url, serverSelectionTimeoutMS=2000, timeoutMS=5000) as client:
        with suppress(PyMongoError):
            await client.admin.command("fsync")
