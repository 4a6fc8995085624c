"""The reads: notes, lists, tags, history and trash."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from realtime.auth.permissions import NoteAccess, check, owners_of
from realtime.errors import NoteNotFound, VersionNotFound
from realtime.notes.diff import Hunk, hunks

if TYPE_CHECKING:
    from realtime.auth.permissions import Access, Principal
    from realtime.core.fair_queue import FairPool, Requester
    from realtime.notes.listing import Listing, Page, Position
    from realtime.notes.models import Note, Revision, RevisionText, TagCount, Trashed
    from realtime.store.bson_mapping import NoteState
    from realtime.store.database import Store


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two versions of a note: by field, the changed lines."""

    before: int
    after: int
    fields: Mapping[str, Sequence[Hunk]]


Texts = Mapping[str, tuple[str, str]]

KEPT_DIFFERENCES = 16
"""Each can be as large as two notes."""


def _tag_lines(revision: RevisionText) -> str:
    return "".join(f"{tag}\n" for tag in revision.tags)


def _difference(before: int, after: int, texts: Texts) -> Difference:
    return Difference(before, after, {name: hunks(old, new) for name, (old, new) in texts.items()})


class NoteQueries:
    """Every read of notes that is not part of a write."""

    def __init__(self, store: Store, pool: FairPool) -> None:
        self._store = store
        self._pool = pool
        self._differences: OrderedDict[tuple[int, int, int], Difference] = OrderedDict()

    async def get(self, principal: Principal, id: int) -> Note:
        """A live note. Raises :class:`NoteNotFound`."""
        if principal.keys is not None:
            await self._admit(principal, id)  # first: the time that it takes to read a text tells how long that is
        record = await self._store.notes.find(id)
        if record is None or record.deleted:
            raise NoteNotFound
        check(principal, record.note_access)
        return record.note

    async def current(self, principal: Principal, id: int) -> int:
        """The version of a live note, without reading its text. Raises :class:`NoteNotFound`."""
        return (await self._admit(principal, id)).version

    async def access(self, principal: Principal, id: int) -> tuple[Access, int]:
        """Who may do what with a live note, and its version. Raises :class:`NoteNotFound`."""
        await self._admit(principal, id)
        record = await self._store.notes.find(id)
        if record is None or record.deleted:
            raise NoteNotFound
        check(principal, record.note_access)
        return record.access, record.note.version

    async def page(self, principal: Principal, listing: Listing) -> Page:
        """A page of live notes."""
        return await self._store.lists.page(replace(listing, keys=principal.keys))

    async def tags(self, principal: Principal, limit: int) -> Sequence[TagCount]:
        """Tags and how many notes have them, the most frequent first."""
        return await self._store.lists.tags(principal.keys, limit)

    async def trash(
        self, principal: Principal, after: Position | None, limit: int
    ) -> tuple[Sequence[Trashed], Position | None]:
        """Notes in the trash, the last deleted first, and where the page ends if there are more."""
        return await self._store.lists.trash(owners_of(principal), after, limit)

    async def trashed(self, principal: Principal, id: int) -> Trashed:
        """A note in the trash. Raises :class:`NoteNotFound`."""
        if principal.keys is not None:
            await self._admit(principal, id, live=False)
        found = await self._store.lists.trashed(id)
        if found is None:
            raise NoteNotFound
        note, access = found
        check(principal, NoteAccess(access, live=False))
        return note

    async def history(self, principal: Principal, id: int, before: int, limit: int) -> tuple[Sequence[Revision], bool]:
        """Revisions below a version, the newest first, and whether there are more. Raises :class:`NoteNotFound`."""
        await self._admit(principal, id)
        page = await self._store.history.page(id, before, limit)
        if page is None:
            raise NoteNotFound
        return page

    async def version(self, principal: Principal, id: int, version: int) -> RevisionText:
        """A version of a live note. Raises :class:`NoteNotFound`, :class:`VersionNotFound`."""
        await self._admit(principal, id)
        revision = await self._store.history.read(id, version)
        if revision is None:
            raise VersionNotFound
        return revision

    async def difference(
        self, principal: Principal, id: int, before: int, after: int, requester: Requester
    ) -> Difference:
        """Return what changed between two versions. The last ones are kept, as versions do not change.

        Raises :class:`NoteNotFound`, :class:`VersionNotFound`, and :class:`TooManyRequests` if many comparisons wait.
        """
        old, new = [await self.version(principal, id, version) for version in (before, after)]
        texts = {
            "title": (f"{old.title}\n", f"{new.title}\n"),
            "description": (f"{old.description}\n", f"{new.description}\n"),
            "tags": (_tag_lines(old), _tag_lines(new)),
            "content": (old.content, new.content),
        }
        changed = {name: pair for name, pair in texts.items() if pair[0] != pair[1]}
        return await self._pool.run(requester, partial(self._kept_difference, (id, before, after), changed))

    def _kept_difference(self, key: tuple[int, int, int], texts: Texts) -> Difference:
        """Compare texts, unless that was done before. Called in the thread of the pool only."""
        found = self._differences.pop(key, None) or _difference(*key[1:], texts)
        self._differences[key] = found
        if len(self._differences) > KEPT_DIFFERENCES:
            self._differences.popitem(last=False)
        return found

    async def count(self, principal: Principal) -> int:
        """How many live notes there are."""
        return await self._store.lists.count(principal.keys)

    def every(self, principal: Principal) -> AsyncIterator[Sequence[Note]]:
        """All live notes by id, some at a time."""
        return self._store.lists.export(principal.keys)

    async def _admit(self, principal: Principal, id: int, *, live: bool = True) -> NoteState:
        """Raises :class:`NoteNotFound` unless this is a live note, or one in the trash, that somebody may read."""
        state = await self._store.notes.state(id)
        if state is None or state.note_access.live is not live:
            raise NoteNotFound
        check(principal, state.note_access)
        return state
