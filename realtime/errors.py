"""Domain errors and their HTTP status.

The tree of classes::

    RealtimeError               500
     ├── NoteNotFound           404
     ├── VersionNotFound        404
     ├── AccountsDisabled       404
     ├── ResourceNotFound       404
     ├── HttpsRequired          400
     ├── NotSignedIn            401
     ├── Forbidden              403
     │    └── ConfirmationNeeded
     ├── NameTaken              409
     ├── LastAdmin              409
     ├── UnknownNewOwner        422
     ├── PasswordRefused        422
     ├── TooManyRequests        429, with the seconds until a retry
     ├── StaleWrite             with the current note
     │    ├── VersionMismatch   412
     │    ├── BaseNotFound      409
     │    └── MergeConflict     409, with both texts and the conflicting ranges
     ├── EditRefused            409
     ├── FieldTooLong           422
     │    └── ContentTooLong
     ├── IdsTaken               409
     ├── ImportRefused          422
     ├── FileSkipped            422
     ├── IdempotencyKeyReused   422
     ├── QuotaExceeded          413
     ├── UnknownUsers           422
     ├── TooManyPendingRevisions 503
     ├── Unavailable            503
     │    ├── TooManyWrites     503
     │    └── OutcomeUnknown    503, with ``"outcome": "unknown"``
     ├── MalformedUpdate        closes a co-editing connection
     ├── DocumentBroken         handled inside the room
     ├── BusUnavailable         handled inside the server
     └── EmbeddedError          ends the program
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from typing_extensions import TypedDict  # Pydantic needs it before Python 3.12

MAX_LISTED_IDS = 1000
MAX_IDS_IN_MESSAGE = 10


class RealtimeError(Exception):
    """Base class of the domain errors.

    Attributes:
        status: The HTTP status of the response.
        detail: The message for the user.
    """

    status: ClassVar[int] = 500

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def extra(self) -> Mapping[str, Any]:
        """Return the JSON fields of the response besides ``detail``, as a ``TypedDict`` if there are any."""
        return {}


class NoteNotFound(RealtimeError):
    """Raised if there is no note with this id, or the caller cannot see it."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Note not found")


