"""Planned stops: a server that drains, and workers that are replaced one at a time."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

from realtime.feed.service import MAX_CLOSES_PER_SECOND
from tests.faults.load import Crowd, crowd
from tests.faults.readers import Visitor
from tests.faults.scenario import Figures, Run, scenario
from tests.faults.testbed import workers_of
from tests.support.harness import ServerProcess, eventually, rest_client

DRAIN = 2.0


def _none_failed(load: Crowd) -> None:
    failed = load.writers.unanswered + load.writers.refused
    load.figures.extra["failed calls"] = failed
    assert failed == 0, f"{failed} calls failed"


async def _leave(server: ServerProcess, here: list[ServerProcess]) -> None:
    """Remove a draining server from the list of a load balancer."""
    async with rest_client(server.url) as rest:

        async def away() -> bool:
            return (await rest.get("/readyz")).status_code == 503

        await eventually(away)
    here.remove(server)


@scenario(
    "drain",
    invariant="no call fails, and clients reconnect spread over time",
    mark="20 times, 0 failed",
    unit="drains",
    full=20,
    slice=1,
)
async def drain(run: Run) -> Figures:
    """Stop one of two servers with SIGTERM under load, and restart it."""
    settings = await run.testbed.settings(drain_seconds=DRAIN, log_level="warning")
    fleet = await run.testbed.fleet(settings, 2, run.random)
    here = list(fleet.servers)
    spread = 1.0
    async with crowd(run, lambda: run.random.choice(here).url, settings) as load:
        for number in range(run.times):
            server = run.random.choice(fleet.servers)
            async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
                visitors = [await stack.enter_async_context(Visitor(server.ws)) for _ in range(1000)]
                for visitor in visitors:
                    tasks.create_task(visitor.listen())
                await eventually(lambda: all(visitor.ready for visitor in visitors))  # noqa: B023
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                await _leave(server, here)
                assert await asyncio.to_thread(server.wait, 20.0) == 0
            times = sorted(visitor.closed or 0.0 for visitor in visitors)
            wanted = min(DRAIN, len(times) / MAX_CLOSES_PER_SECOND)
            spread = min(spread, (times[-10] - times[9]) / wanted)
            await asyncio.to_thread(server.start)
            here.append(server)
            await load.writers.more(run.load(200))
            run.progress(number + 1)
    _none_failed(load)
    figures = load.figures
    figures.faults = run.times
    figures.extra["spread over"] = f"{spread:.0%} of the available time"
    figures.must(not run.thorough or spread >= 0.5)  # a slice may run on a busy machine
    return figures


@scenario(
    "rolling-restart",
    invariant="no call fails",
    mark="20 times, 0 failed",
    unit="restarts",
    full=20,
    slice=1,
)
async def rolling(run: Run) -> Figures:
    """Replace the two workers of a server one at a time with SIGHUP under load."""
    settings = await run.testbed.settings(log_level="warning")
    server = await run.testbed.serve(settings, workers=2)
    async with crowd(run, lambda: server.url, settings) as load:
        for number in range(run.times):
            before = workers_of(server)
            os.kill(server.pid, signal.SIGHUP)

            def replaced() -> bool:
                now = workers_of(server)
                return len(now - before) == 2 and not now & before  # noqa: B023

            await eventually(replaced, within=40)
            await load.writers.more(run.load(200))
            run.progress(number + 1)
    _none_failed(load)
    load.figures.faults = run.times
    return load.figures
