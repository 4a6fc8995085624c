"""Quotas: how many notes a user may own, how large all of them together may be, and how fast their history may grow.

A note counts for its owner, whoever writes it, and until it is deleted permanently. What a user stores is read from an
index, at most once per :data:`FRESH`, and what is written is added to it until it is read again. So writes that several
workers receive at the same moment can exceed a quota by their own size, and no more.

The history keeps replaced contents. It does not count for the owner, who could not make room again. Instead, each
worker limits what one writer may add to the history per day to the size that a user may own. The bytes are charged when
they are stored, which is a moment after the write and normally in the worker that made it. So an allowance can become
negative, and then no content is accepted from that writer over REST until it is paid back. Typed text is always stored.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realtime.auth.permissions import Permission, can
from realtime.auth.requesters import writers_of
from realtime.core.token_bucket import TokenBucket
from realtime.errors import QuotaExceeded, TooManyRequests
from realtime.notes.models import StorageUsage, size_of
from realtime.store.history import SHORT_CONTENT_CHARACTERS

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.notes.models import Note, NoteIn
    from realtime.store.bson_mapping import Record
    from realtime.store.database import Store
    from realtime.store.history import StoredContent

    Compute = Callable[[Note], Awaitable[Mapping[str, Any]]]

KNOWN_SECONDS = 5.0
"""How long a usage is added to before it is read again."""
FRESH = 1.0
"""Seconds for which a usage that was read is fresh enough to refuse a write."""
MAX_KNOWN = 10_000
MIB = 1024 * 1024
DAY_SECONDS = 86_400
REPLACED_TOO_MUCH = "You replaced too much text in a short time. Try again later, or send only the changes"

SIZED = ("title", "description", "content", "tags")
"""The fields of a note that count."""


@dataclass(slots=True)
class KnownUsage:
    """The usage of one owner: as it was read at a time of the monotonic clock, plus what was added since."""

    usage: StorageUsage
    read: float
    estimated: bool = False
    """Whether less may have been added."""


class Quotas:
    """The quotas of all users, the same for each.

    Args:
        store: The database.
        limit: Notes and bytes that a user may store; 0 is without a limit.
    """

    def __init__(self, store: Store, limit: StorageUsage) -> None:
        self._store = store
        self._limit = limit
        self._known: dict[str, KnownUsage] = {}
        self._history: dict[str, TokenBucket] = {}

    async def reserve(self, owner: str | None, notes: int, size: int, *, estimated: bool = False) -> None:
        """Count what is about to be written for its owner.

        Args:
            owner: The owner; ``None`` has no quota.
            notes: How many notes are added.
            size: How many bytes are added.
            estimated: Whether it may be less.

        Raises:
            QuotaExceeded: There is no room for it.
            Unavailable: What the owner stores is not known.
        """
        if owner is None or not any(self._limit):
            return
        await self.check(owner, notes, size)
        known = self._known[owner]
        known.usage = StorageUsage(known.usage.notes + notes, known.usage.size + size)
        known.estimated = known.estimated or estimated

    async def check(self, owner: str | None, notes: int, size: int) -> None:
        """Raise as :meth:`reserve` does, and count nothing."""
        if owner is None or not any(self._limit):
            return
        problem = self._problem(await self._read(owner, KNOWN_SECONDS), notes, size)
        if problem is not None:
            problem = self._problem(await self._read(owner, FRESH, exact=True), notes, size)
        if problem is not None:
            raise problem

    async def admit(self, record: Record, note: Note, fields: Mapping[str, Any], writer: str) -> None:
        """Count what fields add to a note.

        Args:
            record: The note as it is stored.
            note: The same note, with the text that is typed now.
            fields: The fields that are written.
            writer: The user, or the group of clients, whose write it is.

        Raises:
            QuotaExceeded: The note grows, and its owner has no room left.
            TooManyRequests: The writer added too much to histories.
            Unavailable: What the owner stores is not known.
        """
        if not any(self._limit):
            return
        self._check_history(writer, fields)
        before = {name: getattr(note, name) for name in SIZED}
        growth = size_of({**before, **fields}) - size_of(before)
        if growth > 0:
            await self.reserve(record.access.owner, 0, growth)
        else:
            self.forget(record.access.owner)

    def within(self, record: Record, compute: Compute, writer: str) -> Compute:
        """Return a function that computes the fields of a write and counts them, as :meth:`admit` does."""

        async def computed(note: Note) -> Mapping[str, Any]:
            fields = await compute(note)
            await self.admit(record, note, fields, writer)
            return fields

        return computed

    async def admit_unread(self, id: int, fields: Mapping[str, Any], writer: str) -> None:
        """Count what fields add to a note that was not read. It is read if that depends on its present text.

        Raises as :meth:`admit`.
        """
        standing = await self._store.notes.note_access(id) if any(self._limit) else None
        if standing is None or standing.access.owner is None:
            return
        self._check_history(writer, fields)
        if len(fields.get("content") or "") <= SHORT_CONTENT_CHARACTERS:
            try:
                await self.reserve(standing.access.owner, 0, size_of(fields), estimated=True)
                return
            except QuotaExceeded:
                pass
        record = await self._store.notes.find(id)
        if record is not None:
            await self.admit(record, record.note, fields, writer)

    async def receive(self, owner: str | None, note: Note | NoteIn) -> None:
        """Count a note that its owner gets. Raises as :meth:`reserve`."""
        await self.reserve(owner, 1, size_of({name: getattr(note, name) for name in SIZED}))

    async def give(self, record: Record, owner: str | None) -> None:
        """Count a note for its new owner, if that is not the one that it has. Raises as :meth:`reserve`."""
        if owner != record.access.owner:
            await self.receive(owner, record.note)

    async def check_typing(self, principal: Principal, id: int) -> None:
        """Raise as :meth:`reserve` if a user who may write a note cannot type in it: its owner has no room left."""
        standing = await self._store.notes.note_access(id) if any(self._limit) else None
        if standing is not None and can(principal, standing.access, Permission.WRITE):
            await self.check(standing.access.owner, 0, 1)

    def forget(self, owner: str | None) -> None:
        """Read again what an owner stores: it may be less."""
        if owner is not None:
            self._known.pop(owner, None)

    def charge_history(self, stored: StoredContent) -> None:
        """Charge a content that was added to the history to its authors, in equal shares."""
        if not self._limit.size:
            return
        now = time.monotonic()
        writers = writers_of(stored.authors, stored.note)
        for writer in writers:
            allowance = self._history.get(writer)
            if allowance is None:
                if len(self._history) >= MAX_KNOWN:
                    del self._history[next(iter(self._history))]
                per_second = self._limit.size / DAY_SECONDS
                allowance = self._history[writer] = TokenBucket(per_second, self._limit.size, now)
            allowance.consume(stored.size / len(writers), now)

    def _check_history(self, writer: str, fields: Mapping[str, Any]) -> None:
        """Raise :class:`TooManyRequests` if a writer who sends a content added too much to the history."""
        allowance = self._history.get(writer)
        if allowance is None or fields.get("content") is None:
            return
        left = allowance.remaining(time.monotonic())
        if left <= 0:
            raise TooManyRequests(1 - left * DAY_SECONDS / self._limit.size, REPLACED_TOO_MUCH)

    async def _read(self, owner: str, seconds: float, *, exact: bool = False) -> StorageUsage:
        """Return what an owner stores.

        Args:
            owner: The owner.
            seconds: How long ago it may have been read.
            exact: Read it again if what was added since is estimated.
        """
        started = time.monotonic()
        known = self._known.get(owner)
        if known is not None and started - known.read <= seconds and not (exact and known.estimated):
            return known.usage
        usage = await self._store.sizes.usage(owner)
        known = self._known.get(owner)
        if known is None or known.read <= started:  # else it was read in the meantime, and added to
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[owner] = KnownUsage(usage, time.monotonic())
        return known.usage

    def _problem(self, usage: StorageUsage, notes: int, size: int) -> QuotaExceeded | None:
        """Return why nothing can be added to a usage, or ``None``."""
        if notes and 0 < self._limit.notes < usage.notes + notes:
            return QuotaExceeded(f"{self._limit.notes} notes")
        if size and 0 < self._limit.size < usage.size + size:
            return QuotaExceeded(f"{self._limit.size / MIB:g} MiB of notes")
        return None
