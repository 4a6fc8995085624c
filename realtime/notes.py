"""The actions on notes: check, store, publish. The only place where notes change."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realtime.errors import (
    KeyReused,
    NoteNotFound,
    OutcomeForgotten,
    OutcomeUnknown,
    RealtimeError,
    Unavailable,
    VersionMismatch,
)
from realtime.models import KEPT_OPERATIONS

if TYPE_CHECKING:
    from realtime.failpoints import FailPoints
    from realtime.metrics import Metrics
    from realtime.models import Change, Note, NoteIn, NotePatch, NotePut, Operation
    from realtime.outbox import Outbox
    from realtime.store import Record, Store

log = logging.getLogger(__name__)

Versions = Collection[int] | None
Apply = Callable[[str | None, Versions], Awaitable["Change | None"]]
Refused = Callable[[str | None, Versions], Awaitable["Note"]]


@dataclass(frozen=True, slots=True)
class _Write:
    """A write: how to apply it at the versions allowed, marked by a key, and what to answer if that is refused."""

    action: str
    apply: Apply
    refused: Refused
    versions: Versions = None


class Notes:
    """Every read and write of notes. ``versions`` are those that ``If-Match`` allows; ``None`` allows any."""

    def __init__(self, store: Store, outbox: Outbox, failpoints: FailPoints, metrics: Metrics) -> None:
        self._store = store
        self._outbox = outbox
        self._failpoints = failpoints
        self._metrics = metrics

    async def get(self, id: int) -> Note:
        """A live note. Raises :class:`NoteNotFound`."""
        return _live(await self._store.find(id)).note

    async def page(self, after: int, limit: int) -> tuple[list[Note], bool]:
        """Live notes by id from above ``after``, at most ``limit``, and whether there are more."""
        return await self._store.page(after, limit)

    async def create(self, note: NoteIn, operation: Operation | None) -> Note:
        """Makes a note."""

        async def apply(key: str | None, _: Versions) -> Change | None:
            return await self._store.create(note.model_dump(), key)

        async def refused(key: str | None, _: Versions) -> Note:
            return _live(None if key is None else await self._store.find_origin(key)).note

        return await self._once(_Write("create", apply, refused), None, operation)

    async def replace(self, id: int, note: NotePut, versions: Versions, operation: Operation | None) -> Note:
        """Sets title and description, and what else was sent.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`.
        """
        return await self._update("replace", id, note.model_dump(exclude_unset=True), versions, operation)

    async def patch(self, id: int, patch: NotePatch, versions: Versions, operation: Operation | None) -> Note:
        """Sets what was sent; an empty patch changes nothing. Raises as :meth:`replace`."""
        fields = patch.model_dump(exclude_unset=True)
        if fields:
            return await self._update("patch", id, fields, versions, operation)
        note = await self.get(id)
        if versions is not None and note.version not in versions:
            raise VersionMismatch(note)
        return note

    async def delete(self, id: int, versions: Versions, operation: Operation | None) -> Note:
        """Deletes a note and returns it as it was. Raises as :meth:`replace`."""

        async def apply(key: str | None, allowed: Versions) -> Change | None:
            return await self._store.delete(id, allowed, key)

        return await self._once(_Write("delete", apply, self._refusal(id, versions), versions), id, operation)

    async def _update(
        self, action: str, id: int, fields: dict[str, Any], versions: Versions, operation: Operation | None
    ) -> Note:
        async def apply(key: str | None, allowed: Versions) -> Change | None:
            return await self._store.update(id, fields, allowed, key)

        return await self._once(_Write(action, apply, self._refusal(id, versions), versions), id, operation)

    def _refusal(self, id: int, versions: Versions) -> Refused:
        async def refused(key: str | None, allowed: Versions) -> Note:
            """Why a write was refused: as an error, or as the answer if this very operation was applied before."""
            record = await self._store.find(id)
            if record is not None and key is not None and key in record.operations:
                return _as_it_was(record.note) if record.deleted else record.note
            note = _live(record).note
            if versions is not None and note.version not in versions:
                raise VersionMismatch(note)
            if allowed is not None and note.version not in allowed:
                raise OutcomeForgotten
            # Live now, but not when the write came: it was restored in between.
            raise NoteNotFound

        return refused

    async def _once(self, write: _Write, id: int | None, operation: Operation | None) -> Note:
        """Applies a write once, however often its request comes; the same request gets the same answer again.

        The claim tells another request with the key apart and keeps the answer. That the write is applied once does
        not hang on it: the claim's token is stored in the note by the same commit. A note remembers a few tokens only,
        so a repeat is not applied beyond the versions up to which its token cannot have been forgotten.
        """
        if operation is None:
            return await self._apply(write, None, write.versions)
        try:
            record = None if id is None else await self._store.find(id)
        except Unavailable:
            raise OutcomeUnknown from None  # of the first request with this key, for all that is known here
        claim = await self._store.claim(operation, 0 if record is None else record.note.version)
        if claim.fingerprint != operation.fingerprint:
            raise KeyReused
        if claim.answer is not None:
            return claim.answer
        allowed = write.versions
        if id is not None and not claim.first:
            known = range(1, claim.base + KEPT_OPERATIONS + 1)
            allowed = known if allowed is None else [version for version in allowed if version in known]
        try:
            answer = await self._apply(write, claim.token, allowed)
        except (Unavailable, OutcomeForgotten):
            raise
        except RealtimeError:
            await self._store.release(operation.key)
            raise
        try:
            await self._store.settle(operation.key, answer)
        except Unavailable:
            # The write is committed, so the answer is true; a repeat is recognised by the token in the note.
            log.warning("the answer could not be kept for a repeat", extra={"note": answer.id})
        return answer

    async def _apply(self, write: _Write, key: str | None, allowed: Versions) -> Note:
        await self._failpoints.hit("before_write")
        change = await write.apply(key, allowed)
        if change is None:
            return await write.refused(key, allowed)
        self._metrics.writes.labels(write.action).inc()
        await self._outbox.publish(change)
        return _as_it_was(change.note) if change.deleted else change.note


def _live(record: Record | None) -> Record:
    if record is None or record.deleted:
        raise NoteNotFound
    return record


def _as_it_was(tombstone: Note) -> Note:
    return tombstone.model_copy(update={"version": tombstone.version - 1})
