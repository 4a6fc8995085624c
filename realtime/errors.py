"""Domain errors, their HTTP status, and the WebSocket close codes.

::

    RealtimeError
     ├── NoteNotFound            404
     ├── VersionNotFound         404, the history does not have it
     ├── NoAccounts              404, the server has none
     ├── NotThere                404, a session, token or user
     ├── Insecure                400, a password came where others can read it
     ├── NotSignedIn             401
     ├── Forbidden               403
     │    └── ConfirmationNeeded 403, tells that the password has to be confirmed first
     ├── NameTaken               409
     ├── LastAdmin               409, there would be no administrator any more
     ├── UnknownHeir             422, nobody who can get the notes of a deleted account
     ├── PasswordRefused         422, says what it must be
     ├── QuotaExceeded           413, the owner of a note has no room left
     ├── TooMany                 429, carries when to try again
     ├── Behind                  carries the current note
     │    ├── VersionMismatch    412
     │    ├── BaseNotFound       409, nothing to merge with
     │    └── MergeConflict      409, carries both texts and the conflicting ranges, too
     ├── EditRefused             409, the text is not there as often as said
     ├── IdsTaken                409
     ├── WouldNotFit             422, what a write would make of a field
     │    └── ContentTooLong     422
     ├── ImportRefused           422, nothing can be imported, or too much at once
     ├── FileSkipped             422, one file of an import is not a note; the others are imported
     ├── KeyReused               422
     ├── UnknownPeople           422, names nobody goes by
     ├── NoRoom                  503, the note holds too many revisions that are not archived yet
     ├── Unavailable             503
     │    └── OutcomeUnknown     503, the write may or may not have been committed
     ├── MalformedUpdate         what a co-editing client sent is no update of a text
     ├── DocumentBroken          a shared text cannot be used any more, and has to be loaded anew
     ├── BusUnavailable          Redis is away: never reaches a client
     ├── TransferFailed          `realtime export` or `import` failed
     └── EmbeddedError           the embedded servers could not be started
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol

PASSWORD_CONFIRMATION = "password_confirmation"


class RealtimeError(Exception):
    """Whatever goes wrong in a way that has a name."""

    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def extra(self) -> dict[str, Any]:
        """What an answer tells besides ``detail``."""
        return {}


class NoteNotFound(RealtimeError):
    """There is no note with this id, or it was deleted."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Note not found")


class VersionNotFound(RealtimeError):
    """The history of a note does not have this version: it never was, or it was thinned out."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Version not found")


class NoAccounts(RealtimeError):
    """Something that only a server with accounts has."""

    status = 404

    def __init__(self) -> None:
        super().__init__("This server has no accounts")


class ResourceNotFound(RealtimeError):
    """There is no such session, token or user, or it is not one's own; the message says which."""

    status = 404


class HttpsRequired(RealtimeError):
    """A password came over plain HTTP, from another machine."""

    status = 400

    def __init__(self) -> None:
        super().__init__("Use https: on the way here others could read the password, and the session")


class NotSignedIn(RealtimeError):
    """Nobody is known to have sent this, or what it came with is wrong, expired or revoked."""

    status = 401

    def __init__(self, detail: str = "Not signed in") -> None:
        super().__init__(detail)


class Forbidden(RealtimeError):
    """Whoever sent this may not do it; the message says why."""

    status = 403


class ConfirmationNeeded(Forbidden):
    """The user has not proved the password in this session lately, which the action takes."""

    def __init__(self) -> None:
        super().__init__("Confirm your password first: send it to POST /auth/confirm, then repeat this request")

    def extra(self) -> dict[str, Any]:
        """Return the mark by which programs recognize this refusal."""
        return {"required": PASSWORD_CONFIRMATION}


class NameTaken(RealtimeError):
    """Somebody has this name."""

    status = 409

    def __init__(self) -> None:
        super().__init__("Somebody has this name already")


class LastAdmin(RealtimeError):
    """There would be no administrator any more."""

    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is the last administrator. Make somebody else an administrator first")


class UnknownHeir(RealtimeError):
    """The user who is to get the notes of a deleted account does not exist, is disabled, or is the account itself."""

    status = 422

    def __init__(self, name: str) -> None:
        super().__init__(f"transfer_to: {name} cannot get the notes. Name another user who is not disabled")


class PasswordRefused(RealtimeError):
    """A password is too easy to guess, or too long; the message says what it must be."""

    status = 422


class TooManyRequests(RealtimeError):
    """Somebody did something too often; in so many seconds it can be done again."""

    status = 429

    def __init__(self, seconds: float, detail: str = "Too many requests, try again later") -> None:
        super().__init__(detail)
        self.seconds = seconds


class CurrentNote(Protocol):
    """A note as it is now. This module does not import the models."""

    version: int

    def model_dump(self, *, mode: Literal["json"]) -> dict[str, Any]:
        """Return the note as JSON values."""


