"""Conditions of a write: allowed versions (entity tags), and the operation of an ``Idempotency-Key``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

KEPT_OPERATIONS = 8  # keyed writes that a note remembers


@dataclass(frozen=True, slots=True)
class Operation:
    """What makes a write safe to repeat: the client's ``Idempotency-Key`` and a digest of its whole request."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class AllBut:
    """All versions except these."""

    versions: frozenset[int]

    def __contains__(self, version: object) -> bool:
        return version not in self.versions


Versions = AllBut | Collection[int] | None
"""Versions at which a write is allowed; ``None`` for any."""


def etag(version: int) -> str:
    """The entity tag of a version, with its quotes."""
    return f'"v{version}"'
