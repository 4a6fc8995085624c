"""A slice of the fault suite with a fixed seed: a few of each fault. ``make faults`` runs the full suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime.embedded.pair import EmbeddedServers
from tests.faults.scenario import Scenario, perform
from tests.faults.suite import SCENARIOS

SEED = 1


# The drivers in the tests leave sockets open to the servers that are killed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=str)
async def test_slice_of_scenario_keeps_its_invariant(
    scenario: Scenario, tmp_path: Path, embedded: EmbeddedServers
) -> None:
    result = await perform(scenario, seed=SEED, times=scenario.slice, folder=tmp_path, thorough=False, shared=embedded)
    assert result.good, result.figures
