"""The query of a feed: which notes a client subscribes to, and from where on."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from realtime.eventlog.cursor import Cursor


class FeedQuery(BaseModel):
    """What a subscriber asks for, in the query of each way in."""

    model_config = ConfigDict(extra="forbid")

    since: Annotated[
        str | None, Field(max_length=64, description="resume after this cursor; what was missed comes first")
    ] = None
    notes: Annotated[
        str | None,
        Field(
            pattern=r"^[1-9][0-9]{0,15}(,[1-9][0-9]{0,15}){0,99}$",
            description="only these notes, by id, separated by commas (at most 100); with it comes their presence",
        ),
    ] = None
    content: Annotated[bool, Field(description="`false` leaves the notes' texts out")] = True

    @property
    def ids(self) -> frozenset[int] | None:
        """The notes wanted; ``None`` for all."""
        return None if self.notes is None else frozenset(map(int, self.notes.split(",")))

    @property
    def cursor(self) -> Cursor | None:
        """Where to resume."""
        return None if self.since is None else Cursor.parse(self.since)
