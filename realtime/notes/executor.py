"""Applies each write at most once per idempotency key, and retries it if another write changed the note first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from realtime.auth.permissions import Permission, check
from realtime.errors import (
    IdempotencyKeyReused,
    NoteNotFound,
    NotSignedIn,
    RealtimeError,
    TooManyPendingRevisions,
    TooManyWrites,
    Unavailable,
    VersionMismatch,
)
from realtime.notes.models import Note

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.failpoints import FailPoints
    from realtime.notes.preconditions import Operation
    from realtime.notes.publisher import ChangePublisher
    from realtime.notes.writes import Write, WriteContext
    from realtime.store.bson_mapping import Record

log = logging.getLogger(__name__)

APPLY_TIMEOUT_SECONDS = 15.0
"""The time for which a write is retried because other writes changed its note first."""


class WriteExecutor:
    """Applies writes and publishes the changes.

    ``is_outdated`` returns whether a principal's session has ended or its administrator role has changed.
    """

    def __init__(
        self,
        context: WriteContext,
        publisher: ChangePublisher,
        failpoints: FailPoints,
        is_outdated: Callable[[Principal], bool] = lambda _: False,
    ) -> None:
        self._context = context
        self._store = context.store
        self._publisher = publisher
        self._failpoints = failpoints
        self._is_outdated = is_outdated

    async def execute(self, write: Write, operation: Operation | None = None) -> Note:
        """Apply a write, and return the resulting note.

        With an idempotency key, a repeated request is not applied again and gets the same note. A claim records which
        request used the key, and the response. It serves to reject a different request with the same key. That the
        write is applied only once does not depend on the claim: the write stores the claim's token in the note, in the
        same commit, and the token then moves to the history.

        Args:
            write: The write.
            operation: The idempotency key and the digest of the request; ``None`` if the request has no key.

        Raises:
            IdempotencyKeyReused: The key was used for a different request.
            NoteNotFound: The note does not exist, is in the trash (or, if the write requires a note in the trash, is
                not there), or is not visible to the caller.
            VersionMismatch: The note has a version at which the write is not allowed.
            NotSignedIn: The caller's session has ended, or its administrator role has changed.
            Forbidden: The caller lacks the permission.
            Unavailable: MongoDB is unavailable, or concurrent writes prevented the write for too long.
        """
        if operation is None:
            return await self._apply(write, None)
        claim = await self._store.claims.claim(operation)
        if claim.fingerprint != operation.fingerprint:
            raise IdempotencyKeyReused
        if claim.response is not None:
            await self._authorize(write.principal, claim.response.id)
            return claim.response
        try:
            response = await self._apply(write, claim.token, repeated=not claim.first)
        except Unavailable:
            raise
        except RealtimeError:
            if claim.first:  # else the first request may still be in progress
                await self._store.claims.release(operation.key)
            raise
        await self._failpoints.hit("after_write_before_settle")
        try:
            await self._store.claims.store_response(operation.key, response)
        except Unavailable:
            # The write is committed. A repeated request is recognized by the token in the note.
            log.warning("cannot store the response for repeated requests", extra={"note": response.id})
        return response

    async def _apply(self, write: Write, token: str | None, *, repeated: bool = False) -> Note:
        """Apply a write, and retry it if another write changed the note first.

        A repeated request is applied only at a version up to which no write with the request's token was found.
        """
        await self._failpoints.hit("before_write")
        id, notes = write.id, self._store.notes
        started = time.monotonic()
        while time.monotonic() - started < APPLY_TIMEOUT_SECONDS:
            if self._is_outdated(write.principal):  # since the request arrived
                raise NotSignedIn
            if id is not None:
                # On every attempt, because the access rights may have changed since the last one.
                await self._authorize(write.principal, id, write.permission, in_trash=write.in_trash)
            allowed = write.versions
            if repeated and id is not None:
                record = await notes.find(id)
                response = await self._outcome(write, record, token)
                if response is not None:
                    return response
                allowed = {record.note.version} if record is not None else frozenset()
            try:
                change = await write.apply(self._context, token, allowed)
            except TooManyPendingRevisions:
                if id is None:
                    raise
                await self._store.archiver.archive({id})
                continue
            if change is not None:
                await self._publisher.publish(write.action, change, [write.principal.name], write.principal)
                return _before_deletion(change.note) if change.deleted else change.note
            record = await (notes.find_origin(token or "") if id is None else notes.find(id))
            response = await self._outcome(write, record, token)
            if response is not None:
                return response
        raise TooManyWrites

    async def _authorize(
        self, principal: Principal, id: int, permission: Permission = Permission.READ, *, in_trash: bool = False
    ) -> None:
        """Raise :class:`NoteNotFound` or :class:`Forbidden` unless the caller has a permission for a note."""
        if principal.keys is not None:
            check(principal, await self._store.notes.note_access(id), permission, in_trash=in_trash)

    async def _outcome(self, write: Write, record: Record | None, token: str | None) -> Note | None:
        """Return the response to a write if the write was applied, or ``None`` if it can still be applied.

        Raise an error if it can no longer be applied.
        """
        if record is None:
            raise NoteNotFound
        check(write.principal, record.note_access)
        if token is not None:
            response = await self._response_to(record, token)
            if response is not None:
                return response
        if record.purged or record.deleted is not write.in_trash:
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


def _before_deletion(deleted: Note) -> Note:
    """Return a deleted note with the version that it had before its deletion."""
    return deleted.model_copy(update={"version": deleted.version - 1})
