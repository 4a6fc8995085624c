"""Tests of the fault suite itself: command line, ledger, and report. `test_slice.py` runs the scenarios."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from tests.faults.__main__ import main
from tests.faults.clients import Feed, Watch
from tests.faults.ledger import Broken, Ledger, counted
from tests.faults.report import load, render, row, save
from tests.faults.scenario import SCENARIOS, Figures, Result

command = Typer()
command.command()(main)


def test_list_option_prints_all_scenarios() -> None:
    result = CliRunner().invoke(command, ["--list"])
    assert result.exit_code == 0
    assert all(name in result.stdout for name in SCENARIOS)


def test_unknown_scenario_is_refused_with_its_name() -> None:
    result = CliRunner().invoke(command, ["no-such-fault"])
    assert result.exit_code == 2
    assert "no-such-fault" in result.stderr


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"d000001": 1, "c000002": 1}, None),
        ({"d000001": 1, "c000002": 1, "d000003": 1}, None),
        ({"d000001": 1}, "1 acknowledged, but not in MongoDB: c000002"),
        ({"d000001": 1, "c000002": 2}, "1 more than once in MongoDB: c000002"),
        ({"d000001": 1, "c000002": 1, "d000003": 2}, "1 more than once in MongoDB: d000003"),
        ({"d000001": 1, "c000002": 1, "d000004": 1}, "1 never sent, but in MongoDB: d000004"),
    ],
)
def test_ledger_check_requires_each_acknowledged_token_once(found: dict[str, int], message: str | None) -> None:
    ledger, figures = Ledger(), Figures()
    kept, typed, unknown = ledger.token("d"), ledger.token("c"), ledger.token("d")
    ledger.unknown |= {typed, unknown}
    ledger.acknowledge(kept, 1, 2)
    ledger.acknowledge(typed)
    if message is None:
        ledger.check(Counter(found), "MongoDB", figures)
    else:
        with pytest.raises(Broken, match=message):
            ledger.check(Counter(found), "MongoDB", figures)


def test_tokens_are_counted_over_all_contents() -> None:
    assert counted(["c000001;c000002;", "words c000003;c000002;"]) == {"c000001": 1, "c000002": 2, "c000003": 1}


def test_watch_counts_versions_that_feeds_lack() -> None:
    one, other = Feed(lambda: ""), Feed(lambda: "")
    watch = Watch([one, other])
    watch.acknowledged(1, 3)
    one.versions[1] = 4
    watch.look()
    assert (len(watch.seconds), watch.waiting) == (1, 1)
    assert not watch.has_all_until(float("inf"))
    other.versions[1] = 3
    assert watch.has_all_until(float("inf"))
    assert watch.lag == 0


def test_results_are_saved_loaded_and_rendered(tmp_path: Path) -> None:
    one, other = list(SCENARIOS.values())[:2]
    figures = Figures(faults=3, acknowledged=12_345, extra={"resets": 2})
    figures.converged([0.1] * 98 + [2.0, 3.0])
    assert (figures.p50, figures.p99, figures.longest) == (0.1, 3.0, 3.0)
    results = {one.name: Result(one.name, 7, 3, 61.0, figures), other.name: Result(other.name, 7, 3, 0.0, None, "boom")}
    save(tmp_path / "results.json", results)
    assert load(tmp_path / "results.json") == results
    assert (results[one.name].good, results[other.name].good) == (True, False)
    assert row(one, results[one.name])[:5] == [one.name, f"3 of {one.full} {one.unit}", "12 345", "0", "0"]
    page = render(SCENARIOS.values(), results)
    assert f"| `{one.name}` | {one.invariant} | {one.mark} |" in page
    assert "failed: boom" in page
