"""Shared texts that are edited, compacted and unloaded while workers die, and clients that reconnect late."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from realtime.failpoints import Point
from tests.faults.clients import Typist
from tests.faults.load import Crowd, crowd
from tests.faults.scenario import Figures, Run, scenario
from tests.faults.testbed import Where
from tests.support.harness import ServerProcess

POINTS: tuple[Point | None, ...] = (
    "after_genesis_before_lineage",
    "after_journal_before_spread",
    "after_snapshot_before_rows",
    "after_compaction",
    None,
)
"""The fail points of this scenario; ``None`` is a kill at a random time."""

AT_ONCE = 5


@asynccontextmanager
async def visitors(where: Where, load: Crowd, many: int, choose: random.Random) -> AsyncIterator[None]:
    """Let clients join a note, type a few words and leave, so that texts are created and unloaded constantly."""
    stop = asyncio.Event()

    async def visit() -> None:
        while not stop.is_set():
            async with Typist(where, choose.choice(load.writers.notes), load.ledger) as typist:
                for _ in range(choose.randint(1, 3)):
                    await typist.word()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(many):
            tasks.create_task(visit())
        try:
            yield
        finally:
            stop.set()


async def lure(victim: ServerProcess, others: Where, load: Crowd, choose: random.Random, *, newest: bool) -> None:
    """Type on a worker until it dies, in new notes without a shared text or in any notes."""
    process = victim.process
    assert process is not None

    def where() -> str:
        return victim.url if process.poll() is None else others()

    while process.poll() is None:
        notes = load.writers.notes
        async with Typist(where, notes[-1] if newest else choose.choice(notes), load.ledger) as typist:
            await typist.word()


@scenario(
    "co-editing",
    invariant="each token is stored exactly once, including those of a stale tab",
    mark="300 deaths during commit, compaction, or unload; 0",
    unit="deaths",
    full=300,
    slice=len(POINTS),
)
async def coediting(run: Run) -> Figures:
    """Kill a worker at a fail point of a text or at a random time. After each kill, an absent client reconnects."""
    settings = await run.testbed.settings(room_idle=0)
    fleet = await run.testbed.fleet(settings, 1, run.random)
    async with crowd(run, fleet.url, settings, writers=2) as load, visitors(fleet.url, load, 6, run.random):

        async def die(number: int) -> None:
            point = POINTS[number % len(POINTS)]
            often = run.thorough and point != POINTS[0]  # a text is created only once
            armed = f"{point}:kill:{run.random.randint(1, 3 if often else 1)}" if point else ""
            async with Typist(fleet.url, run.random.choice(load.writers.notes), load.ledger) as stale:
                await stale.word()
                await stale.away()
                async with run.testbed.doomed(fleet, settings, armed) as victim:
                    token = load.ledger.token("c")
                    load.ledger.unknown.add(token)
                    await stale.append(f"{token};")
                    if point is None:
                        await asyncio.sleep(run.random.uniform(0, 3))
                        os.kill(victim.pid, signal.SIGKILL)
                    await lure(victim, fleet.url, load, run.random, newest=point == POINTS[0])
                stale.go()
                await stale.safe()
                load.ledger.acknowledge(token)

        await run.side_by_side(die, AT_ONCE)
    fleet.check()
    load.figures.faults = run.times
    return load.figures
