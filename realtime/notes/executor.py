"""Applies a write exactly once for each idempotency key, and retries it after concurrent writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realtime.auth.permissions import UNRESTRICTED, Permission, check
from realtime.errors import (
    IdempotencyKeyReused,
    NoteNotFound,
    NotSignedIn,
    RealtimeError,
    TooManyPendingRevisions,
    Unavailable,
    VersionMismatch,
)
from realtime.notes.models import Note, NoteChange
from realtime.notes.preconditions import Versions

if TYPE_CHECKING:
    from realtime.auth.audit import NoteAudit
    from realtime.auth.permissions import Principal
    from realtime.eventlog.outbox import Outbox
    from realtime.failpoints import FailPoints
    from realtime.metrics import Metrics
    from realtime.notes.preconditions import Operation
    from realtime.store.bson_mapping import Record
    from realtime.store.database import Store

log = logging.getLogger(__name__)

APPLY_TIMEOUT_SECONDS = 15.0
"""The time for which a write is retried after concurrent writes to its note."""
TOO_MANY_WRITES = "Too many concurrent writes to this note. Try again"

Apply = Callable[[str | None, Versions], Awaitable[NoteChange | None]]


@dataclass(frozen=True, slots=True)
class Write:
    """A write that can be applied repeatedly until it succeeds.

    Attributes:
        action: The name of the write in metrics and in the audit log.
        apply: Applies the write, given its token and the versions at which it is allowed. Returns ``None`` if it could
            not be applied to the current state of the note.
        versions: The versions at which the write is allowed; ``None`` for any.
        of_trash: Whether the note must be in the trash rather than live.
        permission: The permission that ``principal`` must have.
        principal: The caller.
    """

    action: str
    apply: Apply
    versions: Versions = None
    of_trash: bool = False
    permission: Permission = Permission.WRITE
    principal: Principal = UNRESTRICTED


class WriteExecutor:
    """Applies writes and publishes the changes.

    ``is_ended`` returns whether the rights of a principal were revoked.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        failpoints: FailPoints,
        metrics: Metrics,
        audit: NoteAudit | None,
        is_ended: Callable[[Principal], bool],
    ) -> None:
        self._audit = audit
        self._is_ended = is_ended
        self._store = store
        self._outbox = outbox
        self._failpoints = failpoints
        self._metrics = metrics

    async def once(self, write: Write, id: int | None, operation: Operation | None) -> Note:
        """Apply a write exactly once, and return its response. A repeated request gets the same response.

        The claim of the key detects a different request with the same key, and stores the response. The guarantee that
        the write is applied only once does not depend on it: the write itself commits the claim's token to the note
        and to its history.

        Args:
            write: The write.
            id: The note, or ``None`` if the write creates it.
            operation: The idempotency key and the digest of the request; ``None`` if it must not be repeated.

        Raises:
            IdempotencyKeyReused: The key was used for a different request.
            NoteNotFound: The note does not exist in the required state, or the caller cannot see it.
            VersionMismatch: The note has a version at which the write is not allowed.
            Unavailable: The databases are unavailable, or concurrent writes prevented the write for too long.
        """
        if operation is None:
            return await self._apply(write, id, None)
        claim = await self._store.claims.claim(operation)
        if claim.fingerprint != operation.fingerprint:
            raise IdempotencyKeyReused
        if claim.answer is not None:
            await self._authorize(write.principal, claim.answer.id)
            return claim.answer
        try:
            answer = await self._apply(write, id, claim.token, repeated=not claim.first)
        except Unavailable:
            raise
        except RealtimeError:
            if claim.first:  # else the first request may still be in progress
                await self._store.claims.release(operation.key)
            raise
        await self._failpoints.hit("after_write_before_settle")
        try:
            await self._store.claims.store_response(operation.key, answer)
        except Unavailable:
            # The write is committed. A repeated request is recognized by the token in the note.
            log.warning("cannot store the response for repeated requests", extra={"note": answer.id})
        return answer

    async def _apply(self, write: Write, id: int | None, token: str | None, *, repeated: bool = False) -> Note:
        """Apply a write, and retry it after concurrent writes.

        A repeated write is applied only at a version that was checked not to have its token.
        """
        await self._failpoints.hit("before_write")
        started = time.monotonic()
        while time.monotonic() - started < APPLY_TIMEOUT_SECONDS:
            if self._is_ended(write.principal):  # the rights may have been revoked since the request arrived
                raise NotSignedIn
            if id is not None:
                # Every time, because the access rights may have changed since the last attempt.
                await self._authorize(write.principal, id, write.permission, of_trash=write.of_trash)
            allowed = write.versions
            if repeated and id is not None:
                record = await self._store.notes.find(id)
                answer = await self._outcome(write, record, token)
                if answer is not None:
                    return answer
                allowed = {record.note.version} if record is not None else frozenset()
            try:
                change = await write.apply(token, allowed)
            except TooManyPendingRevisions:
                if id is None:
                    raise
                await self._store.archiver.archive({id})
                continue
            if change is not None:
                await self.publish(write.action, change, [write.principal.name], write.principal)
                return _before_deletion(change.note) if change.deleted else change.note
            notes = self._store.notes
            record = await (notes.find_origin(token or "") if id is None else notes.find(id))
            answer = await self._outcome(write, record, token)
            if answer is not None:
                return answer
        raise Unavailable(TOO_MANY_WRITES)

    async def publish(
        self, action: str, change: NoteChange, authors: Iterable[str | None], principal: Principal | None = None
    ) -> None:
        """Publish a committed change, and add it to the metrics and to the audit log.

        Args:
            action: The name of the write.
            change: The committed state.
            authors: The names of the users who made the change; ``None`` for a guest.
            principal: The caller; ``None`` if a worker stored typed text.
        """
        self._metrics.writes.labels(action).inc()
        if self._audit is not None:
            for name in authors:
                self._audit.add(action, name, principal, change)
        await self._outbox.publish(change)

    async def _authorize(
        self, principal: Principal, id: int, permission: Permission = Permission.READ, *, of_trash: bool = False
    ) -> None:
        """Raise :class:`NoteNotFound` or :class:`Forbidden` unless the caller has a permission for a note."""
        if principal.keys is not None:
            check(principal, await self._store.notes.note_access(id), permission, of_trash=of_trash)

    async def _outcome(self, write: Write, record: Record | None, token: str | None) -> Note | None:
        """Return the response of a write if it was applied, or ``None`` if it can still be applied.

        Otherwise, raise the reason.
        """
        if record is None:
            raise NoteNotFound
        check(write.principal, record.note_access)
        if token is not None:
            answer = await self._response_to(record, token)
            if answer is not None:
                return answer
        if record.purged or record.deleted is not write.of_trash:
            raise NoteNotFound
        if write.versions is not None and record.note.version not in write.versions:
            raise VersionMismatch(record.note)
        return None

    async def _response_to(self, record: Record, token: str) -> Note | None:
        """Return the response to the write that stored this token in a note, or ``None`` if no write did."""
        note, history = record.note, self._store.history
        version = await history.version_of(note.id, token)
        if version is None:  # a purged note has no history, but keeps its latest tokens
            return _before_deletion(note) if token in record.operations else None
        if version == note.version:
            return _before_deletion(note) if record.deleted else note
        revision = await history.read(note.id, version)
        if revision is not None and revision.action == "delete":
            revision = await history.read(note.id, version - 1)
        if revision is None:
            return note
        return Note.model_construct(
            id=note.id,
            title=revision.title,
            description=revision.description,
            content=revision.content,
            tags=revision.tags,
            version=revision.version,
            created_date=note.created_date,
            updated_date=revision.date,
        )


def _before_deletion(tombstone: Note) -> Note:
    """Return a deleted note with the version that it had before its deletion."""
    return tombstone.model_copy(update={"version": tombstone.version - 1})
