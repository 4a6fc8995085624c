"""Workers that are killed."""

from __future__ import annotations

import asyncio

from tests.faults.load import crowd
from tests.faults.scenario import Figures, Run, scenario


@scenario(
    "worker-kill",
    invariant="acknowledged tokens survive, clients converge",
    mark="300 kills, ≥ 100 000 acknowledgements, 0 lost, converged p99 ≤ 5 s",
    unit="kills",
    full=300,
    slice=3,
)
async def worker_kill(run: Run) -> Figures:
    """A worker at random is killed with -9 at any instant, and comes back."""
    settings = await run.stand.settings()
    fleet = await run.stand.fleet(settings, 3, run.random)
    async with crowd(run, fleet.url, settings) as load:
        for kill in range(run.times):
            await load.writers.more(run.load(330))
            await asyncio.sleep(run.random.uniform(0, 0.05))
            await fleet.kill(run.random.choice(fleet.servers))
            run.progress(kill + 1)
        await load.writers.more(run.load(1000))
    fleet.check()
    figures = load.figures
    figures.faults = run.times
    figures.must(figures.p99 is not None and figures.p99 <= 5)
    return figures
