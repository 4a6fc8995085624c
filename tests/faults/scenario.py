"""Scenarios of the fault suite. Each injects a fault repeatedly under load and checks the guarantees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from realtime.embedded.pair import EmbeddedServers
from tests.faults.testbed import Testbed

LIMIT = 45 * 60.0


def p99(seconds: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return sorted(seconds)[int(len(seconds) * 0.99)]


@dataclass
class Figures:
    """The measurements of a scenario. ``reached`` is whether the target of the scenario was reached."""

    faults: int = 0
    acknowledged: int = 0
    unknown: int = 0
    lost: int = 0
    doubled: int = 0
    unconverged: int = 0
    p50: float | None = None
    p99: float | None = None
    longest: float | None = None
    """``p50``, ``p99`` and ``longest`` are seconds from an acknowledgement to each client."""
    reached: bool = True
    extra: dict[str, float | int | str] = field(default_factory=dict)

    def converged(self, seconds: Sequence[float]) -> None:
        """Store the percentiles of the times from acknowledgements to clients."""
        ordered = sorted(seconds)
        if ordered:
            self.p50, self.p99, self.longest = (
                round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 3) for part in (0.5, 0.99, 1.0)
            )

    def must(self, reached: bool) -> None:
        """Add a condition to the target."""
        self.reached = self.reached and bool(reached)


@dataclass(frozen=True)
class Run:
    """A run of a scenario. ``thorough`` is false in the slice of ``make test``, which also has a lower load."""

    seed: int
    random: Random
    times: int
    thorough: bool
    testbed: Testbed
    progress: Callable[[int], None] = lambda _: None

    def load(self, full: int) -> int:
        """Return the load between two faults in this run, given that of a thorough run."""
        return full if self.thorough else max(1, full // 10)

    async def side_by_side(self, fault: Callable[[int], Awaitable[None]], many: int) -> None:
        """Inject all numbered faults, a limited number at a time."""
        numbers = iter(range(self.times))
        done = count(1)

        async def lane() -> None:
            for number in numbers:
                await fault(number)
                self.progress(next(done))

        async with asyncio.TaskGroup() as lanes:
            for _ in range(many):
                lanes.create_task(lane())


Body = Callable[[Run], Awaitable[Figures]]


@dataclass(frozen=True)
class Scenario:
    """A scenario. ``full`` and ``slice`` are the number of its ``unit`` in a full run and in a slice."""

    name: str
    unit: str
    invariant: str
    mark: str
    full: int
    slice: int
    body: Body
    limit: float
    """The timeout in seconds."""

    def __str__(self) -> str:
        return self.name


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, *, invariant: str, mark: str, full: int, slice: int, unit: str = "faults", limit: float = LIMIT
) -> Callable[[Body], Body]:
    """Register a scenario."""

    def register(body: Body) -> Body:
        assert name not in SCENARIOS, name
        SCENARIOS[name] = Scenario(name, unit, invariant, mark, full, slice, body, limit)
        return body

    return register


@dataclass(frozen=True)
class Result:
    """The result of a run: its measurements, or the reason for its failure."""

    name: str
    seed: int
    times: int
    seconds: float
    figures: Figures | None
    failure: str | None = None

    @property
    def good(self) -> bool:
        """Whether the run succeeded and reached the target."""
        return self.figures is not None and self.figures.reached

    def plain(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return asdict(self)


async def perform(
    one: Scenario,
    *,
    seed: int,
    times: int,
    folder: Path,
    thorough: bool,
    shared: EmbeddedServers | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Result:
    """Run a scenario. A failure includes the command that repeats it."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(one.limit), Testbed(folder, shared) as testbed:
            figures = await one.body(Run(seed, Random(f"{seed} {one.name}"), times, thorough, testbed, progress))
    except Exception as error:
        error.add_note(f"To repeat it: python -m tests.faults {one.name} --seed {seed} --times {times}")
        raise
    return Result(one.name, seed, times, round(time.monotonic() - started, 1), figures)
