"""Records actions on notes in the audit log, which administrators can read. Entries are buffered and stored in batches.

The history, not this log, records the authors of changes. Events that clients can cause without limit, such as denied
requests, are recorded at most once an hour, up to a limit (:class:`HourlyLimit`).
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

FLUSH_INTERVAL_SECONDS = 0.2
MAX_PENDING = 100_000
BATCH_SIZE = 1000
CLOSE_TIMEOUT_SECONDS = 1.0

ACTIONS: dict[str, AuditAction] = {
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
"""The action in the audit log for each kind of write."""


HOUR_SECONDS = 3600.0
MAX_PER_CALLER = 50
"""Maximum number of entries per hour for one user, link or network."""
MAX_PER_WORKER = 2000
"""Maximum number of entries per hour for all callers of a worker."""


class HourlyLimit:
    """Selects the events to record: each event once per hour, and a limited number for each caller."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seen: dict[str, set[Hashable]] = {}
        self._count = 0

    def admit(self, caller: str, event: Hashable) -> bool | None:
        """Return whether to record an event, or ``None`` for the first event above the limit of a caller."""
        if time.monotonic() - self._started > HOUR_SECONDS:
            self._started, self._seen, self._count = time.monotonic(), {}, 0
        seen = self._seen.get(caller, set())
        if event in seen or len(seen) > MAX_PER_CALLER or self._count >= MAX_PER_WORKER:
            return False
        self._seen.setdefault(caller, seen).add(event)
        self._count += 1
        return True if len(seen) <= MAX_PER_CALLER else None


class NoteAudit:
    """The audit log of one worker, with the entries that are not stored yet."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._pending: deque[AuditEntry] = deque(maxlen=MAX_PENDING)
        self._hourly = HourlyLimit()

    def add(self, action: str, name: str | None, principal: Principal | None, change: NoteChange) -> None:
        """Record a write to a note.

        Args:
            action: The kind of write.
            name: The author. Guests are recorded by their link.
            principal: The caller, or ``None`` for text that was typed in the editor.
            change: The note after the write.
        """
        link = change.access.link
        if name == GUEST_NAME or name is None:
            by_link = link is not None and (
                name == GUEST_NAME or (principal is not None and link.key in (principal.keys or ()))
            )
            name = guest_name([link.key]) if link is not None and by_link else None
        address = None if principal is None else principal.address
        self._add(AuditEntry("", datetime.now(UTC), name, ACTIONS[action], str(change.note.id), address, ok=True))

    def add_hourly(self, action: AuditAction, principal: Principal, target: str | None, *, ok: bool = True) -> None:
        """Record a frequent event at most once an hour for each caller, action, address and target.

        When a caller exceeds the limit, one entry without a target stands for all further events of this hour.
        """
        user = principal.name or guest_name(principal.keys or ())
        caller = user or wide_network_of(principal.address or "")
        recorded = self._hourly.admit(caller, (action, principal.address, target))
        if recorded is not False:
            recorded_target = target if recorded else None
            self._add(AuditEntry("", datetime.now(UTC), user, action, recorded_target, principal.address, ok=ok))

    def _add(self, entry: AuditEntry) -> None:
        self._pending.append(entry)

    async def run(self) -> None:
        """Store the pending entries periodically until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Store the pending entries. Raises :class:`Unavailable`, and keeps the entries that were not stored."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(BATCH_SIZE, len(self._pending)))]
            try:
                await self._audit.add_many(batch)
            except Unavailable:
                self._pending.extendleft(reversed(batch))
                raise

    async def aclose(self) -> None:
        """Store the pending entries, or give up after a timeout."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self.flush()
