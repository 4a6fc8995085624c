"""Periodic cleanup: thins out old versions, and purges old notes in the trash with all their data.

Every worker runs it about a minute after its start, and then about once per hour. Concurrent runs are harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from realtime.auth.permissions import UNRESTRICTED
from realtime.errors import NoteNotFound, VersionMismatch
from realtime.notes.preconditions import Conditions

if TYPE_CHECKING:
    from realtime.notes.service import NoteService
    from realtime.store.database import Store

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 60.0
INTERVAL_SECONDS = 3600.0
BATCH_NOTES = 100


class Retention:
    """Thins out versions older than ``history_days``, and purges notes that were in the trash for ``trash_days``."""

    def __init__(self, store: Store, notes: NoteService, *, history_days: int, trash_days: int) -> None:
        self._store = store
        self._notes = notes
        self._history = timedelta(days=history_days)
        self._trash = timedelta(days=trash_days)

    async def run(self) -> None:
        """Run the cleanup periodically, until cancelled."""
        delay = FIRST_DELAY_SECONDS
        while True:
            # Random, so that workers that started together do not run it together.
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            await self.tidy(datetime.now(UTC))
            delay = INTERVAL_SECONDS

    async def tidy(self, now: datetime) -> None:
        """Run the cleanup once, for the given time."""
        purged = await self.expire(now)
        swept = await self.sweep()
        thinned = await self.thin(now)
        resized = await self._store.sizes.repair()
        searched = await self._store.searched.repair()
        if thinned or purged or swept or resized or searched:
            counts = {"versions": thinned, "notes": purged, "texts": swept, "sizes": resized, "searched": searched}
            log.info("cleaned up old data", extra=counts)

    async def thin(self, now: datetime) -> int:
        """Thin out old versions, one whole day at a time, and return the number of removed versions."""
        before = (now - self._history).replace(hour=0, minute=0, second=0, microsecond=0)
        history = self._store.history
        thinned = 0
        while (id := await history.unthinned(before)) is not None:
            thinned += await history.thin(id, before)
        return thinned

    async def sweep(self) -> int:
        """Delete remaining shared texts of purged notes, and return the number of those notes.

        They remain if a worker was killed during a purge, or stored typed text before it received the purge.
        """
        swept = 0
        after: int | None = 0
        while after is not None:
            purged, after = await self._store.texts.purged(after, BATCH_NOTES)
            if purged:
                await self._store.texts.forget(purged)
            swept += len(purged)
        return swept

    async def expire(self, now: datetime) -> int:
        """Purge notes that were in the trash for too long, and return their number."""
        purged = 0
        while expired := await self._store.lists.expired(now - self._trash, BATCH_NOTES):
            for id, version in expired.items():
                try:
                    await self._notes.purge(UNRESTRICTED, id, Conditions({version}))
                    purged += 1
                except (NoteNotFound, VersionMismatch):
                    log.debug("note in the trash was changed by another request", extra={"note": id})
        return purged
