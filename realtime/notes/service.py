"""The actions on notes: check, store, publish. The only place where notes change."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from realtime.auth.permissions import Permission, check, check_author, may_set_ids_and_dates
from realtime.auth.requesters import writer_of
from realtime.errors import (
    BaseNotFound,
    Forbidden,
    IdsTaken,
    KeyReused,
    NoteNotFound,
    OutcomeUnknown,
    QuotaExceeded,
    TooManyPendingRevisions,
    Unavailable,
    VersionMismatch,
    VersionNotFound,
)
from realtime.notes.executor import APPLY_TIMEOUT, Write, WriteExecutor
from realtime.notes.merge import merge_fields
from realtime.notes.text_operations import edited

if TYPE_CHECKING:
    from realtime.auth.audit import NoteAudit
    from realtime.auth.permissions import Access, Principal
    from realtime.core.fair_queue import FairPool
    from realtime.eventlog.outbox import Outbox
    from realtime.failpoints import FailPoints
    from realtime.metrics import Metrics
    from realtime.notes.models import Action, DatedNote, Note, NoteChange, NoteIn, NotePatch, NotePut
    from realtime.notes.preconditions import Operation, Versions
    from realtime.notes.quotas import Quotas
    from realtime.notes.text_operations import Edit
    from realtime.rooms.contributors import TextSnapshot
    from realtime.rooms.manager import Rooms
    from realtime.store.bson_mapping import Record
    from realtime.store.database import Store
    from realtime.store.texts import Row

log = logging.getLogger(__name__)

IMPORT_NOTES = 16
IMPORT_CHARACTERS = 512 * 1024
"""At most so many notes, of about so much text, are made at once."""

Fields = Mapping[str, Any]
Compute = Callable[["Note"], Awaitable[Fields]]


class NoteService:
    """Every write of notes. ``versions`` are those that ``If-Match`` and ``If-None-Match`` allow; ``None`` allows any.

    With an operation, a write is applied once, however often its request comes.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        rooms: Rooms,
        failpoints: FailPoints,
        metrics: Metrics,
        audit: NoteAudit | None = None,
        *,
        ended: Callable[[Principal], bool] = lambda _: False,
        quotas: Quotas,
        pool: FairPool,
    ) -> None:
        self._store = store
        self._quotas = quotas
        self._pool = pool
        self._rooms = rooms
        self._writes = WriteExecutor(store, outbox, failpoints, metrics, audit, ended)

    async def create(self, principal: Principal, note: NoteIn, operation: Operation | None) -> Note:
        """Makes a note, its author's own. Raises :class:`NotSignedIn`, :class:`Forbidden`."""
        check_author(principal)

        async def apply(token: str | None, _: Versions) -> NoteChange | None:
            await self._quotas.receive(principal.name, note)
            return await self._store.notes.create(note.model_dump(), token, author=principal.name)

        return await self._writes.once(Write("create", apply, principal=principal), None, operation)

    async def replace(
        self,
        principal: Principal,
        id: int,
        note: NotePut,
        versions: Versions,
        base: int | None,
        operation: Operation | None,
    ) -> Note:
        """Sets title and description, and what else was sent; with a base version, merged with what happened since.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`; with a base :class:`MergeConflict`,
        :class:`BaseNotFound`, :class:`FieldTooLong`.
        """
        return await self._update(principal, id, note.changes, versions, base, operation)

    async def patch(
        self,
        principal: Principal,
        id: int,
        patch: NotePatch,
        versions: Versions,
        base: int | None,
        operation: Operation | None,
    ) -> Note:
        """Sets what was sent; an empty patch changes nothing. Otherwise as :meth:`replace`."""
        fields = patch.changes
        if fields:
            return await self._update(principal, id, fields, versions, base, operation)
        record = await self._store.notes.find(id)
        check(principal, None if record is None else record.note_access, Permission.WRITE)
        note = _live(record).note
        if versions is not None and note.version not in versions:
            raise VersionMismatch(note)
        if base is not None and base > note.version:
            raise BaseNotFound(base, note)
        return note

    async def edit(
        self, principal: Principal, id: int, edits: Sequence[Edit], versions: Versions, operation: Operation | None
    ) -> Note:
        """Applies text operations to the content, all or none.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`, :class:`EditRefused`, :class:`FieldTooLong`.
        """

        async def compute(note: Note) -> Fields:
            return {"content": await self._pool.run(writer_of(principal, id), partial(edited, note.content, edits))}

        return await self._writes.once(self._computed("edit", principal, id, compute, versions), id, operation)

    async def restore(
        self, principal: Principal, id: int, version: int, versions: Versions, operation: Operation | None
    ) -> Note:
        """Makes an earlier version the newest.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`, :class:`VersionNotFound`.
        """

        async def compute(_: Note) -> Fields:
            revision = await self._store.history.read(id, version)
            if revision is None:
                raise VersionNotFound
            return {name: getattr(revision, name) for name in ("title", "description", "content", "tags")}

        write = self._computed("restore", principal, id, compute, versions, live=False, restored=version)
        return await self._writes.once(write, id, operation)

    async def delete(self, principal: Principal, id: int, versions: Versions, operation: Operation | None) -> Note:
        """Moves a note into the trash and returns it as it was.

        Raises :class:`NoteNotFound`, :class:`VersionMismatch`.
        """

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            return await self._store.notes.delete(id, allowed, token, principal.name)

        return await self._writes.once(
            Write("delete", apply, versions, act=Permission.DELETE, principal=principal), id, operation
        )

    async def undelete(self, principal: Principal, id: int, versions: Versions, operation: Operation | None) -> Note:
        """Takes a note out of the trash. Raises as :meth:`delete`."""

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            return await self._store.notes.undelete(id, allowed, token, principal.name)

        write = Write("undelete", apply, versions, of_trash=True, act=Permission.DELETE, principal=principal)
        return await self._writes.once(write, id, operation)

    async def purge(self, principal: Principal, id: int, versions: Versions, operation: Operation | None) -> None:
        """Deletes a note in the trash for good, with its history. Raises as :meth:`delete`."""

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            change = await self._store.notes.purge(id, allowed, token)
            if change is not None:
                await self._store.history.forget([id])
                await self._store.texts.forget([id])
                self._quotas.forget(change.access.owner)
            return change

        write = Write("purge", apply, versions, of_trash=True, act=Permission.DELETE, principal=principal)
        await self._writes.once(write, id, operation)

    async def share(
        self,
        principal: Principal,
        id: int,
        wanted: Callable[[Access], Awaitable[Access]],
        versions: Versions,
    ) -> Note:
        """Says who may do what with a note, given what held before.

        Raises :class:`NoteNotFound`, :class:`Forbidden`, :class:`VersionMismatch`.
        """

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            record = await self._store.notes.find(id)
            if record is None or record.deleted:
                return None
            check(principal, record.note_access, Permission.SHARE)  # of just this version
            version = record.note.version
            if allowed is not None and version not in allowed:
                return None
            access = record.access.followed_by(await wanted(record.access), version + 1)
            await self._quotas.give(record, access.owner)
            return await self._store.notes.share(id, access, version, token, principal.name)

        write = Write("share", apply, versions, act=Permission.SHARE, principal=principal)
        return await self._writes.once(write, id, None)

    async def import_notes(
        self,
        principal: Principal,
        notes: Iterable[DatedNote],
        count: int,
        ids: Sequence[int | None] | None,
        operation: Operation | None,
    ) -> AsyncIterator[Sequence[int]]:
        """Make many notes, and yield their ids in batches.

        Args:
            viewer: Who imports them. Only those who may keep dates do.
            notes: The notes.
            count: How many there are.
            ids: The ids to keep, with ``None`` for notes that get the next id. Without ``ids`` all do.
            operation: A repeat of it makes the notes that are missing.

        Raises:
            IdsTaken: There are, or were, notes with some of the ids. Nothing was written, unless another writer took
                an id during the import.
            QuotaExceeded: There is no room for more notes. Those of the batches before are written.
        """
        check_author(principal)
        if ids is not None and not may_set_ids_and_dates(principal):
            raise Forbidden("Only admins may keep ids: it would tell which others have")
        token = None
        repeated = False
        if operation is not None:
            claim = await self._store.claims.claim(operation)
            if claim.fingerprint != operation.fingerprint:
                raise KeyReused
            token, repeated = claim.token, not claim.first
        kept = [id for id in ids or () if id is not None]
        if not repeated:
            await self._quotas.check(principal.name, count, 0)
        if kept:
            taken = sorted(await self._store.notes.existing_ids(kept))
            if taken and not repeated:
                if operation is not None:
                    await self._store.claims.release(operation.key)
                raise IdsTaken(taken)
            await self._store.notes.reserve_up_to(max(kept))
        first = await self._store.notes.reserve(count - len(kept)) if len(kept) < count else 0
        waiting = zip(range(count), _numbered(ids, first, count), notes, strict=False)
        # In a thread: the notes are unpacked and read as they are taken.
        while batch := await asyncio.to_thread(_some, waiting):
            yield await asyncio.gather(
                *(
                    self._bring_in(principal, id, note, f"{token}:{number}" if token else None, keep_id=keep)
                    for number, (id, keep), note in batch
                )
            )

    async def _bring_in(
        self, principal: Principal, id: int, note: DatedNote, token: str | None, *, keep_id: bool
    ) -> int:
        fields = note.note.model_dump()
        dates = (note.created, note.updated) if may_set_ids_and_dates(principal) else (None, None)
        try:
            await self._quotas.receive(principal.name, note.note)
            change = await self._store.notes.insert(id, fields, token, "import", principal.name, dates=dates)
        except IdsTaken:
            if keep_id and (token is None or await self._store.notes.find_origin(token) is None):
                raise
            change = await self._store.notes.create(fields, token, "import", principal.name, dates=dates)
        except QuotaExceeded:
            if token is None or await self._store.notes.find_origin(token) is None:
                raise
            change = None  # a repeat of an import that made it
        if change is None:
            made = await self._store.notes.find_origin(token or "")
            if made is None:
                raise OutcomeUnknown
            return made.note.id  # whatever became of it since
        await self._writes.done("import", change, [principal.name], principal)
        return change.note.id

    async def _update(
        self,
        principal: Principal,
        id: int,
        fields: Fields,
        versions: Versions,
        base: int | None,
        operation: Operation | None,
    ) -> Note:
        async def compute(note: Note) -> Fields:
            if base is None or (note.version == base and "content" not in fields):
                return fields
            # A shared text may be ahead of the version.
            revision = await self._store.history.read(id, base) if base <= note.version else None
            if revision is None:
                raise BaseNotFound(base, note)
            return await self._pool.run(writer_of(principal, id), partial(merge_fields, revision, note, fields))

        computed = self._computed("update", principal, id, compute, versions, live=base is not None)
        if base is not None:
            return await self._writes.once(computed, id, operation)

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            await self._quotas.admit_unread(id, fields, writer_of(principal, id).group)
            change = await self._store.notes.update(id, fields, allowed, token, author=principal.name)
            # One whose text is shared takes a content only through that.
            return await computed.apply(token, allowed) if change is None and "content" in fields else change

        return await self._writes.once(Write("update", apply, versions, principal=principal), id, operation)

    async def project(self, id: int, read: Callable[[Record], Awaitable[TextSnapshot]]) -> int:
        """Brings the shared text of a note into its content, as one version, made by those who typed.

        ``read`` gives the text, with all in it that a state of the note has. Returns the version that has the text.
        Raises :class:`NoteNotFound`.
        """
        started = time.monotonic()
        while time.monotonic() - started < APPLY_TIMEOUT:
            record = _live(await self._store.notes.find(id))
            # After the note: what the note has, the text then has, too.
            text, _, people = await read(record)
            if text == record.note.content:
                return record.note.version
            fields, at = {"content": text}, {record.note.version}
            try:
                change = await self._store.notes.update(
                    id, fields, at, None, "type", lineage=record.lineage, authors=list(people)
                )
            except TooManyPendingRevisions:
                await self._store.archiver.archive({id})
                continue
            if change is not None:
                await self._writes.done("type", change, people)
                return change.note.version
        raise Unavailable("Too many are writing to this note at once, try again")

    def _computed(
        self,
        action: Action,
        principal: Principal,
        id: int,
        compute: Compute,
        versions: Versions,
        *,
        live: bool = True,
        **entry: Any,
    ) -> Write:
        """A write that is computed from the note as it is (``live``: with what is typed now), at just that version."""

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            record = await self._store.notes.find(id)
            if record is None or record.deleted or token in record.operations:
                return None
            check(principal, record.note_access, Permission.WRITE)  # of just this version
            version = record.note.version
            if allowed is not None and version not in allowed:
                return None

            async def commit(fields: Fields, edit: Row | None = None, people: Sequence[str] = ()) -> NoteChange | None:
                told = {"author": principal.name, **entry, **({"authors": list(people)} if people else {})}
                return await self._store.notes.update(
                    id, fields, {version}, token, action, lineage=record.lineage, edit=edit, **told
                )

            sized = self._quotas.within(record, compute, writer_of(principal, id).group)
            if record.lineage is None:
                return await commit(await sized(record.note))
            return await self._rooms.write(record, sized, commit, self.project, live=live)

        return Write(action, apply, versions, principal=principal)


def _numbered(ids: Sequence[int | None] | None, first: int, count: int) -> Iterator[tuple[int, bool]]:
    """The id of each note, and whether it is one to keep. The others count on from ``first``."""
    free = itertools.count(first)
    for id in itertools.repeat(None, count) if ids is None else ids:
        yield (next(free), False) if id is None else (id, True)


def _some(waiting: Iterator[tuple[int, tuple[int, bool], DatedNote]]) -> list[tuple[int, tuple[int, bool], DatedNote]]:
    batch: list[tuple[int, tuple[int, bool], DatedNote]] = []
    size = 0
    for item in waiting:
        batch.append(item)
        size += len(item[2].note.content)
        if len(batch) == IMPORT_NOTES or size > IMPORT_CHARACTERS:
            break
    return batch


def _live(record: Record | None) -> Record:
    if record is None or record.deleted:
        raise NoteNotFound
    return record
