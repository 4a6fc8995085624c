"""Preconditions of writes: allowed versions (entity tags) and idempotency keys."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

KEPT_OPERATIONS = 8
"""The number of tokens of idempotent writes that a note keeps."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An idempotent request, identified by its ``Idempotency-Key`` and a digest of the entire request."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class AllBut:
    """All versions except these."""

    versions: frozenset[int]

    def __contains__(self, version: object) -> bool:
        return version not in self.versions


Versions = AllBut | Collection[int] | None
"""The versions at which a write is allowed; ``None`` for any."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a write.

    Attributes:
        versions: The versions at which it is allowed.
        operation: Its idempotency key; ``None`` if the request has no key.
    """

    versions: Versions = None
    operation: Operation | None = None


UNCONDITIONAL = Conditions()


def etag(version: int) -> str:
    """Return the entity tag of a version, including the quotes."""
    return f'"v{version}"'
