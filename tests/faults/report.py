"""The results of the fault suite: stored as JSON, and rendered into ``docs/explanation/reliability.md``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.compare import machine
from tests.faults.scenario import Figures, Result, Scenario

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
HEAD = ("fault", "times", "acknowledged", "lost", "doubled", "p50", "p99", "longest", "other", "seed", "time")
ABOUT = """\
# Reliability

`make faults` breaks the server under load and checks its guarantees: no acknowledged write is lost or applied twice,
and every client converges. It also writes this page.

Every operation carries a token and is recorded as acknowledged, unknown, or never sent. At the end, each acknowledged
token must be in MongoDB exactly once, and each unknown one at most once. The clients of the feed (`/ws`), of
`/events`, and of `/changes`, and the texts of the clients that type, must be equal to MongoDB. Versions must have no
holes, neither in the history nor in the change stream of MongoDB, which audits all runs.

p50, p99, and longest are the times from an acknowledgement to each client. "30 of 300" is a shorter run than the
target requires. The soak runs for two hours, possibly beside other scenarios: their times are those of a busy
machine.
"""


def load(file: Path | None) -> dict[str, Result]:
    """Return the results in a file by scenario."""
    if file is None or not file.exists():
        return {}
    return {name: _result(told) for name, told in json.loads(file.read_text()).items()}


def save(file: Path | None, results: Mapping[str, Result]) -> None:
    """Save results to a file."""
    if file is not None:
        file.write_text(json.dumps({name: result.plain() for name, result in results.items()}, indent=1) + "\n")


def _result(told: dict[str, Any]) -> Result:
    figures = told.pop("figures")
    return Result(**told, figures=None if figures is None else Figures(**figures))


def row(one: Scenario, result: Result) -> list[str]:
    """Return the cells of the table row for a result."""
    figures = result.figures
    if figures is None:
        return [
            one.name,
            str(result.times),
            f"failed: {' '.join((result.failure or '').split())[:300]}",
            str(result.seed),
        ]
    faults = f"{figures.faults:,}".replace(",", " ")
    extra = ", ".join(f"{name} {value}" for name, value in figures.extra.items())
    return [
        one.name,
        f"{faults}{f' of {one.full}' if result.times < one.full else ''} {one.unit}",
        f"{figures.acknowledged:,}".replace(",", " "),
        str(figures.lost),
        str(figures.doubled),
        *("" if value is None else f"{value:.2f} s" for value in (figures.p50, figures.p99, figures.longest)),
        extra if figures.reached else f"target missed {extra}",
        str(result.seed),
        f"{result.seconds:.0f} s",
    ]


def render(scenarios: Iterable[Scenario], results: Mapping[str, Result]) -> str:
    """Return the page."""
    return "\n".join(_page([one for one in scenarios if one.name in results], results)) + "\n"


def _page(scenarios: list[Scenario], results: Mapping[str, Result]) -> Iterator[str]:
    yield ABOUT
    yield f"Machine: {machine()['Machine']}. {machine()['Versions']}. `--seed` repeats a run. All runs together took"
    yield f"{sum(result.seconds for result in results.values()) / 60:.0f} minutes."
    yield from ("", "| fault | guarantee | target |", "|---|---|---|")
    for one in scenarios:
        yield f"| `{one.name}` | {one.invariant} | {one.mark} |"
    yield from ("", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|")
    for one in scenarios:
        cells = row(one, results[one.name])
        cells += [""] * (len(HEAD) - len(cells))
        yield f"| {' | '.join(cells)} |"
