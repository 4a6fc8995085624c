"""The reads: notes, lists, tags, history and trash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realtime.errors import NoteNotFound, VersionNotFound
from realtime.merge import Hunk, hunks

if TYPE_CHECKING:
    from realtime.models import Listing, Note, Page, Position, Revision, RevisionText, TagCount, Trashed
    from realtime.store import Store


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two versions of a note: by field, the changed lines."""

    before: int
    after: int
    fields: Mapping[str, Sequence[Hunk]]


class Queries:
    """Every read of notes that is not part of a write."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, id: int) -> Note:
        """A live note. Raises :class:`NoteNotFound`."""
        record = await self._store.notes.find(id)
        if record is None or record.deleted:
            raise NoteNotFound
        return record.note

    async def page(self, listing: Listing) -> Page:
        """A page of live notes."""
        return await self._store.lists.page(listing)

    async def tags(self, limit: int) -> Sequence[TagCount]:
        """Tags and how many notes have them, the most frequent first."""
        return await self._store.lists.tags(limit)

    async def trash(self, after: Position | None, limit: int) -> tuple[Sequence[Trashed], Position | None]:
        """Notes in the trash, the last deleted first, and where the page ends if there are more."""
        return await self._store.lists.trash(after, limit)

    async def trashed(self, id: int) -> Trashed:
        """A note in the trash. Raises :class:`NoteNotFound`."""
        note = await self._store.lists.trashed(id)
        if note is None:
            raise NoteNotFound
        return note

    async def history(self, id: int, before: int, limit: int) -> tuple[Sequence[Revision], bool]:
        """Revisions below a version, the newest first, and whether there are more. Raises :class:`NoteNotFound`."""
        page = await self._store.history.page(id, before, limit)
        if page is None:
            raise NoteNotFound
        return page

    async def version(self, id: int, version: int) -> RevisionText:
        """A version of a live note. Raises :class:`NoteNotFound`, :class:`VersionNotFound`."""
        if not await self._store.notes.alive(id):
            raise NoteNotFound
        revision = await self._store.history.read(id, version)
        if revision is None:
            raise VersionNotFound
        return revision

    async def difference(self, id: int, before: int, after: int) -> Difference:
        """What changed between two versions. Raises :class:`NoteNotFound`, :class:`VersionNotFound`."""
        old, new = [await self.version(id, version) for version in (before, after)]
        texts = {
            "title": (f"{old.title}\n", f"{new.title}\n"),
            "description": (f"{old.description}\n", f"{new.description}\n"),
            "tags": tuple("".join(f"{tag}\n" for tag in revision.tags) for revision in (old, new)),
            "content": (old.content, new.content),
        }
        # In a thread: of long texts it takes up to a second.
        fields = {name: await asyncio.to_thread(hunks, one, two) for name, (one, two) in texts.items() if one != two}
        return Difference(before, after, fields)

    async def count(self) -> int:
        """How many live notes there are."""
        return await self._store.lists.count()

    def every(self) -> AsyncIterator[Sequence[Note]]:
        """All live notes by id, some at a time."""
        return self._store.lists.every()
