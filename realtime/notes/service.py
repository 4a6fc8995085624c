"""The write operations on notes. All changes to notes, except typed text, go through :class:`NoteService`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from realtime.auth.permissions import Permission, check, check_author, may_set_ids_and_dates
from realtime.errors import (
    BaseNotFound,
    Forbidden,
    IdempotencyKeyReused,
    IdsTaken,
    NoteNotFound,
    OutcomeUnknown,
    QuotaExceeded,
    VersionMismatch,
)
from realtime.notes.preconditions import UNCONDITIONAL
from realtime.notes.writes import Create, Delete, EditContent, Purge, RestoreVersion, Share, Undelete, Update

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.notes.executor import WriteExecutor
    from realtime.notes.models import DatedNote, Note, NoteIn, NotePatch, NotePut
    from realtime.notes.preconditions import Conditions, Operation, Versions
    from realtime.notes.publisher import ChangePublisher
    from realtime.notes.text_operations import TextOperation
    from realtime.notes.writes import AccessChange, WriteContext

MAX_BATCH_NOTES = 16
"""The maximum number of notes that an import creates at once."""
MAX_BATCH_CHARACTERS = 512 * 1024
"""The content length in characters above which a batch of an import ends."""

ImportItem = tuple[int, tuple[int, bool], "DatedNote"]
"""The position of a note in an import; its id, and whether that id must be kept; and the note."""


class NoteService:
    """Checks, stores and publishes changes to notes.

    Writes take the conditions of a request: the versions that its ``If-Match`` and ``If-None-Match`` allow, and its
    idempotency key, with which it is applied exactly once, even if it is repeated.
    """

    def __init__(self, context: WriteContext, executor: WriteExecutor, publisher: ChangePublisher) -> None:
        self._store = context.store
        self._quotas = context.quotas
        self._executor = executor
        self._publisher = publisher

    async def create(self, principal: Principal, note: NoteIn, operation: Operation | None = None) -> Note:
        """Create a note that its author owns.

        Raises:
            NotSignedIn: Only users can create notes.
            Forbidden: The caller is not allowed to create notes.
            QuotaExceeded: The author cannot store more notes.
        """
        check_author(principal)
        return await self._executor.execute(Create(principal=principal, note=note), operation)

    async def replace(
        self,
        principal: Principal,
        id: int,
        note: NotePut,
        conditions: Conditions = UNCONDITIONAL,
        base: int | None = None,
    ) -> Note:
        """Set the title, the description, and the other fields that were sent.

        With a ``base`` version, the fields are merged with the changes since that version.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that the conditions do not allow.
            MergeConflict: Others changed the same words since ``base``.
            BaseNotFound: The history does not have the version ``base``.
            FieldTooLong: The merged note would exceed a limit.
        """
        write = Update(principal=principal, id=id, versions=conditions.versions, fields=note.changes, base=base)
        return await self._executor.execute(write, conditions.operation)

    async def patch(
        self,
        principal: Principal,
        id: int,
        patch: NotePatch,
        conditions: Conditions = UNCONDITIONAL,
        base: int | None = None,
    ) -> Note:
        """Set the fields that were sent. An empty patch changes nothing. Raises the errors of :meth:`replace`."""
        fields, versions = patch.changes, conditions.versions
        if fields:
            write = Update(principal=principal, id=id, versions=versions, fields=fields, base=base)
            return await self._executor.execute(write, conditions.operation)
        record = await self._store.notes.find(id)
        check(principal, None if record is None else record.note_access, Permission.WRITE)
        if record is None or record.deleted:
            raise NoteNotFound
        note = record.note
        if versions is not None and note.version not in versions:
            raise VersionMismatch(note)
        if base is not None and base > note.version:
            raise BaseNotFound(base, note)
        return note

    async def edit(
        self, principal: Principal, id: int, operations: Sequence[TextOperation], conditions: Conditions = UNCONDITIONAL
    ) -> Note:
        """Apply text operations to the content, all of them or none.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that the conditions do not allow.
            EditRefused: The text of an operation does not occur as often as expected.
            FieldTooLong: The content would become too long.
        """
        write = EditContent(principal=principal, id=id, versions=conditions.versions, operations=operations)
        return await self._executor.execute(write, conditions.operation)

    async def restore(
        self, principal: Principal, id: int, version: int, conditions: Conditions = UNCONDITIONAL
    ) -> Note:
        """Restore the fields of an earlier version, as a new version.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that the conditions do not allow.
            VersionNotFound: The history does not have the version.
        """
        write = RestoreVersion(principal=principal, id=id, versions=conditions.versions, version=version)
        return await self._executor.execute(write, conditions.operation)

    async def delete(self, principal: Principal, id: int, conditions: Conditions = UNCONDITIONAL) -> Note:
        """Move a note to the trash, and return it as it was before.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionMismatch: The note has a version that the conditions do not allow.
        """
        write = Delete(principal=principal, id=id, versions=conditions.versions)
        return await self._executor.execute(write, conditions.operation)

    async def undelete(self, principal: Principal, id: int, conditions: Conditions = UNCONDITIONAL) -> Note:
        """Restore a note from the trash. Raises the errors of :meth:`delete`."""
        write = Undelete(principal=principal, id=id, versions=conditions.versions)
        return await self._executor.execute(write, conditions.operation)

    async def purge(self, principal: Principal, id: int, conditions: Conditions = UNCONDITIONAL) -> None:
        """Permanently delete a note in the trash, with its history. Raises the errors of :meth:`delete`."""
        write = Purge(principal=principal, id=id, versions=conditions.versions)
        await self._executor.execute(write, conditions.operation)

    async def share(self, principal: Principal, id: int, change: AccessChange, versions: Versions = None) -> Note:
        """Change the access rights of a note.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            Forbidden: The caller does not own the note.
            VersionMismatch: The note has a version that ``versions`` does not allow.
            QuotaExceeded: The new owner cannot store the note.
        """
        return await self._executor.execute(Share(principal=principal, id=id, versions=versions, change=change))

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
            operation: The idempotent request, if it is one. If it is repeated, only the missing notes are created.

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
            await self._quotas.add_note(principal.name, note.note)
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
            return created.note.id  # even if it has since been changed or deleted
        await self._publisher.publish("import", change, [principal.name], principal)
        return change.note.id


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