class VersionNotFound(RealtimeError):
    """Raised if the history of a note does not contain this version. It never existed, or was deleted by retention."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Version not found")


class AccountsDisabled(RealtimeError):
    """Raised if a request needs accounts and the server runs without them."""

    status = 404

    def __init__(self) -> None:
        super().__init__("This server has no accounts")


class ResourceNotFound(RealtimeError):
    """Raised if a session, token, invite or user does not exist, or does not belong to the caller."""

    status = 404


class HttpsRequired(RealtimeError):
    """Raised if a password was sent over plain HTTP from another machine."""

    status = 400

    def __init__(self) -> None:
        super().__init__("Use HTTPS: others on the network could read your password and session")


class NotSignedIn(RealtimeError):
    """Raised if the caller is not signed in, or its credentials are wrong, expired or revoked."""

    status = 401

    def __init__(self, detail: str = "Not signed in") -> None:
        super().__init__(detail)


class Forbidden(RealtimeError):
    """Raised if the caller lacks a permission; the message names it."""

    status = 403


class RequiredFields(TypedDict):
    """Fields of :class:`ConfirmationNeeded`."""

    required: Literal["password_confirmation"]


class ConfirmationNeeded(Forbidden):
    """Raised if the action needs a password that was confirmed recently in this session."""

    def __init__(self) -> None:
        super().__init__("Confirm your password first: send it to POST /auth/confirm, then repeat this request")

    def extra(self) -> RequiredFields:
        """Return the field ``required``, which identifies this error for programs."""
        return {"required": "password_confirmation"}


class NameTaken(RealtimeError):
    """Raised if a user with this name exists or existed."""

    status = 409

    def __init__(self) -> None:
        super().__init__("This name is already taken")


class LastAdmin(RealtimeError):
    """Raised if a change would leave the server without an administrator."""

    status = 409

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is the last administrator. Make another user an administrator first")


class UnknownNewOwner(RealtimeError):
    """Raised if the user to receive the notes of a deleted account is unknown, disabled, or that account itself."""

    status = 422

    def __init__(self, name: str) -> None:
        super().__init__(f"transfer_to: {name} cannot get the notes. Name another user who is not disabled")


class PasswordRefused(RealtimeError):
    """Raised if a new password is too short, too long, or too easy to guess. The message states the rule."""

    status = 422


class TooManyRequests(RealtimeError):
    """Raised if there are too many requests.

    Attributes:
        seconds: The time until a retry can succeed.
    """

    status = 429

    def __init__(self, seconds: float, detail: str = "Too many requests. Try again later") -> None:
        super().__init__(detail)
        self.seconds = seconds


class CurrentNote(Protocol):
    """The current note in an error. A protocol, because this module does not import the note models."""

    version: int

    def model_dump(self, *, mode: Literal["json"]) -> dict[str, Any]:
        """Return the note as JSON values."""


class CurrentFields(TypedDict):
    """Fields of :class:`StaleWrite`."""

    note: dict[str, Any]


class StaleWrite(RealtimeError):
    """Base class of the errors for a write that is based on a version other than the current one.

    Attributes:
        current: The current note.
    """

    def __init__(self, detail: str, current: CurrentNote) -> None:
        super().__init__(detail)
        self.current = current

    def extra(self) -> CurrentFields:
        """Return the current note."""
        return {"note": self.current.model_dump(mode="json")}


class VersionMismatch(StaleWrite):
    """Raised if ``If-Match`` or ``If-None-Match`` does not allow a write at the current version."""

    status = 412

    def __init__(self, current: CurrentNote) -> None:
        super().__init__(
            f"The note is at version {current.version}, which the request's If-Match or If-None-Match does not allow",
            current,
        )


class BaseNotFound(StaleWrite):
    """Raised if the history does not have the version that ``base_version`` names, so nothing can be merged."""

    status = 409

    def __init__(self, base: int, current: CurrentNote) -> None:
        super().__init__(
            f"base_version: version {base} is not in the history of the note, which is at version {current.version}."
            " Read the note and write again",
            current,
        )


class ConflictRange(TypedDict):
    """A range of a text in characters, and the text in it."""

    start: int
    end: int
    text: str


class ReportedConflict(TypedDict):
    """Words that both sides changed, as ranges of each text."""

    field: str
    base: ConflictRange
    current: ConflictRange
    yours: ConflictRange
    merged: ConflictRange


class ConflictFields(CurrentFields):
    """Fields of :class:`MergeConflict`."""

    yours: dict[str, Any]
    merged: dict[str, Any]
    conflicts: list[ReportedConflict]


class MergeConflict(StaleWrite):
    """Raised if others changed the same words since ``base_version``.

    The field ``merged`` has the words of the others at the conflicts.
    """

    status = 409

    def __init__(
        self, conflicts: list[ReportedConflict], yours: dict[str, Any], merged: dict[str, Any], current: CurrentNote
    ) -> None:
        super().__init__("Someone else changed the same words. Resolve the conflicts, then send the result", current)
        self.conflicts = conflicts
        self.yours = yours
        self.merged = merged

    def extra(self) -> ConflictFields:
        """Return the current note, the fields that were sent, the merged fields, and the conflicts."""
        return {**super().extra(), "yours": self.yours, "merged": self.merged, "conflicts": self.conflicts}


class EditFields(TypedDict):
    """Fields of :class:`EditRefused`."""

    operation: int
    expected: int
    found: int
    at: list[int]


class EditRefused(RealtimeError):
    """Raised if the text of an operation does not occur the expected number of times. Nothing is written.

    Args:
        number: The index of the operation.
        op: The kind of operation.
        subject: The text or heading, as named in the message.
        expected: The expected number of occurrences.
        actual: The actual number of occurrences.
        offsets: The offsets of the first occurrences, in characters.
    """

    status = 409

    def __init__(
        self, number: int, op: str, subject: str, *, expected: int, actual: int, offsets: Sequence[int]
    ) -> None:
        super().__init__(
            f"Operation {number} ({op}): expected {subject} exactly {_times(expected)}, found it {_times(actual)}"
        )
        self._fields: EditFields = {"operation": number, "expected": expected, "found": actual, "at": list(offsets)}

    def extra(self) -> EditFields:
        """Return the index of the operation, and the number and offsets of the occurrences."""
        return self._fields


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class FieldTooLong(RealtimeError):
    """Raised if a write would make a field too long; the message names the field."""

    status = 422


class ContentTooLong(FieldTooLong):
    """Raised if a write would make the content too long."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"content: would be longer than {limit} bytes of UTF-8")


