"""The actions on notes: check, store, publish. The only place where notes change."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from realtime.errors import KeyReused, NoteNotFound, RealtimeError, Unavailable, VersionMismatch

if TYPE_CHECKING:
    from realtime.failpoints import FailPoints
    from realtime.metrics import Metrics
    from realtime.models import Change, Note, NoteIn, NotePatch, NotePut, Operation
    from realtime.outbox import Outbox
    from realtime.store import Record, Store

log = logging.getLogger(__name__)

Versions = Collection[int] | None


class Notes:
    """Every read and write of notes. ``versions`` are those that ``If-Match`` allows; ``None`` allows any."""

    def __init__(self, store: Store, outbox: Outbox, failpoints: FailPoints, metrics: Metrics) -> None:
        self._store = store
        self._outbox = outbox
        self._failpoints = failpoints
        self._metrics = metrics

    async def get(self, id: int) -> Note:
        """A live note. Raises :class:`NoteNotFound`."""
        return self._live(await self._store.find(id)).note

    async def page(self, after: int, limit: int) -> tuple[list[Note], bool]:
        """Live notes by id from above ``after``, at most ``limit``, and whether there are more."""
        return await self._store.page(after, limit)

    async def create(self, note: NoteIn, operation: Operation | None) -> Note:
        """Makes a note."""

        async def apply(key: str | None) -> Change | None:
            return await self._store.create(note.model_dump(), key)

        async def refused(key: str | None) -> Note:
            record = None if key is None else await self._store.find_origin(key)
            return self._live(record).note

        return await self._once("create", operation, apply, refused)

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

        async def apply(key: str | None) -> Change | None:
            return await self._store.delete(id, versions, key)

        async def refused(key: str | None) -> Note:
            return self._explain(await self._store.find(id), versions, key)

        return await self._once("delete", operation, apply, refused)

    async def _update(
        self, action: str, id: int, fields: dict[str, Any], versions: Versions, operation: Operation | None
    ) -> Note:
        async def apply(key: str | None) -> Change | None:
            return await self._store.update(id, fields, versions, key)

        async def refused(key: str | None) -> Note:
            return self._explain(await self._store.find(id), versions, key)

        return await self._once(action, operation, apply, refused)

    async def _once(
        self,
        action: str,
        operation: Operation | None,
        apply: Callable[[str | None], Awaitable[Change | None]],
        refused: Callable[[str | None], Awaitable[Note]],
    ) -> Note:
        """Applies a write once, however often its request comes; the same request gets the same answer again.

        The claim tells another request with the key apart and keeps the answer. That the write is applied once does
        not hang on it: the key is stored in the note by the same commit.
        """
        if operation is None:
            return await self._apply(action, None, apply, refused)
        claim = await self._store.claim(operation)
        if claim.fingerprint != operation.fingerprint:
            raise KeyReused
        if claim.answer is not None:
            return claim.answer
        try:
            answer = await self._apply(action, operation.key, apply, refused)
        except Unavailable:
            raise
        except RealtimeError:
            await self._store.release(operation.key)
            raise
        try:
            await self._store.settle(operation.key, answer)
        except Unavailable:
            # The write is committed, so the answer is true; a repeat is recognised by the key in the note.
            log.warning("the answer could not be kept for a repeat", extra={"note": answer.id})
        return answer

    async def _apply(
        self,
        action: str,
        key: str | None,
        apply: Callable[[str | None], Awaitable[Change | None]],
        refused: Callable[[str | None], Awaitable[Note]],
    ) -> Note:
        await self._failpoints.hit("before_write")
        change = await apply(key)
        if change is None:
            return await refused(key)
        self._metrics.writes.labels(action).inc()
        await self._outbox.publish(change)
        return _as_it_was(change.note) if change.deleted else change.note

    @staticmethod
    def _live(record: Record | None) -> Record:
        if record is None or record.deleted:
            raise NoteNotFound
        return record

    def _explain(self, record: Record | None, versions: Versions, key: str | None) -> Note:
        """Why a write was refused: as an error, or as the answer if this very operation was applied before."""
        if record is not None and key is not None and key in record.operations:
            return _as_it_was(record.note) if record.deleted else record.note
        note = self._live(record).note
        if versions is not None:
            raise VersionMismatch(note)
        # Live now, but not when the write came: it was restored in between.
        raise NoteNotFound


def _as_it_was(tombstone: Note) -> Note:
    return tombstone.model_copy(update={"version": tombstone.version - 1})
