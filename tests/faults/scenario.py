"""What a scenario of the fault suite is: something is broken many times, under load, and the promise is checked."""

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
from tests.faults.stand import Stand

LIMIT = 45 * 60.0


@dataclass
class Figures:
    """What was counted. ``reached`` is whether the scenario's mark is."""

    faults: int = 0
    acknowledged: int = 0
    unknown: int = 0
    lost: int = 0
    doubled: int = 0
    unconverged: int = 0
    p50: float | None = None
    p99: float | None = None
    longest: float | None = None
    """Seconds from an acknowledgement to each client."""
    reached: bool = True
    extra: dict[str, float | int | str] = field(default_factory=dict)

    def converged(self, seconds: Sequence[float]) -> None:
        """Takes the times from acknowledgements to clients."""
        ordered = sorted(seconds)
        if ordered:
            self.p50, self.p99, self.longest = (
                round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 3) for part in (0.5, 0.99, 1.0)
            )

    def must(self, reached: bool) -> None:
        """A part of the mark."""
        self.reached = self.reached and bool(reached)


@dataclass(frozen=True)
class Run:
    """One run of a scenario. ``thorough`` is false in the slice that ``make test`` takes: then load is light, too."""

    seed: int
    random: Random
    times: int
    thorough: bool
    stand: Stand
    progress: Callable[[int], None] = lambda _: None

    def load(self, full: int) -> int:
        """How much of a load of ``full`` this run is to make between two faults."""
        return full if self.thorough else max(1, full // 10)

    async def side_by_side(self, fault: Callable[[int], Awaitable[None]], many: int) -> None:
        """Makes all the faults, each with its number, so many at a time."""
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
    """A scenario by its name; ``full`` and ``slice`` are how many of its ``unit`` it counts."""

    name: str
    unit: str
    invariant: str
    mark: str
    full: int
    slice: int
    body: Body
    limit: float
    """Seconds after which it counts as hung."""

    def __str__(self) -> str:
        return self.name


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, *, invariant: str, mark: str, full: int, slice: int, unit: str = "faults", limit: float = LIMIT
) -> Callable[[Body], Body]:
    """Registers a scenario."""

    def register(body: Body) -> Body:
        assert name not in SCENARIOS, name
        SCENARIOS[name] = Scenario(name, unit, invariant, mark, full, slice, body, limit)
        return body

    return register


@dataclass(frozen=True)
class Result:
    """How a run of a scenario ended: its figures, or why it failed."""

    name: str
    seed: int
    times: int
    seconds: float
    figures: Figures | None
    failure: str | None = None

    @property
    def good(self) -> bool:
        """Whether nothing failed and the mark is reached."""
        return self.figures is not None and self.figures.reached

    def plain(self) -> dict[str, Any]:
        """For JSON."""
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
    """Runs a scenario. What it raises says how to repeat it."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(one.limit), Stand(folder, shared) as stand:
            figures = await one.body(Run(seed, Random(f"{seed} {one.name}"), times, thorough, stand, progress))
    except Exception as error:
        error.add_note(f"To repeat it: python -m tests.faults {one.name} --seed {seed} --times {times}")
        raise
    return Result(one.name, seed, times, round(time.monotonic() - started, 1), figures)
