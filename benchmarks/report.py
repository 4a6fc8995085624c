"""The results of the comparison: medians and ratios, as a table for a terminal, as JSON, and as Markdown.

A ratio says how many times better this program is than another one, whether higher or lower values are better. For
several workers, it is the ratio to one worker.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

BEGIN = "<!-- figures: written by `make bench-docs` -->"
END = "<!-- end of the figures -->"


@dataclass(frozen=True)
class Metric:
    """A metric with its unit and number of decimals. ``more`` is whether higher is better; ``None`` for neither."""

    unit: str
    digits: int
    more: bool | None


METRICS = {
    "deliveries": Metric("deliveries/s", 0, True),
    "p50": Metric("p50 ms", 2, False),
    "p99": Metric("p99 ms", 2, False),
    "delivered": Metric("delivered %", 1, None),
    "writes": Metric("writes/s", 0, True),
    "reads": Metric("reads/s", 0, True),
    "answer": Metric("answer p50 ms", 2, False),
    "held": Metric("kB per client", 1, False),
    "connects": Metric("connects/s", 0, True),
    "resumes": Metric("resumes/s", 0, True),
    "resumed": Metric("all back after s", 2, False),
    "before": Metric("p99 ms before", 2, False),
    "slower": Metric("p99 to before", 2, False),
    "frozen": Metric("MiB for each", 2, False),
    "closed": Metric("closed", 0, None),
    "until": Metric("after s", 1, False),
}
"""All metrics by name, in the order of the tables."""


@dataclass
class Row:
    """The results of a scenario: for each contender, the figures of all runs, or the reason why there are none."""

    name: str
    group: str
    title: str
    against: str = ""
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, contender: str, figures: dict[str, float]) -> None:
        """Add the figures of a run."""
        of_runs = self.figures.setdefault(contender, {})
        for name, value in figures.items():
            of_runs.setdefault(name, []).append(value)

    def median(self, contender: str, metric: str) -> float | None:
        """Return the median of all runs, or ``None`` without runs."""
        values = self.figures.get(contender, {}).get(metric)
        return statistics.median(values) if values else None


@dataclass
class Report:
    """The results of a comparison. The ratios are those of the first contender."""

    about: dict[str, str]
    """The date, the machine, the command and other facts, by name."""
    contenders: dict[str, str]
    """The titles of the contenders by name."""
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """The contenders that could not be installed, with the reasons."""
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Report:
        """Load a report from a file."""
        read = json.loads(path.read_text())
        return cls(**{**read, "rows": [Row(**row) for row in read["rows"]]})

    def save(self, path: Path) -> None:
        """Save the report as JSON, with the figures of every run."""
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    def ratio(self, row: Row, contender: str, metric: str) -> float | None:
        """Return how many times better this program is."""
        first = next(iter(self.contenders))
        more = METRICS[metric].more
        own = row.median(first, metric)
        if row.against:
            other = next((one.median(first, metric) for one in self.rows if one.name == row.against), None)
        else:
            other = None if contender == first else row.median(contender, metric)
        if more is None or not own or not other:
            return None
        return own / other if more else other / own

    def tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Yield for each group of scenarios its title, columns and rows: scenario, contender, median and ratio."""
        for group in dict.fromkeys(row.group for row in self.rows):
            rows = [row for row in self.rows if row.group == group]
            found = {metric for row in rows for figures in row.figures.values() for metric in figures}
            columns = [metric for metric in METRICS if metric in found]
            lines = [
                [row.title, self.contenders[name], *(self._cell(row, name, metric) for metric in columns)]
                for row in rows
                for name in self.contenders
                if name in row.figures or name in row.failures
            ]
            yield group, [METRICS[metric].unit for metric in columns], lines

    def _cell(self, row: Row, contender: str, metric: str) -> str:
        value = row.median(contender, metric)
        if value is None:
            return "failed" if contender in row.failures and contender not in row.figures else "–"
        text = f"{value:,.{METRICS[metric].digits}f}".replace(",", " ")
        ratio = self.ratio(row, contender, metric)
        return text if ratio is None else f"{text} (×{ratio:.2f})"

    def failures(self) -> list[str]:
        """Return descriptions of the measurements that failed."""
        lost = [f"{self.contenders.get(name, name)}: {reason}" for name, reason in self.missing.items()]
        return lost + [
            f"{self.contenders[name]}, {row.title} ({row.name}): {reason}"
            for row in self.rows
            for name, reason in row.failures.items()
        ]


LEGEND = "Medians; in parentheses, how many times better this program is (for workers: than one worker)."


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    for group, columns, lines in report.tables():
        table = Table(title=group, title_justify="left")
        table.add_column("", min_width=15, max_width=24)
        for unit in columns:
            table.add_column(unit, justify="right")
        for at, (title, *cells) in enumerate(lines):
            if at == 0 or lines[at - 1][0] != title:
                table.add_section()
                table.add_row(title, style="bold")
            table.add_row(*cells)
        console.print(table)
    console.print(LEGEND)
    for reason in report.failures():
        console.print(f"not measured – {reason}", markup=False)


def markdown(report: Report) -> str:
    """Return the figures as Markdown for the documentation."""
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in report.about.items())]
    lines += [f"| {report.contenders[name]} | {text} |" for name, text in report.versions.items() if text]
    lines += ["", LEGEND]
    for group, columns, rows in report.tables():
        lines += ["", f"### {group}", "", f"| | | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
        lines += [f"| {' | '.join(cells)} |" for cells in rows]
    if lost := report.failures():
        lines += ["", "Not measured:", "", *(f"- {reason}" for reason in lost)]
    return "\n".join(lines)


def write_between(path: Path, text: str) -> None:
    """Write the figures between the markers of a page. Raise ``ValueError`` if it has none."""
    page = path.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no markers for the figures")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