class TakenFields(TypedDict):
    """Fields of :class:`IdsTaken`."""

    ids: list[int]


class IdsTaken(RealtimeError):
    """Raised if an import with ``keep_ids`` contains ids of notes that exist, or existed."""

    status = 409

    def __init__(self, ids: Sequence[int]) -> None:
        listed = ", ".join(map(str, ids[:MAX_IDS_IN_MESSAGE])) + (", …" if len(ids) > MAX_IDS_IN_MESSAGE else "")
        super().__init__(f"keep_ids: these ids are already used: {listed}. Import without keep_ids to assign new ids")
        self._ids = ids

    def extra(self) -> TakenFields:
        """Return the first 1000 ids."""
        return {"ids": list(self._ids[:MAX_LISTED_IDS])}


class ImportRefused(RealtimeError):
    """Raised if nothing can be imported, or the import exceeds a limit; the message gives the reason."""

    status = 422


class FileSkipped(RealtimeError):
    """Raised if one file cannot be imported; the message gives the reason. The other files are imported."""

    status = 422


class IdempotencyKeyReused(RealtimeError):
    """Raised if an ``Idempotency-Key`` was sent with a different request before."""

    status = 422

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request")


class QuotaExceeded(RealtimeError):
    """Raised if a write would exceed the storage quota of the note's owner."""

    status = 413

    def __init__(self, limit: str) -> None:
        super().__init__(
            f"The owner of the note has reached the limit of {limit}, including the trash. Delete notes and empty the"
            " trash, or ask the operator of this server for a higher limit"
        )


class UnknownFields(TypedDict):
    """Fields of :class:`UnknownUsers`."""

    unknown: list[str]


class UnknownUsers(RealtimeError):
    """Raised if a note is to be shared with users that do not exist."""

    status = 422

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"No such user: {', '.join(names)}")
        self._names = names

    def extra(self) -> UnknownFields:
        """Return the unknown names."""
        return {"unknown": list(self._names)}


class TooManyPendingRevisions(RealtimeError):
    """Raised if too many revisions of a note are waiting to be archived."""

    status = 503

    def __init__(self) -> None:
        super().__init__("Too many changes to this note at once. Try again")


class Unavailable(RealtimeError):
    """Raised if a database does not respond in time. Nothing was written."""

    status = 503

    def __init__(self, detail: str = "The database is not available. Try again") -> None:
        super().__init__(detail)


class TooManyWrites(Unavailable):
    """Raised if concurrent writes to a note prevented a write for too long. Nothing was written."""

    def __init__(self) -> None:
        super().__init__("Too many concurrent writes to this note. Try again")


class OutcomeFields(TypedDict):
    """Fields of :class:`OutcomeUnknown`."""

    outcome: Literal["unknown"]


class OutcomeUnknown(Unavailable):
    """Raised if the database does not confirm in time whether it saved a write (``outcome``)."""

    def __init__(self) -> None:
        super().__init__(
            "The database did not confirm the write in time. It may have been saved:"
            " read the note, or repeat the request with the same Idempotency-Key"
        )

    def extra(self) -> OutcomeFields:
        """Return the field ``outcome``, which identifies this error for programs."""
        return {"outcome": "unknown"}


class MalformedUpdate(RealtimeError):
    """Raised if a co-editing client sends invalid data; the message gives the reason."""


class DocumentBroken(RealtimeError):
    """Raised if an update left a shared text in an unknown state. The text has to be loaded again."""


class DraftLost(RealtimeError):
    """Raised if an edit of a shared text has to be computed again, because its base is no longer known."""

    def __init__(self) -> None:
        super().__init__("the edit has to be computed again")


class BusUnavailable(RealtimeError):
    """Raised if Redis does not respond. Clients get :class:`Unavailable` instead."""


class EmbeddedError(RealtimeError):
    """Raised if the embedded database servers cannot be started; the message says what to do."""
