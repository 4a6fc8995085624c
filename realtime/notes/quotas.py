"""Quotas: how many notes a user may own, how large all of them together may be, and how fast their history may grow.

A note counts for its owner, whoever writes it, until it is deleted permanently. The usage of an owner is read from an
index, at most once per :data:`FRESH_SECONDS`, and writes are added to it until it is read again. Concurrent writes in
several workers can therefore exceed a quota, but only by their own size.

The history keeps replaced contents. It does not count for the owner, who could not free that space. Instead, each
worker limits the bytes that a writer adds to the history per day to the size that a user may own. They are charged when
they are stored, which is shortly after the write, normally in the same worker. A token bucket can therefore become
negative. Then no content is accepted from that writer over REST until the bucket is refilled. Typed text is always
stored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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

CACHE_SECONDS = 5.0
"""The time after which the usage of an owner is read again."""
FRESH_SECONDS = 1.0
"""The maximum age of a usage that can reject a write."""
MAX_CACHED_USERS = 10_000
MIB = 1024 * 1024
DAY_SECONDS = 86_400
REPLACED_TOO_MUCH = "You replaced too much text in a short time. Try again later, or send only the changes"

SIZED = ("title", "description", "content", "tags")
"""The fields of a note that count toward its size."""


@dataclass(slots=True)
class KnownUsage:
    """The usage of one owner.

    Attributes:
        usage: The usage as it was read, plus later additions.
        read_time: The time of the read, on the monotonic clock.
        estimated: Whether the additions may be too large.
    """

    usage: StorageUsage
    read_time: float
    estimated: bool = False


class Quotas:
    """Checks the quotas of all users. Every user has the same quota.

    Args:
        store: The database.
        limit: The number of notes and of bytes that a user may store; 0 means no limit.
    """

    def __init__(self, store: Store, limit: StorageUsage) -> None:
        self._store = store
        self._limit = limit
        self._usages: dict[str, KnownUsage] = {}
        self._buckets: dict[str, TokenBucket] = {}

    async def reserve(self, owner: str | None, notes: int, size: int, *, estimated: bool = False) -> None:
        """Add a write to the usage of its owner.

        Args:
            owner: The owner; ``None`` for a note without an owner, which has no quota.
            notes: The number of new notes.
            size: The number of new bytes.
            estimated: Whether ``size`` is an upper bound.

        Raises:
            QuotaExceeded: The write would exceed the quota.
            Unavailable: The usage cannot be read.
        """
        if owner is None or not any(self._limit):
            return
        await self.check(owner, notes, size)
        known = self._usages[owner]
        known.usage = StorageUsage(known.usage.notes + notes, known.usage.size + size)
        known.estimated = known.estimated or estimated

    async def check(self, owner: str | None, notes: int, size: int) -> None:
        """Raise the errors of :meth:`reserve` without adding anything to the usage."""
        if owner is None or not any(self._limit):
            return
        problem = self._problem(await self._read(owner, CACHE_SECONDS), notes, size)
        if problem is not None:
            problem = self._problem(await self._read(owner, FRESH_SECONDS, exact=True), notes, size)
        if problem is not None:
            raise problem

    async def admit(self, record: Record, note: Note, fields: Mapping[str, Any], writer: str) -> None:
        """Add the growth of a note to the usage of its owner.

        Args:
            record: The stored note.
            note: The same note, with the current shared text.
            fields: The fields of the write.
            writer: The user, or the group of clients, that makes the write.

        Raises:
            QuotaExceeded: The note grows, and its owner has reached the quota.
            TooManyRequests: The writer added too much to the history.
            Unavailable: The usage cannot be read.
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

    async def admit_unread(self, id: int, fields: Mapping[str, Any], writer: str) -> None:
        """Add the growth of a note to the usage of its owner, and read the note only if the result depends on it.

        Raises the errors of :meth:`admit`.
        """
        note_access = await self._store.notes.note_access(id) if any(self._limit) else None
        if note_access is None or note_access.access.owner is None:
            return
        self._check_history(writer, fields)
        if len(fields.get("content") or "") <= SHORT_CONTENT_CHARACTERS:
            try:
                await self.reserve(note_access.access.owner, 0, size_of(fields), estimated=True)
                return
            except QuotaExceeded:
                pass
        record = await self._store.notes.find(id)
        if record is not None:
            await self.admit(record, record.note, fields, writer)

    async def add_note(self, owner: str | None, note: Note | NoteIn) -> None:
        """Add a note to the usage of its new owner. Raises the errors of :meth:`reserve`."""
        await self.reserve(owner, 1, size_of({name: getattr(note, name) for name in SIZED}))

    async def transfer_note(self, record: Record, owner: str | None) -> None:
        """Add a note to the usage of its new owner if the owner changes. Raises the errors of :meth:`reserve`."""
        if owner != record.access.owner:
            await self.add_note(owner, record.note)

    async def check_typing(self, principal: Principal, id: int) -> None:
        """Raise the errors of :meth:`reserve` if a writer cannot type in a note because its owner reached the quota."""
        note_access = await self._store.notes.note_access(id) if any(self._limit) else None
        if note_access is not None and can(principal, note_access.access, Permission.WRITE):
            await self.check(note_access.access.owner, 0, 1)

    def forget(self, owner: str | None) -> None:
        """Remove a usage from the cache, because it may have decreased."""
        if owner is not None:
            self._usages.pop(owner, None)

    def charge_history(self, stored: StoredContent) -> None:
        """Charge the authors of a content that was added to the history, in equal shares."""
        if not self._limit.size:
            return
        now = time.monotonic()
        writers = writers_of(stored.authors, stored.note)
        for writer in writers:
            bucket = self._buckets.get(writer)
            if bucket is None:
                if len(self._buckets) >= MAX_CACHED_USERS:
                    del self._buckets[next(iter(self._buckets))]
                per_second = self._limit.size / DAY_SECONDS
                bucket = self._buckets[writer] = TokenBucket(per_second, self._limit.size, now)
            bucket.consume(stored.size / len(writers), now)

    def _check_history(self, writer: str, fields: Mapping[str, Any]) -> None:
        """Raise :class:`TooManyRequests` if a writer that sends a content added too much to the history."""
        bucket = self._buckets.get(writer)
        if bucket is None or fields.get("content") is None:
            return
        remaining = bucket.remaining(time.monotonic())
        if remaining <= 0:
            raise TooManyRequests(1 - remaining * DAY_SECONDS / self._limit.size, REPLACED_TOO_MUCH)

    async def _read(self, owner: str, max_age: float, *, exact: bool = False) -> StorageUsage:
        """Return the usage of an owner, from the cache if possible.

        Args:
            owner: The owner.
            max_age: The maximum age of a cached usage in seconds.
            exact: Whether to ignore a cached usage with estimated additions.
        """
        started = time.monotonic()
        known = self._usages.get(owner)
        if known is not None and started - known.read_time <= max_age and not (exact and known.estimated):
            return known.usage
        usage = await self._store.sizes.usage(owner)
        known = self._usages.get(owner)
        if known is None or known.read_time <= started:  # else another call cached a newer usage
            if len(self._usages) >= MAX_CACHED_USERS:
                self._usages.clear()
            known = self._usages[owner] = KnownUsage(usage, time.monotonic())
        return known.usage

    def _problem(self, usage: StorageUsage, notes: int, size: int) -> QuotaExceeded | None:
        """Return the error if the additions would exceed the quota, else ``None``."""
        if notes and 0 < self._limit.notes < usage.notes + notes:
            return QuotaExceeded(f"{self._limit.notes} notes")
        if size and 0 < self._limit.size < usage.size + size:
            return QuotaExceeded(f"{self._limit.size / MIB:g} MiB of notes")
        return None
