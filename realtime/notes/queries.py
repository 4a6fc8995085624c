"""The read operations on notes, lists, tags, history and trash."""

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
    """The differences between two versions of a note.

    Attributes:
        before: The earlier version.
        after: The later version.
        fields: The hunks of changed lines, by the name of the field. Fields without changes are left out.
    """

    before: int
    after: int
    fields: Mapping[str, Sequence[Hunk]]


Texts = Mapping[str, tuple[str, str]]
"""The earlier and the later text, by the name of the field."""

MAX_CACHED_DIFFERENCES = 16
"""The size of the cache of differences. Each can be as large as two notes."""


def _tag_lines(revision: RevisionText) -> str:
    return "".join(f"{tag}\n" for tag in revision.tags)


def _difference(before: int, after: int, texts: Texts) -> Difference:
    return Difference(before, after, {name: hunks(old, new) for name, (old, new) in texts.items()})


class NoteQueries:
    """Reads notes for callers, with authorization."""

    def __init__(self, store: Store, pool: FairPool) -> None:
        self._store = store
        self._pool = pool
        self._differences: OrderedDict[tuple[int, int, int], Difference] = OrderedDict()

    async def get(self, principal: Principal, id: int) -> Note:
        """Return a live note, or raise :class:`NoteNotFound`."""
        if principal.keys is not None:
            # Before the content is read: otherwise the response time would reveal its length.
            await self._authorize(principal, id)
        record = await self._store.notes.find(id)
        if record is None or record.deleted:
            raise NoteNotFound
        check(principal, record.note_access)
        return record.note

    async def current(self, principal: Principal, id: int) -> int:
        """Return the version of a live note without reading its content, or raise :class:`NoteNotFound`."""
        return (await self._authorize(principal, id)).version

    async def access(self, principal: Principal, id: int) -> tuple[Access, int]:
        """Return the access rights and the version of a live note, or raise :class:`NoteNotFound`."""
        await self._authorize(principal, id)
        record = await self._store.notes.find(id)
        if record is None or record.deleted:
            raise NoteNotFound
        check(principal, record.note_access)
        return record.access, record.note.version

    async def page(self, principal: Principal, listing: Listing) -> Page:
        """Return a page of live notes."""
        return await self._store.lists.page(replace(listing, keys=principal.keys))

    async def tags(self, principal: Principal, limit: int) -> Sequence[TagCount]:
        """Return the most frequent tags with the number of their notes, in descending order."""
        return await self._store.lists.tags(principal.keys, limit)

    async def trash(
        self, principal: Principal, after: Position | None, limit: int
    ) -> tuple[Sequence[Trashed], Position | None]:
        """Return a page of the trash, most recently deleted first, and the position of its end if there are more."""
        return await self._store.lists.trash(owners_of(principal), after, limit)

    async def trashed(self, principal: Principal, id: int) -> Trashed:
        """Return a note in the trash, or raise :class:`NoteNotFound`."""
        if principal.keys is not None:
            await self._authorize(principal, id, live=False)
        result = await self._store.lists.trashed(id)
        if result is None:
            raise NoteNotFound
        note, access = result
        check(principal, NoteAccess(access, live=False))
        return note

    async def history(self, principal: Principal, id: int, before: int, limit: int) -> tuple[Sequence[Revision], bool]:
        """Return a page of the history of a live note.

        Args:
            principal: The caller.
            id: The note.
            before: The version before which the page begins.
            limit: The maximum number of revisions.

        Returns:
            The revisions, the newest first, and whether there are more.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
        """
        await self._authorize(principal, id)
        page = await self._store.history.page(id, before, limit)
        if page is None:
            raise NoteNotFound
        return page

    async def version(self, principal: Principal, id: int, version: int) -> RevisionText:
        """Return a version of a live note, or raise :class:`NoteNotFound` or :class:`VersionNotFound`."""
        await self._authorize(principal, id)
        revision = await self._store.history.read(id, version)
        if revision is None:
            raise VersionNotFound
        return revision

    async def difference(
        self, principal: Principal, id: int, before: int, after: int, requester: Requester
    ) -> Difference:
        """Return the differences between two versions of a live note. The latest results are cached.

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            VersionNotFound: The history does not have one of the versions.
            TooManyRequests: Too many comparisons are queued.
        """
        old, new = [await self.version(principal, id, version) for version in (before, after)]
        texts = {
            "title": (f"{old.title}\n", f"{new.title}\n"),
            "description": (f"{old.description}\n", f"{new.description}\n"),
            "tags": (_tag_lines(old), _tag_lines(new)),
            "content": (old.content, new.content),
        }
        changed = {name: pair for name, pair in texts.items() if pair[0] != pair[1]}
        return await self._pool.run(requester, partial(self._cached_difference, (id, before, after), changed))

    def _cached_difference(self, key: tuple[int, int, int], texts: Texts) -> Difference:
        """Return a difference from the cache, or compare the texts. Called only in the thread of the pool."""
        difference = self._differences.pop(key, None) or _difference(*key[1:], texts)
        self._differences[key] = difference
        if len(self._differences) > MAX_CACHED_DIFFERENCES:
            self._differences.popitem(last=False)
        return difference

    async def count(self, principal: Principal) -> int:
        """Return the number of live notes."""
        return await self._store.lists.count(principal.keys)

    def every(self, principal: Principal) -> AsyncIterator[Sequence[Note]]:
        """Iterate over all live notes in batches, ordered by id."""
        return self._store.lists.export(principal.keys)

    async def _authorize(self, principal: Principal, id: int, *, live: bool = True) -> NoteState:
        """Return the state of a note that the caller can read, or raise :class:`NoteNotFound`.

        With ``live`` false, the note must be in the trash.
        """
        state = await self._store.notes.state(id)
        if state is None or state.note_access.live is not live:
            raise NoteNotFound
        check(principal, state.note_access)
        return state
