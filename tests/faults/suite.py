"""All scenarios in the order of the report."""

from __future__ import annotations

from tests.faults import api, coediting, conformance, drain, host, hostile, mongo, readers, redis, soak, wire, workers
from tests.faults.scenario import SCENARIOS

__all__ = [
    "SCENARIOS", "api", "coediting", "conformance", "drain", "host", "hostile", "mongo", "readers", "redis", "soak",
    "wire", "workers",
]  # fmt: skip
