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
"""The end of a page: the sort value and the id of its last note. Times are in milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A query for a page of notes.

    Attributes:
        q: A full-text search.
        tags: The tags that the notes must have.
        sort: The order. ``relevance`` requires ``q``.
        after: The position after which the page begins.
        limit: The maximum number of notes.
        content: Whether the notes include their contents.
        keys: Only notes that one of these keys gives access to; ``None`` for all notes.
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
    """A page of a list of notes.

    Attributes:
        notes: The notes in order, as in the response.
        after: The position after which the next page begins, if there are more notes.
        complete: False if a search was stopped because it took too long. Then there is no next page.
    """

    notes: Sequence[dict[str, Any]]
    after: Position | None
    complete: bool = True

    @cached_property
    def json(self) -> bytes:
        """The notes as a JSON array, encoded once for all requests that share the page."""
        return to_json(self.notes)
