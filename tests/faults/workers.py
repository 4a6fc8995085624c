"""Workers that are killed, that die at a fail point, that freeze, and that race with each other."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import get_args

from realtime.failpoints import Point
from realtime.notes.models import NoteChange
from tests.faults.coediting import lure, visitors
from tests.faults.load import Crowd, crowd
from tests.faults.scenario import Figures, Run, scenario
from tests.unit.rooms.conftest import Worker, working

POINTS = get_args(Point)
OFTEN = {"before_write", "after_write_before_publish", "after_publish_before_clear", "after_write_before_settle"}
"""Fail points that every write passes."""
AT_ONCE = 5
ACKNOWLEDGED = 340
"""The minimum number of operations between two kills."""
NOTES = 8


@scenario(
    "worker-kill",
    invariant="acknowledged tokens survive, clients converge",
    mark="300 kills, ≥ 100 000 acknowledgements, 0 lost, converged p99 ≤ 5 s",
    unit="kills",
    full=300,
    slice=3,
)
async def worker_kill(run: Run) -> Figures:
    """Kill a random worker with SIGKILL at a random time, and restart it."""
    settings = await run.testbed.settings()
    fleet = await run.testbed.fleet(settings, 3, run.random)
    async with crowd(run, fleet.url, settings) as load:
        for kill in range(run.times):
            await load.writers.more(run.load(ACKNOWLEDGED))
            await asyncio.sleep(run.random.uniform(0, 0.05))
            await fleet.kill(run.random.choice(fleet.servers))
            run.progress(kill + 1)
        await load.writers.more(run.load(1000))
    fleet.check()
    figures = load.figures
    figures.faults = run.times
    figures.must(figures.p99 is not None and figures.p99 <= 5)
    figures.must(figures.acknowledged >= run.times * run.load(ACKNOWLEDGED))
    return figures


@scenario(
    "fail-points",
    invariant="acknowledged tokens survive a crash at every fail point, clients converge",
    mark="each point 20 times, 0 lost",
    unit="deaths",
    full=20 * len(POINTS),
    slice=len(POINTS),
)
async def fail_points(run: Run) -> Figures:
    """Let a worker die at a fail point of a write, of the outbox, or of a text."""
    settings = await run.testbed.settings(room_idle=0)
    fleet = await run.testbed.fleet(settings, 1, run.random)
    async with crowd(run, fleet.url, settings) as load, visitors(fleet.url, load, 4, run.random):

        async def die(number: int) -> None:
            point = POINTS[number % len(POINTS)]
            spec = f"{point}:kill:{run.random.randint(1, 20 if point in OFTEN else 2)}"
            async with run.testbed.doomed(fleet, settings, spec) as victim:
                if point not in OFTEN:
                    newest = point == "after_genesis_before_lineage"  # a text is created only once
                    await lure(victim, fleet.url, load, run.random, newest=newest)

        await run.side_by_side(die, AT_ONCE)
        await load.writers.more(run.load(100))
    fleet.check()
    load.figures.faults = run.times
    return load.figures


@scenario(
    "worker-frozen",
    invariant="changes reach the clients of a worker that was frozen without a reset",
    mark="20 times, 0 lost, no reset",
    unit="freezes",
    full=20,
    slice=1,
)
async def worker_frozen(run: Run) -> Figures:
    """Freeze a worker for a while, with its connections open."""
    settings = await run.testbed.settings()
    writing, frozen = [await run.testbed.fleet(settings, 1, run.random) for _ in range(2)]
    async with crowd(run, writing.url, settings, readers=frozen.url) as load:
        for number in range(run.times):
            await load.writers.more(run.load(100))
            os.kill(frozen.servers[0].pid, signal.SIGSTOP)
            await load.writers.more(run.load(500))
            os.kill(frozen.servers[0].pid, signal.SIGCONT)
            run.progress(number + 1)
    frozen.check()
    load.figures.faults = run.times
    assert not any(replica.resets for replica in load.replicas)
    return load.figures


@scenario(
    "publishes-reversed",
    invariant="no client goes back to an earlier version",
    mark="10 000 races, 0 backwards",
    unit="races",
    full=10_000,
    slice=200,
)
async def publishes_reversed(run: Run) -> Figures:
    """Let two workers commit to a note in one order, and publish in the other order or concurrently."""
    settings = await run.testbed.settings()
    fleet = await run.testbed.fleet(settings, 1, run.random)
    async with crowd(run, fleet.url, settings, writers=0, typists=0) as load:
        async with working(settings) as one, working(settings) as other:

            async def race(number: int) -> None:
                note = load.writers.notes[number % NOTES]
                first, second = [await _commit(load, worker, note) for worker in (one, other)]
                if number % 2:
                    await other.outbox.publish(second)
                    await one.outbox.publish(first)
                else:
                    await asyncio.gather(other.outbox.publish(second), one.outbox.publish(first))

            await run.side_by_side(race, NOTES)
    load.figures.faults = run.times
    backwards = sum(replica.backwards for replica in load.replicas)
    load.figures.extra["backwards"] = backwards
    load.figures.must(backwards == 0)
    return load.figures


async def _commit(load: Crowd, worker: Worker, note: int) -> NoteChange:
    token = load.ledger.token("d")
    change = await worker.store.notes.update(note, {"description": token}, None, None)
    assert change is not None
    load.ledger.acknowledge(token, note, change.note.version)
    load.watch.acknowledged(note, change.note.version)
    return change
