"""The kinds of writes to notes. Each computes the values to store from the current state of the note."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from realtime.auth.permissions import Permission, check
from realtime.auth.requesters import writer_of
from realtime.errors import BaseNotFound, DraftLost, VersionNotFound
from realtime.notes.merge import merge_fields, merged
from realtime.notes.text_operations import edited
from realtime.store.notes import NO_SHARED_TEXT, RevisionInfo, SharedTextChange

if TYPE_CHECKING:
    from realtime.auth.permissions import Access, Principal
    from realtime.core.fair_queue import FairPool
    from realtime.notes.models import Action, Note, NoteChange, NoteIn
    from realtime.notes.preconditions import Versions
    from realtime.notes.quotas import Quotas
    from realtime.notes.text_operations import TextOperation
    from realtime.rooms.manager import Rooms
    from realtime.store.bson_mapping import Record
    from realtime.store.database import Store

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WriteContext:
    """The resources that writes need.

    Attributes:
        store: The database.
        quotas: The quotas of note owners.
        pool: The thread for merges and text operations.
        texts: The shared texts.
    """

    store: Store
    quotas: Quotas
    pool: FairPool
    texts: Rooms


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(ABC):
    """A write that can be attempted repeatedly until it is applied.

    Attributes:
        action: The name of the write in metrics, in the history and in the audit log.
        permission: The permission that ``principal`` must have.
        in_trash: Whether the note must be in the trash rather than live.
        principal: The caller.
        id: The note; ``None`` if the write creates it.
        versions: The versions at which the write is allowed; ``None`` for any.
    """

    action: ClassVar[str]
    permission: ClassVar[Permission] = Permission.WRITE
    in_trash: ClassVar[bool] = False
    principal: Principal
    id: int | None = None
    versions: Versions = None

    @abstractmethod
    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Apply the write.

        Args:
            context: The resources that the write needs.
            token: The token of the idempotency key; a write with the same token is applied only once.
            versions: The versions at which it may be applied now.

        Returns:
            The change, or ``None`` if the write could not be applied to the current state of the note.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Create(Write):
    """Creates a note that its author owns."""

    action = "create"
    note: NoteIn

    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Insert the note."""
        await context.quotas.add_note(self.principal.name, self.note)
        return await context.store.notes.create(self.note.model_dump(), token, author=self.principal.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingNoteWrite(Write):
    """A write to an existing note."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldWrite(ExistingNoteWrite):
    """A write whose fields are computed from the note's current version, and stored only if that is still current.

    If the note has a shared text, the text is edited to match the new content.
    """

    action: ClassVar[Action]

    @property
    def includes_typing(self) -> bool:
        """Whether :meth:`compute` receives the content including typed text that is not in a version yet.

        Otherwise, that text is merged into the new content.
        """
        return True

    @property
    def writes_content(self) -> bool:
        """Whether the content is written. Only then is the shared text needed."""
        return True

    @abstractmethod
    async def compute(self, context: WriteContext, note: Note) -> Fields:
        """Return the fields to write, given the note."""

    @property
    def details(self) -> Fields:
        """Additional fields of the revision in the history."""
        return {}

    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Compute the fields from the current note, and store them."""
        record = await context.store.notes.find(self.id)
        if record is None or record.deleted or token in record.operations:
            return None
        check(self.principal, record.note_access, self.permission)  # again: the rights at this version may differ
        if versions is not None and record.note.version not in versions:
            return None
        if record.lineage is not None and self.writes_content:
            return await self._apply_to_text(context, record, token)
        fields = await self._compute_within_quota(context, record, record.note)
        return await self._store(context, record, fields, token, NO_SHARED_TEXT)

    async def _apply_to_text(self, context: WriteContext, record: Record, token: str | None) -> NoteChange | None:
        """Store the fields, together with the edit that makes the shared text match the new content."""
        note = record.note
        async with context.texts.edit(record) as edit:
            text = edit.snapshot.text
            current = note.model_copy(update={"content": text}) if self.includes_typing else note
            fields = await self._compute_within_quota(context, record, current)
            content = fields["content"]
            if not self.includes_typing and text != note.content:
                merge = partial(merged, note.content, content, text)
                content, conflicts = await context.pool.run(writer_of(self.principal, note.id), merge)
                if conflicts:  # store the typed text as a version before the next attempt overwrites it
                    await edit.project()
                    return None
            try:
                row = await edit.propose(content)
            except DraftLost:
                return None
            typed_by = edit.snapshot.authors if text != note.content else ()
            try:
                text_change = SharedTextChange(record.lineage, row)
                fields = {**fields, "content": content}
                change = await self._store(context, record, fields, token, text_change, typed_by)
            except BaseException:  # a canceled write may have been committed
                edit.abandon()
                raise
            if change is not None:
                edit.commit(change)
            return change

    async def _compute_within_quota(self, context: WriteContext, record: Record, note: Note) -> Fields:
        """Return the fields to write, after counting their size against the owner's quota."""
        fields = await self.compute(context, note)
        await context.quotas.admit(record, note, fields, writer_of(self.principal, note.id).group)
        return fields

    async def _store(
        self,
        context: WriteContext,
        record: Record,
        fields: Fields,
        token: str | None,
        text: SharedTextChange,
        typed_by: Sequence[str] = (),
    ) -> NoteChange | None:
        authors = {"authors": list(typed_by)} if typed_by else {}
        revision = RevisionInfo(self.action, self.principal.name, {**self.details, **authors})
        return await context.store.notes.update(self.id, fields, {record.note.version}, token, revision, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(FieldWrite):
    """Sets fields. With a ``base`` version, they are merged with the changes since that version."""

    action = "update"
    fields: Fields
    base: int | None = None

    @property
    def includes_typing(self) -> bool:
        """Whether there is a base version: the fields are then merged with the typed text word by word."""
        return self.base is not None

    @property
    def writes_content(self) -> bool:
        """Whether the content is among the fields."""
        return "content" in self.fields

    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Set the fields without reading the note, unless the result depends on it."""
        if self.base is None and not (self.writes_content and context.texts.is_open(self.id)):
            await context.quotas.admit_unread(self.id, self.fields, writer_of(self.principal, self.id).group)
            revision = RevisionInfo(self.action, self.principal.name)
            change = await context.store.notes.update(self.id, self.fields, versions, token, revision)
            if change is not None or not self.writes_content:
                return change
            # The content of a note with a shared text can only be written through that text.
        return await FieldWrite.apply(self, context, token, versions)

    async def compute(self, context: WriteContext, note: Note) -> Fields:
        """Return the fields, merged with the changes since the base version if there is one."""
        if self.base is None or (note.version == self.base and not self.writes_content):
            return self.fields
        # Even at the base version, a shared text can have newer changes.
        base = await context.store.history.read(note.id, self.base) if self.base <= note.version else None
        if base is None:
            raise BaseNotFound(self.base, note)
        merge = partial(merge_fields, base, note, self.fields)
        return await context.pool.run(writer_of(self.principal, note.id), merge)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditContent(FieldWrite):
    """Applies text operations to the content."""

    action = "edit"
    operations: Sequence[TextOperation]

    async def compute(self, context: WriteContext, note: Note) -> Fields:
        """Return the edited content."""
        edit = partial(edited, note.content, self.operations)
        return {"content": await context.pool.run(writer_of(self.principal, note.id), edit)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreVersion(FieldWrite):
    """Restores the fields of an earlier version."""

    action = "restore"
    version: int

    @property
    def includes_typing(self) -> bool:
        """False: the typed text is not part of the restored version."""
        return False

    @property
    def details(self) -> Fields:
        """The number of the restored version."""
        return {"restored": self.version}

    async def compute(self, context: WriteContext, note: Note) -> Fields:
        """Return the fields of the version."""
        revision = await context.store.history.read(note.id, self.version)
        if revision is None:
            raise VersionNotFound
        return {name: getattr(revision, name) for name in ("title", "description", "content", "tags")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete(ExistingNoteWrite):
    """Moves a note to the trash."""

    action = "delete"
    permission = Permission.DELETE

    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Move the note to the trash."""
        return await context.store.notes.delete(self.id, versions, token, self.principal.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelete(ExistingNoteWrite):
    """Restores a note from the trash."""

    action = "undelete"
    permission = Permission.DELETE
    in_trash = True

    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Restore the note."""
        return await context.store.notes.undelete(self.id, versions, token, self.principal.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge(ExistingNoteWrite):
    """Permanently deletes a note in the trash, with its history."""

    action = "purge"
    permission = Permission.DELETE
    in_trash = True

    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Delete the note, its history and its shared text."""
        change = await context.store.notes.purge(self.id, versions, token)
        if change is not None:
            await context.store.history.forget([self.id])
            await context.store.texts.forget([self.id])
            context.quotas.forget(change.access.owner)
        return change


class AccessChange(Protocol):
    """A change to the access rights of a note."""

    def apply(self, current: Access) -> Access:
        """Return the new access rights. Called again after a concurrent write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(ExistingNoteWrite):
    """Changes the access rights of a note."""

    action = "share"
    permission = Permission.SHARE
    change: AccessChange

    async def apply(self, context: WriteContext, token: str | None, versions: Versions) -> NoteChange | None:
        """Store the new access rights, only if the note is still at the version for which they were computed."""
        record = await context.store.notes.find(self.id)
        if record is None or record.deleted:
            return None
        check(self.principal, record.note_access, self.permission)  # again: the rights at this version may differ
        version = record.note.version
        if versions is not None and version not in versions:
            return None
        access = record.access.followed_by(self.change.apply(record.access), version + 1)
        await context.quotas.transfer_note(record, access.owner)
        return await context.store.notes.share(self.id, access, version, token, self.principal.name)
