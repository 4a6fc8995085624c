"""The query parameters of the feed: the notes to subscribe to, and the cursor to resume from."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from realtime.eventlog.cursor import Cursor


class FeedQuery(BaseModel):
    """Query parameters of `/ws`, `/events` and `/changes`."""

    model_config = ConfigDict(extra="forbid")

    since: Annotated[
        str | None, Field(max_length=64, description="resume after this cursor: missed events are sent first")
    ] = None
    notes: Annotated[
        str | None,
        Field(
            pattern=r"^[1-9][0-9]{0,15}(,[1-9][0-9]{0,15}){0,99}$",
            description="ids of the notes to subscribe to, separated by commas (at most 100). Includes their presence",
        ),
    ] = None
    content: Annotated[bool, Field(description="`false` omits the notes' `content`")] = True

    @property
    def ids(self) -> frozenset[int] | None:
        """Ids of the notes to subscribe to; ``None`` for all."""
        return None if self.notes is None else frozenset(map(int, self.notes.split(",")))

    @property
    def cursor(self) -> Cursor | None:
        """The cursor to resume from, if there is one."""
        return None if self.since is None else Cursor.parse(self.since)
