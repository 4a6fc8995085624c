"""All scenarios, in the order of the report."""

from __future__ import annotations

from tests.faults import api, coediting, conformance, mongo, redis, wire, workers
from tests.faults.scenario import SCENARIOS

__all__ = ["SCENARIOS", "api", "coediting", "conformance", "mongo", "redis", "wire", "workers"]
