"""Events of the log, decoded: a change of a note in all its variants, and who may receive it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.core.frames import Frame
    from realtime.eventlog.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Audience:
    """Who may have the events of a note: the keys that open it since a version of it.

    ``former`` are those that did before, each with the version that ended it.
    """

    since: int
    readers: frozenset[str | None]
    former: Mapping[str | None, int]


UNSHARED = Audience(1, frozenset({None}), {})
"""That of a note that nobody owns."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a note in its variants: ``full``, ``slim`` without the content, ``gone`` for who lost the note."""

    id: int
    cursor: Cursor
    full: Frame
    slim: Frame
    deleted: bool = False
    audience: Audience = UNSHARED
    gone: Frame | None = None
