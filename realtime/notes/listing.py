"""Lists of notes: order, position and page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic_core import to_json

from realtime.auth.permissions import Key

Sort = Literal["id", "-id", "title", "-title", "created", "-created", "updated", "-updated", "relevance"]
Position = tuple[int | float | str, int]
"""Where a page ends: what its last note is ordered by, and its id. Times are in milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a page of a list is asked for. ``relevance`` is an order of what ``q`` finds only.

    With ``keys`` only of notes that one of them opens.
    """

    q: str | None = None
    tags: tuple[str, ...] = ()
    sort: Sort = "id"
    after: Position | None = None
    limit: int = 100
    content: bool = True
    keys: frozenset[Key] | None = None


@dataclass(frozen=True)
class Page:
    """Notes in order, as clients get them, and where the next page begins, if there are more."""

    notes: Sequence[dict[str, Any]]
    after: Position | None
    complete: bool = True
    """Whether nothing is missing. A search that would take too long is cut short: then there is no next page."""

    @cached_property
    def json(self) -> bytes:
        """The notes as a JSON array, made once for all who share the page."""
        return to_json(self.notes)