class StaleWrite(RealtimeError):
    """A write was meant for another version than the current one, which it carries."""

    def __init__(self, detail: str, current: CurrentNote) -> None:
        super().__init__(detail)
        self.current = current

    def extra(self) -> dict[str, Any]:
        """The note as it is."""
        return {"note": self.current.model_dump(mode="json")}


class VersionMismatch(StaleWrite):
    """The current version is not one that ``If-Match`` or ``If-None-Match`` allows."""

    status = 412

    def __init__(self, current: CurrentNote) -> None:
        super().__init__(
            f"The note is at version {current.version}, which the request's If-Match or If-None-Match does not allow",
            current,
        )


class BaseNotFound(StaleWrite):
    """``base_version`` names a version that the history does not have, so nothing can be merged."""

    status = 409

    def __init__(self, base: int, current: CurrentNote) -> None:
        super().__init__(
            f"The note is at version {current.version}, and version {base}, which base_version names, is not in its"
            " history: read the note and write again",
            current,
        )


class MergeConflict(StaleWrite):
    """Others changed the same words since ``base_version``."""

    status = 409

    def __init__(
        self, conflicts: list[dict[str, Any]], yours: dict[str, Any], merged: dict[str, Any], current: CurrentNote
    ) -> None:
        super().__init__("Others changed the same words: choose, and write again", current)
        self.conflicts = conflicts
        self.yours = yours
        self.merged = merged

    def extra(self) -> dict[str, Any]:
        """The note, the fields that were sent, these merged as far as they can be, and each range in conflict."""
        told = {"yours": self.yours, "merged": self.merged, "conflicts": self.conflicts}
        return {**super().extra(), **told}


class EditRefused(RealtimeError):
    """A text operation does not fit: what it is to change is not there as often as it says."""

    status = 409

    def __init__(self, number: int, op: str, what: str, *, expected: int, found: int, at: Sequence[int]) -> None:
        times = "once" if expected == 1 else f"{expected} times"
        super().__init__(f"Operation {number} ({op}): {what} must be there {times}, and is there {found} times")
        self._more = {"operation": number, "expected": expected, "found": found, "at": list(at)}

    def extra(self) -> dict[str, Any]:
        """Which operation, how often its text is there, and the first places, in characters."""
        return self._more


class FieldTooLong(RealtimeError):
    """What a write would make of a field is more than a note can hold; the message names the field."""

    status = 422


class ContentTooLong(FieldTooLong):
    """A write would make the content longer than a note's may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"content: would be longer than {limit} bytes of UTF-8")


class IdsTaken(RealtimeError):
    """Notes were to keep their ids, and there are, or were, others with some of them."""

    status = 409

    def __init__(self, ids: Sequence[int]) -> None:
        shown = ", ".join(map(str, ids[:10])) + (", …" if len(ids) > 10 else "")
        super().__init__(f"keep_ids: there are, or were, notes with these ids: {shown}")
        self._ids = ids

    def extra(self) -> dict[str, Any]:
        """The ids, at most 1000."""
        return {"ids": list(self._ids[:1000])}


class ImportRefused(RealtimeError):
    """Nothing can be imported, or a limit on the whole import is exceeded; the message says why."""

    status = 422


class FileSkipped(RealtimeError):
    """One file of an import cannot become a note; the message says why. The other files are imported."""

    status = 422


class KeyReused(RealtimeError):
    """An ``Idempotency-Key`` came with another request than the first time."""

    status = 422

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request")


class QuotaExceeded(RealtimeError):
    """The owner of a note stores as much as a user may."""

    status = 413

    def __init__(self, limit: str) -> None:
        super().__init__(
            f"The owner of the note has reached the limit of {limit}, the trash included. Delete notes, also from the"
            " trash, or ask whoever runs this server for a higher limit"
        )


class UnknownPeople(RealtimeError):
    """A note cannot be shared with who is not there."""

    status = 422

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"There is nobody with the name {', '.join(names)}")
        self._names = names

    def extra(self) -> dict[str, Any]:
        """The names."""
        return {"unknown": list(self._names)}


class TooManyPendingRevisions(RealtimeError):
    """The note holds so many revisions that are not archived yet that another one has no room."""

    status = 503

    def __init__(self) -> None:
        super().__init__("Too much was written to this note at once, try again")


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

    def extra(self) -> dict[str, Any]:
        """That the outcome is unknown."""
        return {"outcome": "unknown"}


class MalformedUpdate(RealtimeError):
    """A co-editing client sent something that is no update of a text; the message says what is wrong."""


class DocumentBroken(RealtimeError):
    """An update brought a shared text into an unknown state."""


class BusUnavailable(RealtimeError):
    """Redis did not answer."""


class EmbeddedError(RealtimeError):
    """The embedded servers could not be started; the message says what to do."""
