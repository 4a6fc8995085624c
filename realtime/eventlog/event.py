"""Decoded events of the log: a change to a note, with a frame for each kind of subscription, and its audience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.core.frames import Frame
    from realtime.eventlog.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Audience:
    """The access rights that decide which clients receive the events of a note.

    Attributes:
        since: Version of the note at which this audience was set.
        readers: Principal keys with access to the note.
        former: Principal keys that lost access, with the version at which they lost it.
    """

    since: int
    readers: frozenset[str | None]
    former: Mapping[str | None, int]


UNSHARED = Audience(1, frozenset({None}), {})
"""The audience of notes without an owner."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change to a note.

    Attributes:
        id: Id of the note.
        cursor: Position in the log.
        full: Frame with the whole note.
        slim: Frame without the note's ``content``.
        deleted: Whether the note was deleted.
        audience: The access rights that decide which clients receive the event.
        gone: Frame for clients that lost access to the note; ``None`` if it has no owner and was never shared.
    """

    id: int
    cursor: Cursor
    full: Frame
    slim: Frame
    deleted: bool = False
    audience: Audience = UNSHARED
    gone: Frame | None = None
