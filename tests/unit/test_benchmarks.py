"""Tests of the comparison itself: its command line and its report. They measure nothing."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import compare
from benchmarks.chart import PANELS, svg
from benchmarks.peers import CONTENDERS
from benchmarks.report import BEGIN, END, METRICS, Report, Row, markdown, show, write_between
from benchmarks.scenarios import SCENARIOS


@pytest.fixture
def report() -> Report:
    """Return a report of two runs. This program is twice as fast as Bun, and with two workers as with one."""
    fan_out = Row("fanout-32x1000", "Fan-out: all", "32 writers")
    one, two = Row("workers-1", "Workers", "1 worker"), Row("workers-2", "Workers", "2 workers", "workers-1")
    for deliveries in (900_000.0, 1_100_000.0):
        fan_out.add("realtime", {"deliveries": deliveries, "p99": 4.0, "delivered": 100.0})
        fan_out.add("bun", {"deliveries": deliveries / 2, "p99": 8.0, "delivered": 50.0})
        one.add("realtime", {"writes": 1000.0})
        two.add("realtime", {"writes": 2000.0})
    fan_out.failures["ws"] = "it <fell> over"
    titles = {"realtime": "realtime", "bun": "Bun", "ws": "Node ws"}
    about = {"Date": "2026-01-01", "Machine": "a & b", "Command": "`make bench`"}
    return Report(about, titles, {"bun": "bun@1"}, {"channels": "no network"}, [fan_out, one, two])


def test_ratio_compares_the_median_with_the_baseline(report: Report) -> None:
    fan_out, one, two = report.rows
    assert fan_out.median("realtime", "deliveries") == 1_000_000
    assert report.ratio(fan_out, "bun", "deliveries") == 2
    assert report.ratio(fan_out, "bun", "p99") == 2
    assert report.ratio(fan_out, "bun", "delivered") is None
    assert report.ratio(fan_out, "realtime", "deliveries") is None
    assert report.ratio(one, "realtime", "writes") is None
    assert report.ratio(two, "realtime", "writes") == 2


def test_show_prints_values_ratios_and_failures(report: Report) -> None:
    output = StringIO()
    show(report, Console(file=output, width=120))
    text = output.getvalue()
    for part in ("1 000 000", "500 000 (×2.00)", "8.00 (×2.00)", "failed", "it <fell> over", "no network"):
        assert part in text


def test_write_between_replaces_the_text_between_the_markers(report: Report, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between(page, markdown(report))
    write_between(page, markdown(report))
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| 32 writers | Bun | 500 000 (×2.00) | 8.00 (×2.00) | 50.0 |" in text
    assert text.count("| Machine | a & b |") == 1


def test_write_between_without_markers_keeps_the_page(report: Report, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing to fill\n")
    with pytest.raises(ValueError, match="no markers"):
        write_between(page, markdown(report))
    assert page.read_text() == "# Nothing to fill\n"


def test_performance_page_has_the_markers_and_all_scenarios() -> None:
    page = (compare.DOCS / "performance.md").read_text()
    assert page.index(BEGIN) < page.index(END)
    assert [one.name for one in SCENARIOS if f"`{one.name}`" not in page] == []


def test_saved_report_is_loaded_unchanged(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "figures.json")
    assert Report.load(tmp_path / "figures.json") == report


def test_chart_has_titles_values_and_bars(report: Report) -> None:
    picture = ET.fromstring(svg(report))
    texts = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "Fan-out: 32 writers" in texts
    assert "1 000 000" in texts
    assert "2026-01-01, a & b" in texts
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}rect"))) == 3  # the page, and a bar each
    assert PANELS.keys() <= {one.name for one in SCENARIOS}
    assert set(PANELS.values()) <= METRICS.keys()


def test_help_lists_all_scenarios_and_contenders(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.parser().parse_args(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--quick" in text
    assert [name for name in (*(one.name for one in SCENARIOS), *CONTENDERS) if name not in text] == []


def test_chosen_returns_the_selected_scenarios_and_contenders() -> None:
    parser = compare.parser()
    scenarios, contenders = compare.chosen(parser.parse_args(["--only", "reads-*,memory", "--contenders", "bun"]))
    assert [one.name for one in scenarios] == ["reads-note", "reads-page", "memory"]
    assert [one.name for one in contenders] == ["realtime", "bun"]
    assert compare.chosen(parser.parse_args([])) == (SCENARIOS, list(CONTENDERS.values()))
    for wrong in (["--only", "nothing"], ["--contenders", "nobody"]):
        with pytest.raises(ValueError, match="there is no"):
            compare.chosen(parser.parse_args(wrong))
