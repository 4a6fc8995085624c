"""What people do with notes, kept for the admins: noted at once, and stored a moment later, many at a time.

That who wrote a version is known for good does not hang on it: the history tells. Events that anybody can cause as
often as they like, such as refused requests, are recorded once an hour, up to a limit (:class:`HourlyLimit`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from realtime.auth.permissions import GUEST_NAME, guest_name
from realtime.auth.users import AuditAction, AuditEntry
from realtime.core.networks import wide_network_of
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.notes.models import NoteChange
    from realtime.store.audit import Audit

log = logging.getLogger(__name__)

INTERVAL = 0.2
MOST_WAITING = 100_000
AT_ONCE = 1000
CLOSE_TIMEOUT = 1.0

DEEDS: dict[str, AuditAction] = {
    "create": "note.create",
    "import": "note.create",
    "update": "note.change",
    "edit": "note.change",
    "type": "note.change",
    "restore": "note.change",
    "delete": "note.delete",
    "undelete": "note.restore",
    "purge": "note.purge",
    "share": "note.share",
}
"""What each write of a note is called here."""


HOUR_SECONDS = 3600.0
MAX_PER_CALLER = 50
"""Entries of a user, a link or a network in an hour."""
MAX_PER_WORKER = 2000
"""Entries of all callers in an hour."""


class HourlyLimit:
    """Decides which of many alike events are recorded: the first of each hour, and a limited number of each caller."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seen: dict[str, set[Hashable]] = {}
        self._count = 0

    def take(self, caller: str, event: Hashable) -> bool | None:
        """Return whether to record an event; ``None`` for the one with which a caller exceeds the limit of the hour."""
        if time.monotonic() - self._began > HOUR_SECONDS:
            self._began, self._seen, self._count = time.monotonic(), {}, 0
        seen = self._seen.get(caller, set())
        if event in seen or len(seen) > MAX_PER_CALLER or self._count >= MAX_PER_WORKER:
            return False
        self._seen.setdefault(caller, seen).add(event)
        self._count += 1
        return True if len(seen) <= MAX_PER_CALLER else None


class NoteAudit:
    """The entries of one worker that are still to be stored."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._waiting: deque[AuditEntry] = deque(maxlen=MOST_WAITING)
        self._hourly = HourlyLimit()

    def add(self, action: str, name: str | None, principal: Principal | None, change: NoteChange) -> None:
        """Record a write of a note.

        Args:
            action: The write.
            name: Its author. People who are not signed in are recorded by the link that they have.
            viewer: Whoever sent the request. ``None`` for text that was typed.
            change: The note as it was written.
        """
        link = change.access.link
        if name == GUEST_NAME or name is None:
            by_link = link is not None and (
                name == GUEST_NAME or (principal is not None and link.key in (principal.keys or ()))
            )
            name = guest_name([link.key]) if link is not None and by_link else None
        address = None if principal is None else principal.address
        self._add(AuditEntry("", datetime.now(UTC), name, DEEDS[action], str(change.note.id), address, ok=True))

    def add_hourly(self, action: AuditAction, principal: Principal, target: str | None, *, ok: bool = True) -> None:
        """Record an event that may be frequent: the first of each hour, by caller, address and target.

        Once a caller has reached the limit, an entry without a target stands for all others of this hour.
        """
        who = principal.name or guest_name(principal.keys or ())
        caller = who or wide_network_of(principal.address or "")
        recorded = self._hourly.take(caller, (action, principal.address, target))
        if recorded is not False:
            told = target if recorded else None
            self._add(AuditEntry("", datetime.now(UTC), who, action, told, principal.address, ok=ok))

    def _add(self, entry: AuditEntry) -> None:
        self._waiting.append(entry)

    async def run(self) -> None:
        """Stores what is noted, for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.flush()

    async def flush(self) -> None:
        """Stores what is noted so far. Raises :class:`Unavailable`, with what is not stored still noted."""
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                await self._audit.add_many(some)
            except Unavailable:
                self._waiting.extendleft(reversed(some))
                raise

    async def aclose(self) -> None:
        """Stores what is noted, if that can be done at once."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.flush()
