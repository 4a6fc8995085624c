"""A chart of the comparison as SVG: one panel of bars for each of several figures, with a light and a dark theme."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from html import escape

from benchmarks.report import METRICS, Report

PANELS = {
    "fanout-32x1000": "deliveries",
    "fanout-1x1000": "deliveries",
    "alone-2": "deliveries",
    "writes-1": "writes",
    "reads-note": "reads",
    "reads-page": "reads",
    "memory": "held",
    "connects-64": "connects",
    "latency": "p99",
}
"""The figures that are drawn, if they exist: scenario and metric."""
WIDTH, COLUMNS, MARGIN = 940, 2, 20
BAR, HEAD, GAP = 20, 46, 22
LABEL, VALUE = 110, 80
"""The widths in pixels of the name of a contender and of its figure."""
OUTLIER = 20
"""A bar longer than this multiple of the median is not drawn to scale."""

STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 13px }
.unit, .note { fill: #57606a; font-size: 11px }
.page { fill: #ffffff }
.bar { fill: #afb8c1 }
.first { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .unit, .note { fill: #9198a1 }
  .page { fill: #0d1117 }
  .bar { fill: #484f58 }
  .first { fill: #4493f8 }
}
"""


def svg(report: Report) -> str:
    """Return the chart."""
    panels = [one for name, metric in PANELS.items() if (one := _panel(report, name, metric))]
    width = (WIDTH - MARGIN * (COLUMNS + 1)) // COLUMNS
    body: list[str] = []
    top = MARGIN
    for start in range(0, len(panels), COLUMNS):
        some = panels[start : start + COLUMNS]
        for column, (title, unit, bars) in enumerate(some):
            left = MARGIN + column * (width + MARGIN)
            body += _drawn(left, top, width, title, unit, bars)
        top += HEAD + GAP + max(len(bars) for _, _, bars in some) * BAR
    told = ", ".join(report.about[name] for name in ("Date", "Machine", "Runs") if name in report.about)
    height = top + MARGIN
    note = f'<text class="note" x="{MARGIN}" y="{height - MARGIN}">{escape(told)}</text>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
            "<title>Medians of the comparison, by scenario and contender</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
            *body,
            note,
            "</svg>\n",
        ]
    )


Bars = list[tuple[str, float, bool]]


def _panel(report: Report, name: str, metric: str) -> tuple[str, str, Bars] | None:
    row = next((row for row in report.rows if row.name == name), None)
    if row is None:
        return None
    first = next(iter(report.contenders))
    bars = [
        (report.contenders[one], value, one == first)
        for one in report.contenders
        if (value := row.median(one, metric)) is not None
    ]
    better = "more is better" if METRICS[metric].more else "less is better"
    title = f"{row.group.partition(':')[0]}: {row.title}"
    return (title, f"{METRICS[metric].unit}, {better}", bars) if bars else None


def _drawn(left: int, top: int, width: int, title: str, unit: str, bars: Bars) -> Iterator[str]:
    yield f'<text class="title" x="{left}" y="{top + 14}">{escape(title)}</text>'
    yield f'<text class="unit" x="{left}" y="{top + 31}">{escape(unit)}</text>'
    # An outlier would make the other bars invisible, so its bar is cut off.
    most = OUTLIER * statistics.median(value for _, value, _ in bars)
    longest = max((value for _, value, _ in bars if value <= most), default=0.0) or 1.0
    room = width - LABEL - VALUE
    for number, (name, value, first) in enumerate(bars):
        y = top + HEAD + number * BAR
        length = max(1.0, room * min(1.0, value / longest))
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        figure = f"{value:,.{digits}f}".replace(",", " ")
        yield f'<text x="{left + LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        kind = "bar first" if first else "bar"
        yield f'<rect class="{kind}" x="{left + LABEL}" y="{y + 1}" width="{length:.1f}" height="{BAR - 6}" rx="2"/>'
        yield f'<text x="{left + LABEL + length + 6:.1f}" y="{y + 12}">{figure}</text>'
