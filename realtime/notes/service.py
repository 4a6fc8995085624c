"""The write operations on notes. All changes of notes go through :class:`NoteService`."""

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
    IdempotencyKeyReused,
    IdsTaken,
    NoteNotFound,
    OutcomeUnknown,
    QuotaExceeded,
    TooManyPendingRevisions,
    Unavailable,
    VersionMismatch,
    VersionNotFound,
)
from realtime.notes.executor import APPLY_TIMEOUT_SECONDS, TOO_MANY_WRITES, Write, WriteExecutor
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

MAX_BATCH_NOTES = 16
"""The maximum number of notes that an import creates at once."""
MAX_BATCH_CHARACTERS = 512 * 1024
"""The content length in characters at which a batch of an import ends."""

Fields = Mapping[str, Any]
Compute = Callable[["Note"], Awaitable[Fields]]
ImportItem = tuple[int, tuple[int, bool], "DatedNote"]
"""The position of a note in an import; its id, and whether that id must be kept; and the note."""


class NoteService:
    """Checks, stores and publishes changes of notes.

    ``versions`` are the versions that ``If-Match`` and ``If-None-Match`` allow; ``None`` allows any. With an
    ``operation``, a write is applied exactly once, even if its request is repeated.
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
        is_ended: Callable[[Principal], bool] = lambda _: False,
        quotas: Quotas,
        pool: FairPool,
    ) -> None:
        self._store = store
        self._quotas = quotas
        self._pool = pool
        self._rooms = rooms
        self._writes = WriteExecutor(store, outbox, failpoints, metrics, audit, is_ended)

    async def create(self, principal: Principal, note: NoteIn, operation: Operation | None) -> Note:
        """Create a note that its author owns.

        Raises:
            NotSignedIn: Only users can create notes.
            Forbidden: The caller is not allowed to create notes.
            QuotaExceeded: The author cannot store more notes.
        """
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
        """Set the title, the description, and the other fields that were sent.

        With a ``base`` version, the fields are merged with the changes since that version.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that ``versions`` does not allow.
            MergeConflict: Others changed the same words since ``base``.
            BaseNotFound: The history does not have the version ``base``.
            FieldTooLong: The merged note would exceed a limit.
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
        """Set the fields that were sent. An empty patch changes nothing. Raises the errors of :meth:`replace`."""
        fields = patch.changes
        if fields:
            return await self._update(principal, id, fields, versions, base, operation)
        record = await self._store.notes.find(id)
        check(principal, None if record is None else record.note_access, Permission.WRITE)
        note = _require_live(record).note
        if versions is not None and note.version not in versions:
            raise VersionMismatch(note)
        if base is not None and base > note.version:
            raise BaseNotFound(base, note)
        return note

    async def edit(
        self, principal: Principal, id: int, edits: Sequence[Edit], versions: Versions, operation: Operation | None
    ) -> Note:
        """Apply text operations to the content, either all or none.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that ``versions`` does not allow.
            EditRefused: A text does not occur as often as an operation expects.
            FieldTooLong: The content would become too long.
        """

        async def compute(note: Note) -> Fields:
            return {"content": await self._pool.run(writer_of(principal, id), partial(edited, note.content, edits))}

        return await self._writes.once(self._computed("edit", principal, id, compute, versions), id, operation)

    async def restore(
        self, principal: Principal, id: int, version: int, versions: Versions, operation: Operation | None
    ) -> Note:
        """Restore the fields of an earlier version, as a new version.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that ``versions`` does not allow.
            VersionNotFound: The history does not have the version.
        """

        async def compute(_: Note) -> Fields:
            revision = await self._store.history.read(id, version)
            if revision is None:
                raise VersionNotFound
            return {name: getattr(revision, name) for name in ("title", "description", "content", "tags")}

        write = self._computed("restore", principal, id, compute, versions, live=False, restored=version)
        return await self._writes.once(write, id, operation)

    async def delete(self, principal: Principal, id: int, versions: Versions, operation: Operation | None) -> Note:
        """Move a note to the trash, and return it as it was before.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that ``versions`` does not allow.
        """

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            return await self._store.notes.delete(id, allowed, token, principal.name)

        return await self._writes.once(
            Write("delete", apply, versions, permission=Permission.DELETE, principal=principal), id, operation
        )

    async def undelete(self, principal: Principal, id: int, versions: Versions, operation: Operation | None) -> Note:
        """Restore a note from the trash. Raises the errors of :meth:`delete`."""

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            return await self._store.notes.undelete(id, allowed, token, principal.name)

        write = Write("undelete", apply, versions, of_trash=True, permission=Permission.DELETE, principal=principal)
        return await self._writes.once(write, id, operation)

    async def purge(self, principal: Principal, id: int, versions: Versions, operation: Operation | None) -> None:
        """Permanently delete a note in the trash, with its history. Raises the errors of :meth:`delete`."""

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            change = await self._store.notes.purge(id, allowed, token)
            if change is not None:
                await self._store.history.forget([id])
                await self._store.texts.forget([id])
                self._quotas.forget(change.access.owner)
            return change

        write = Write("purge", apply, versions, of_trash=True, permission=Permission.DELETE, principal=principal)
        await self._writes.once(write, id, operation)

    async def share(
        self,
        principal: Principal,
        id: int,
        decide: Callable[[Access], Awaitable[Access]],
        versions: Versions,
    ) -> Note:
        """Change the access rights of a note.

        Args:
            principal: The caller.
            id: The note.
            decide: Returns the new access rights, given the current ones. May be called again after a concurrent write.
            versions: The versions at which the change is allowed.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            Forbidden: The caller does not own the note.
            VersionMismatch: The note has a version that ``versions`` does not allow.
            QuotaExceeded: The new owner cannot store the note.
        """

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            record = await self._store.notes.find(id)
            if record is None or record.deleted:
                return None
            check(principal, record.note_access, Permission.SHARE)  # again, for exactly this version
            version = record.note.version
            if allowed is not None and version not in allowed:
                return None
            access = record.access.followed_by(await decide(record.access), version + 1)
            await self._quotas.give(record, access.owner)
            return await self._store.notes.share(id, access, version, token, principal.name)

        write = Write("share", apply, versions, permission=Permission.SHARE, principal=principal)
        return await self._writes.once(write, id, None)

    async def import_notes(
        self,
        principal: Principal,
        notes: Iterable[DatedNote],
        count: int,
        ids: Sequence[int | None] | None,
        operation: Operation | None,
    ) -> AsyncIterator[Sequence[int]]:
        """Create many notes, and yield their ids in batches.

        Args:
            principal: The user who imports the notes. The dates of the notes are kept only if this user may set dates.
            notes: The notes.
            count: The number of notes.
            ids: The ids to keep, with ``None`` for each note that gets a new id. Without ``ids``, all get new ids.
            operation: The operation. If it is repeated, only the missing notes are created.

        Raises:
            IdsTaken: Some of the ids are, or were, used by other notes. Nothing was written, unless another writer
                took an id during the import.
            QuotaExceeded: The user cannot store more notes. The notes of earlier batches are stored.
        """
        check_author(principal)
        if ids is not None and not may_set_ids_and_dates(principal):
            raise Forbidden("Only admins can keep ids. Import without keep_ids to assign new ids")
        token = None
        repeated = False
        if operation is not None:
            claim = await self._store.claims.claim(operation)
            if claim.fingerprint != operation.fingerprint:
                raise IdempotencyKeyReused
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
        items = zip(range(count), _assigned_ids(ids, first, count), notes, strict=False)
        # In a thread, because iterating decompresses and parses the notes.
        while batch := await asyncio.to_thread(_next_batch, items):
            yield await asyncio.gather(
                *(
                    self._import_note(principal, id, note, f"{token}:{number}" if token else None, keep_id=keep)
                    for number, (id, keep), note in batch
                )
            )

    async def _import_note(
        self, principal: Principal, id: int, note: DatedNote, token: str | None, *, keep_id: bool
    ) -> int:
        """Create one note of an import unless an earlier attempt did, and return its id."""
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
            change = None  # an earlier attempt of this import created it
        if change is None:
            created = await self._store.notes.find_origin(token or "")
            if created is None:
                raise OutcomeUnknown
            return created.note.id  # even if it was changed or deleted since
        await self._writes.publish("import", change, [principal.name], principal)
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
            # Even at version `base`, a shared text can have newer changes.
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
            # The content of a note with a shared text can only be written through that text.
            return await computed.apply(token, allowed) if change is None and "content" in fields else change

        return await self._writes.once(Write("update", apply, versions, principal=principal), id, operation)

    async def project(self, id: int, read: Callable[[Record], Awaitable[TextSnapshot]]) -> int:
        """Store the shared text of a note as its content, in one version by the users who typed it.

        Args:
            id: The note.
            read: Returns the shared text, including everything in the given state of the note.

        Returns:
            The version that has the text.

        Raises:
            NoteNotFound: The note was deleted.
            Unavailable: Concurrent writes prevented it for too long.
        """
        started = time.monotonic()
        while time.monotonic() - started < APPLY_TIMEOUT_SECONDS:
            record = _require_live(await self._store.notes.find(id))
            # The text is read after the note, so that it includes everything that the note has.
            text, _, authors = await read(record)
            if text == record.note.content:
                return record.note.version
            fields, versions = {"content": text}, {record.note.version}
            try:
                change = await self._store.notes.update(
                    id, fields, versions, None, "type", lineage=record.lineage, authors=list(authors)
                )
            except TooManyPendingRevisions:
                await self._store.archiver.archive({id})
                continue
            if change is not None:
                await self._writes.publish("type", change, authors)
                return change.note.version
        raise Unavailable(TOO_MANY_WRITES)

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
        """Return a write whose fields are computed from the current note and stored only at that version.

        Args:
            action: The action in the history.
            principal: The caller.
            id: The note.
            compute: Returns the fields to write, given the note.
            versions: The versions at which the write is allowed.
            live: Whether ``compute`` gets the content with the typed text that is not part of a version yet.
            entry: Further fields of the revision.
        """

        async def apply(token: str | None, allowed: Versions) -> NoteChange | None:
            record = await self._store.notes.find(id)
            if record is None or record.deleted or token in record.operations:
                return None
            check(principal, record.note_access, Permission.WRITE)  # again, for exactly this version
            version = record.note.version
            if allowed is not None and version not in allowed:
                return None

            async def commit(fields: Fields, edit: Row | None = None, authors: Sequence[str] = ()) -> NoteChange | None:
                revision = {"author": principal.name, **entry, **({"authors": list(authors)} if authors else {})}
                return await self._store.notes.update(
                    id, fields, {version}, token, action, lineage=record.lineage, edit=edit, **revision
                )

            compute_counted = self._quotas.within(record, compute, writer_of(principal, id).group)
            if record.lineage is None:
                return await commit(await compute_counted(record.note))
            return await self._rooms.write(record, compute_counted, commit, self.project, live=live)

        return Write(action, apply, versions, principal=principal)


def _assigned_ids(ids: Sequence[int | None] | None, first: int, count: int) -> Iterator[tuple[int, bool]]:
    """Yield the id of each note and whether it must be kept. New ids count up from ``first``."""
    new_ids = itertools.count(first)
    for id in itertools.repeat(None, count) if ids is None else ids:
        yield (next(new_ids), False) if id is None else (id, True)


def _next_batch(items: Iterator[ImportItem]) -> list[ImportItem]:
    """Return the next notes of an import; an empty list at the end."""
    batch: list[ImportItem] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += len(item[2].note.content)
        if len(batch) == MAX_BATCH_NOTES or characters > MAX_BATCH_CHARACTERS:
            break
    return batch


def _require_live(record: Record | None) -> Record:
    if record is None or record.deleted:
        raise NoteNotFound
    return record
