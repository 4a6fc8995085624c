"""Domain errors, their HTTP status, and the WebSocket close codes.

::

    RealtimeError
     ├── NoteNotFound            404
     ├── VersionMismatch         412, carries the current note
     ├── KeyReused               422
     ├── OutcomeForgotten        409, a repeat came too late to tell whether it was applied
     ├── Unavailable             503
     │    └── OutcomeUnknown     503, the write may or may not have been committed
     ├── BusUnavailable          Redis is away: never reaches a client
     └── EmbeddedError           the embedded servers could not be started
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from realtime.models import Note


class CloseCode(IntEnum):
    """WebSocket close codes. Below 4500 a client comes back, from 4500 on (and for 1009) it does not."""

    DRAIN = 1012
    TOO_BIG = 1009
    TOO_SLOW = 4008
    RESUME = 4010
    NO_PONG = 4012
    TOO_MANY = 4029
    BAD_FRAME = 4500
    NOT_SIGNED_IN = 4501
    PERMISSION_GONE = 4503
    NOTE_GONE = 4504


def may_come_back(code: int) -> bool:
    """Whether a client that was closed with this code should connect again."""
    return code < 4500 and code != CloseCode.TOO_BIG


CLOSE_REASONS: dict[CloseCode, str] = {
    CloseCode.DRAIN: "the server is going away, come back",
    CloseCode.TOO_BIG: "message too big",
    CloseCode.TOO_SLOW: "too slow, resume with the last cursor",
    CloseCode.RESUME: "resume with the last cursor",
    CloseCode.NO_PONG: "no pong",
    CloseCode.TOO_MANY: "too many",
    CloseCode.BAD_FRAME: "bad frame",
    CloseCode.NOT_SIGNED_IN: "not signed in",
    CloseCode.PERMISSION_GONE: "permission gone",
    CloseCode.NOTE_GONE: "note gone",
}


class RealtimeError(Exception):
    """Whatever goes wrong in a way that has a name."""

    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NoteNotFound(RealtimeError):
    """There is no note with this id, or it was deleted."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Note not found")


class VersionMismatch(RealtimeError):
    """``If-Match`` names a version that is not the current one."""

    status = 412

    def __init__(self, current: Note) -> None:
        super().__init__(f"The note is at version {current.version}, which If-Match does not name")
        self.current = current


class KeyReused(RealtimeError):
    """An ``Idempotency-Key`` came with another request than the first time."""

    status = 422

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request")


class OutcomeForgotten(RealtimeError):
    """A request is repeated whose first outcome is unknown, and too much happened since to find out."""

    status = 409

    def __init__(self) -> None:
        super().__init__("Whether this request was applied cannot be told any more: read the note, and decide")


class Unavailable(RealtimeError):
    """MongoDB did not answer in time. Nothing was written."""

    status = 503

    def __init__(self, detail: str = "The database is not available, try again") -> None:
        super().__init__(detail)


class OutcomeUnknown(Unavailable):
    """MongoDB did not confirm a write in time: it may or may not have been committed."""

    def __init__(self) -> None:
        super().__init__(
            "The database did not confirm the write in time. It may have been saved:"
            " read the note, or repeat the request with the same Idempotency-Key"
        )


class BusUnavailable(RealtimeError):
    """Redis did not answer."""


class EmbeddedError(RealtimeError):
    """The embedded servers could not be started; the message says what to do."""
