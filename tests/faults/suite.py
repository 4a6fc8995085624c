"""All scenarios, in the order of the report."""

from __future__ import annotations

from tests.faults import coediting, mongo, redis, workers
from tests.faults.scenario import SCENARIOS

__all__ = ["SCENARIOS", "coediting", "mongo", "redis", "workers"]
