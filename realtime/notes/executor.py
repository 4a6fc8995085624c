"""One write of a note, applied once, however often its request comes, and again while others get in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realtime.auth.permissions import UNRESTRICTED, Permission, check
from realtime.errors import (
    KeyReused,
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

APPLY_TIMEOUT = 15.0
"""How long a write is tried again because others were faster."""

Apply = Callable[[str | None, Versions], Awaitable[NoteChange | None]]


@dataclass(frozen=True, slots=True)
class Write:
    """A write: how to apply it at the versions allowed, marked by a token; and the state that it needs of the note.

    ``act`` is what ``viewer`` must be allowed to do.
    """

    action: str
    apply: Apply
    versions: Versions = None
    of_trash: bool = False
    act: Permission = Permission.WRITE
    principal: Principal = UNRESTRICTED


class WriteExecutor:
    """Applies writes, and publishes what they changed."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        failpoints: FailPoints,
        metrics: Metrics,
        audit: NoteAudit | None,
        ended: Callable[[Principal], bool],
    ) -> None:
        self._audit = audit
        self._ended = ended
        self._store = store
        self._outbox = outbox
        self._failpoints = failpoints
        self._metrics = metrics

    async def once(self, write: Write, id: int | None, operation: Operation | None) -> Note:
        """Applies a write once, however often its request comes; the same request gets the same answer again.

        The claim tells another request with the key apart and keeps the answer. That the write is applied once does
        not hang on it: the claim's token is stored in the note, and in its history, by the same commit.
        """
        if operation is None:
            return await self._apply(write, id, None)
        claim = await self._store.claims.claim(operation)
        if claim.fingerprint != operation.fingerprint:
            raise KeyReused
        if claim.answer is not None:
            await self._admit(write.principal, claim.answer.id)
            return claim.answer
        try:
            answer = await self._apply(write, id, claim.token, repeated=not claim.first)
        except Unavailable:
            raise
        except RealtimeError:
            if claim.first:  # else the first request may still be on its way
                await self._store.claims.release(operation.key)
            raise
        await self._failpoints.hit("after_write_before_settle")
        try:
            await self._store.claims.store_response(operation.key, answer)
        except Unavailable:
            # The write is committed, so the answer is true; a repeat is recognised by the token in the note.
            log.warning("the answer could not be kept for a repeat", extra={"note": answer.id})
        return answer

    async def _apply(self, write: Write, id: int | None, token: str | None, *, repeated: bool = False) -> Note:
        """Applies a write, again while others get in between; a repeat only at a version that is without its token."""
        await self._failpoints.hit("before_write")
        started = time.monotonic()
        while time.monotonic() - started < APPLY_TIMEOUT:
            if self._ended(write.principal):  # since the request came, or the last time
                raise NotSignedIn
            if id is not None:
                await self._admit(
                    write.principal, id, write.act, of_trash=write.of_trash
                )  # each time: the rights may have changed meanwhile
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
                await self.done(write.action, change, [write.principal.name], write.principal)
                return _as_it_was(change.note) if change.deleted else change.note
            notes = self._store.notes
            record = await (notes.find_origin(token or "") if id is None else notes.find(id))
            answer = await self._outcome(write, record, token)
            if answer is not None:
                return answer
        raise Unavailable("Too many are writing to this note at once, try again")

    async def done(
        self, action: str, change: NoteChange, people: Iterable[str | None], principal: Principal | None = None
    ) -> None:
        """To be called with what was committed, and by whom: counts it, notes it, and publishes it."""
        self._metrics.writes.labels(action).inc()
        if self._audit is not None:
            for name in people:
                self._audit.add(action, name, principal, change)
        await self._outbox.publish(change)

    async def _admit(
        self, principal: Principal, id: int, act: Permission = Permission.READ, *, of_trash: bool = False
    ) -> None:
        """Raises :class:`NoteNotFound`, :class:`Forbidden`."""
        if principal.keys is not None:
            check(principal, await self._store.notes.note_access(id), act, of_trash=of_trash)

    async def _outcome(self, write: Write, record: Record | None, token: str | None) -> Note | None:
        """What a write has come to: its answer if it was applied, ``None`` if it still can be; else why it cannot."""
        if record is None:
            raise NoteNotFound
        check(write.principal, record.note_access)
        if token is not None:
            answer = await self._answer(record, token)
            if answer is not None:
                return answer
        if record.purged or record.deleted is not write.of_trash:
            raise NoteNotFound
        if write.versions is not None and record.note.version not in write.versions:
            raise VersionMismatch(record.note)
        return None

    async def _answer(self, record: Record, token: str) -> Note | None:
        """The answer to the write that left this token in a note; ``None`` if none did."""
        note, history = record.note, self._store.history
        version = await history.version_of(note.id, token)
        if version is None:  # of a purged note only the last tokens are left
            return _as_it_was(note) if token in record.operations else None
        if version == note.version:
            return _as_it_was(note) if record.deleted else note
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


def _as_it_was(tombstone: Note) -> Note:
    return tombstone.model_copy(update={"version": tombstone.version - 1})
