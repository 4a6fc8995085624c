"""A slice of the fault suite, with a seed that stays: a few of each fault. All of it: ``make faults``."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime.embedded.pair import EmbeddedServers
from tests.faults.scenario import Scenario, perform
from tests.faults.suite import SCENARIOS

SEED = 1


# The drivers of the tests leave sockets to the servers that are killed under them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("one", SCENARIOS.values(), ids=str)
async def test_slice(one: Scenario, tmp_path: Path, embedded: EmbeddedServers) -> None:
    result = await perform(one, seed=SEED, times=one.slice, folder=tmp_path, thorough=False, shared=embedded)
    assert result.good, result.figures
