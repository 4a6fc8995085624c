"""The actions on notes: check, store, publish. The only place where notes change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realtime.edits import edited
from realtime.errors import (
    BaseNotFound,
    IdsTaken,
    KeyReused,
    NoRoom,
    NoteNotFound,
    OutcomeUnknown,
    RealtimeError,
    Unavailable,
    VersionMismatch,
    VersionNotFound,
)
from realtime.merge import merge_fields
from realtime.models import Note

if TYPE_CHECKING:
    from realtime.edits import Edit
    from realtime.failpoints import FailPoints
    from realtime.metrics import Metrics
    from realtime.models import Action, Change, NoteIn, NotePatch, NotePut, Operation
    from realtime.outbox import Outbox
    from realtime.store import Store
    from realtime.store.documents import Record

log = logging.getLogger(__name__)

APPLY_TIMEOUT = 15.0
"""How long a write is tried again because others were faster."""
IMPORT_NOTES = 16
IMPORT_CHARACTERS = 512 * 1024
"""At most so many notes, of about so much text, are made at once."""

Versions = Collection[int] | None
Fields = Mapping[str, Any]
Apply = Callable[[str | None, Versions], Awaitable["Change | None"]]
Compute = Callable[["Note"], Awaitable[Fields]]


@dataclass(frozen=True, slots=True)
class _Write:
    """A write: how to apply it at the versions allowed, marked by a token; and the state that it needs of the note."""

    action: str
    apply: Apply
    versions: Versions = None
    of_trash: bool = False


class Notes:
    """Every write of notes. ``versions`` are those that ``If-Match`` allows; ``None`` allows any.

    With an operation, a write is applied once, however often its request comes.
    """

    def __init__(self, store: Store, outbox: Outbox, failpoints: FailPoints, metrics: Metrics) -> None:
        self._store = store
        self._outbox = outbox
        self._failpoints = failpoints
        self._metrics = metrics

    async def create(self, note: NoteIn, operation: Operation | None) -> Note:
        """Makes a note."""

        async def apply(token: str | None, _: Versions) -> Change | None:
            return await self._store.notes.create(note.model_dump(), token)

        return await self._once(_Write("create", apply), None, operation)

    async def replace(
        self, id: int, note: NotePut, versions: Versions, base: int | None, operation: Operation | None
    ) -> Note:
        """Sets title and description, and what else was sent; with a base version, merged with what happened since.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`; with a base :class:`MergeConflict`,
        :class:`BaseNotFound`, :class:`WouldNotFit`.
        """
        return await self._update(id, note.model_dump(exclude_unset=True), versions, base, operation)

    async def patch(
        self, id: int, patch: NotePatch, versions: Versions, base: int | None, operation: Operation | None
    ) -> Note:
        """Sets what was sent; an empty patch changes nothing. Otherwise as :meth:`replace`."""
        fields = patch.model_dump(exclude_unset=True)
        if fields:
            return await self._update(id, fields, versions, base, operation)
        note = _live(await self._store.notes.find(id)).note
        if versions is not None and note.version not in versions:
            raise VersionMismatch(note)
        if base is not None and base > note.version:
            raise BaseNotFound(base, note)
        return note

    async def edit(self, id: int, edits: Sequence[Edit], versions: Versions, operation: Operation | None) -> Note:
        """Applies text operations to the content, all or none.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`, :class:`EditRefused`, :class:`WouldNotFit`.
        """

        async def compute(note: Note) -> Fields:
            return {"content": await asyncio.to_thread(edited, note.content, edits)}

        return await self._once(self._computed("edit", id, compute, versions), id, operation)

    async def restore(self, id: int, version: int, versions: Versions, operation: Operation | None) -> Note:
        """Makes an earlier version the newest.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`, :class:`VersionNotFound`.
        """

        async def compute(_: Note) -> Fields:
            revision = await self._store.history.read(id, version)
            if revision is None:
                raise VersionNotFound
            return {name: getattr(revision, name) for name in ("title", "description", "content", "tags")}

        write = self._computed("restore", id, compute, versions, restored=version)
        return await self._once(write, id, operation)

    async def delete(self, id: int, versions: Versions, operation: Operation | None) -> Note:
        """Moves a note into the trash and returns it as it was.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`.
        """

        async def apply(token: str | None, allowed: Versions) -> Change | None:
            return await self._store.notes.delete(id, allowed, token)

        return await self._once(_Write("delete", apply, versions), id, operation)

    async def undelete(self, id: int, versions: Versions, operation: Operation | None) -> Note:
        """Takes a note out of the trash. Raises as :meth:`delete`."""

        async def apply(token: str | None, allowed: Versions) -> Change | None:
            return await self._store.notes.undelete(id, allowed, token)

        return await self._once(_Write("undelete", apply, versions, of_trash=True), id, operation)

    async def purge(self, id: int, versions: Versions, operation: Operation | None) -> None:
        """Deletes a note in the trash for good, with its history. Raises as :meth:`delete`."""

        async def apply(token: str | None, allowed: Versions) -> Change | None:
            change = await self._store.notes.purge(id, allowed, token)
            if change is not None:
                await self._store.history.forget([id])
            return change

        await self._once(_Write("purge", apply, versions, of_trash=True), id, operation)

    async def bring_in(
        self, notes: Iterable[NoteIn], many: int, ids: Sequence[int] | None, operation: Operation | None
    ) -> AsyncIterator[Sequence[int]]:
        """Makes many notes, under these ids or else the next ones, and tells their ids as it goes.

        A repeat of the operation makes those that are missing. Raises :class:`IdsTaken`: with nothing written, unless
        another writer took an id meanwhile.
        """
        token = None
        repeated = False
        if operation is not None:
            claim = await self._store.claims.claim(operation)
            if claim.fingerprint != operation.fingerprint:
                raise KeyReused
            token, repeated = claim.token, not claim.first
        if ids is None:
            first = await self._store.notes.reserve(many)
            places: Sequence[int] = range(first, first + many)
        else:
            places = ids
            taken = sorted(await self._store.notes.taken(ids))
            if taken and not repeated:
                if operation is not None:
                    await self._store.claims.release(operation.key)
                raise IdsTaken(taken)
            await self._store.notes.reserve_up_to(max(ids))
        waiting = zip(range(many), places, notes, strict=False)
        # In a thread: the notes are unpacked and read as they are taken.
        while batch := await asyncio.to_thread(_some, waiting):
            yield await asyncio.gather(
                *(
                    self._bring_in(id, note, f"{token}:{number}" if token else None, keep_id=ids is not None)
                    for number, id, note in batch
                )
            )

    async def _bring_in(self, id: int, note: NoteIn, token: str | None, *, keep_id: bool) -> int:
        fields = note.model_dump()
        try:
            change = await self._store.notes.insert(id, fields, token, "import")
        except IdsTaken:
            if keep_id and (token is None or await self._store.notes.find_origin(token) is None):
                raise
            change = await self._store.notes.create(fields, token, "import")
        if change is None:
            made = await self._store.notes.find_origin(token or "")
            if made is None:
                raise OutcomeUnknown
            return made.note.id  # whatever became of it since
        self._metrics.writes.labels("import").inc()
        await self._outbox.publish(change)
        return change.note.id

    async def _update(
        self, id: int, fields: Fields, versions: Versions, base: int | None, operation: Operation | None
    ) -> Note:
        async def apply(token: str | None, allowed: Versions) -> Change | None:
            return await self._store.notes.update(id, fields, allowed, token)

        async def compute(note: Note) -> Fields:
            assert base is not None
            if note.version == base:
                return fields
            revision = await self._store.history.read(id, base) if base < note.version else None
            if revision is None:
                raise BaseNotFound(base, note)
            return await asyncio.to_thread(merge_fields, revision, note, fields)

        write = _Write("update", apply, versions) if base is None else self._computed("update", id, compute, versions)
        return await self._once(write, id, operation)

    def _computed(self, action: Action, id: int, compute: Compute, versions: Versions, **entry: Any) -> _Write:
        """A write that is computed from the note as it is, and written at just that version."""

        async def apply(token: str | None, allowed: Versions) -> Change | None:
            record = await self._store.notes.find(id)
            if record is None or record.deleted or token in record.operations:
                return None
            version = record.note.version
            if allowed is not None and version not in allowed:
                return None
            fields = await compute(record.note)
            return await self._store.notes.update(id, fields, {version}, token, action, **entry)

        return _Write(action, apply, versions)

    async def _once(self, write: _Write, id: int | None, operation: Operation | None) -> Note:
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
            return claim.answer
        try:
            answer = await self._apply(write, id, claim.token, repeated=not claim.first)
        except Unavailable:
            raise
        except RealtimeError:
            if claim.first:  # else the first request may still be on its way
                await self._store.claims.release(operation.key)
            raise
        try:
            await self._store.claims.settle(operation.key, answer)
        except Unavailable:
            # The write is committed, so the answer is true; a repeat is recognised by the token in the note.
            log.warning("the answer could not be kept for a repeat", extra={"note": answer.id})
        return answer

    async def _apply(self, write: _Write, id: int | None, token: str | None, *, repeated: bool = False) -> Note:
        """Applies a write, again while others get in between; a repeat only at a version that is without its token."""
        await self._failpoints.hit("before_write")
        started = time.monotonic()
        while time.monotonic() - started < APPLY_TIMEOUT:
            allowed = write.versions
            if repeated and id is not None:
                record = await self._store.notes.find(id)
                answer = await self._outcome(write, record, token)
                if answer is not None:
                    return answer
                allowed = {record.note.version} if record is not None else frozenset()
            try:
                change = await write.apply(token, allowed)
            except NoRoom:
                if id is None:
                    raise
                await self._store.history.archive({id})
                continue
            if change is not None:
                self._metrics.writes.labels(write.action).inc()
                await self._outbox.publish(change)
                return _as_it_was(change.note) if change.deleted else change.note
            notes = self._store.notes
            record = await (notes.find_origin(token or "") if id is None else notes.find(id))
            answer = await self._outcome(write, record, token)
            if answer is not None:
                return answer
        raise Unavailable("Too many are writing to this note at once, try again")

    async def _outcome(self, write: _Write, record: Record | None, token: str | None) -> Note | None:
        """What a write has come to: its answer if it was applied, ``None`` if it still can be; else why it cannot."""
        if record is None:
            raise NoteNotFound
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


def _some(waiting: Iterator[tuple[int, int, NoteIn]]) -> list[tuple[int, int, NoteIn]]:
    batch: list[tuple[int, int, NoteIn]] = []
    size = 0
    for item in waiting:
        batch.append(item)
        size += len(item[2].content)
        if len(batch) == IMPORT_NOTES or size > IMPORT_CHARACTERS:
            break
    return batch


def _live(record: Record | None) -> Record:
    if record is None or record.deleted:
        raise NoteNotFound
    return record


def _as_it_was(tombstone: Note) -> Note:
    return tombstone.model_copy(update={"version": tombstone.version - 1})
