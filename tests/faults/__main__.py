"""The command of the fault suite: ``python -m tests.faults``, or ``make faults`` to run all and write the report."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.faults.report import PAGE, load, render, row, save
from tests.faults.scenario import Result, Scenario, perform
from tests.faults.suite import SCENARIOS

output = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def _chosen(names: list[str]) -> list[Scenario]:
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"there is no scenario {', '.join(unknown)}; --list tells which there are")
    return [one for one in SCENARIOS.values() if not names or one.name in names]


def _reason(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error) or repr(error)


def _run(one: Scenario, seed: int, times: int, thorough: bool, progress: Progress) -> Result:
    task = progress.add_task(one.name, total=times)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        try:
            return asyncio.run(
                perform(
                    one,
                    seed=seed,
                    times=times,
                    folder=Path(folder),
                    thorough=thorough,
                    progress=lambda done: progress.update(task, completed=done),
                )
            )
        except Exception as error:  # noqa: BLE001  # the next scenario runs after any error
            errors.print_exception()
            return Result(one.name, seed, times, 0.0, None, _reason(error))


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Scenarios; all, without any.")] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats a run. Without it, one is drawn.")] = None,
    scale: Annotated[float, typer.Option(min=0.001, max=1.0, help="How much of the full number of faults.")] = 1.0,
    times: Annotated[int | None, typer.Option(min=1, help="How many faults, instead.")] = None,
    light: Annotated[bool, typer.Option("--light", help="With the load of the slice that the tests take.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Only tells which scenarios there are.")] = False,
    json: Annotated[Path | None, typer.Option(help="Keeps the results here, beside those of other scenarios.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Writes docs/explanation/reliability.md from the results.")
    ] = False,
) -> None:
    """Inject faults repeatedly, and check the guarantees of the server."""
    scenarios = _chosen(names or [])
    if show:
        table = Table("scenario", "full", "what must hold", "the mark")
        for one in scenarios:
            table.add_row(one.name, f"{one.full} {one.unit}", one.invariant, one.mark)
        output.print(table)
        return
    for name in [name for name in os.environ if name.startswith("REALTIME_")]:
        del os.environ[name]
    drawn = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    output.print(f"seed {drawn}")
    results = load(json)
    failed = False
    columns = [TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=errors, disable=not sys.stderr.isatty()) as progress:
        for one in scenarios:
            result = _run(one, drawn, times or max(1, round(one.full * scale)), not light, progress)
            results[one.name] = result
            save(json, results)
            failed = failed or not result.good
            output.print(" · ".join(row(one, result)))
    if write:
        PAGE.write_text(render(SCENARIOS.values(), results))
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    typer.run(main)
