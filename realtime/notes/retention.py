"""What is to be tidied up with time: old versions are thinned out, old trash is purged, with all that is left of it.

Every worker does it, a minute after its start and once an hour; what two do at once has the effect of one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from realtime.auth.permissions import UNRESTRICTED
from realtime.errors import NoteNotFound, VersionMismatch

if TYPE_CHECKING:
    from realtime.notes.service import NoteService
    from realtime.store.database import Store

log = logging.getLogger(__name__)

FIRST = 60.0
INTERVAL = 3600.0
BATCH = 100


class Retention:
    """Thins out histories after ``history_days``, and purges what was in the trash for ``trash_days``."""

    def __init__(self, store: Store, notes: NoteService, *, history_days: int, trash_days: int) -> None:
        self._store = store
        self._notes = notes
        self._history = timedelta(days=history_days)
        self._trash = timedelta(days=trash_days)

    async def run(self) -> None:
        """Tidies up, for ever."""
        pause = FIRST
        while True:
            # At a random time: workers that started together do not do it together.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            await self.tidy(datetime.now(UTC))
            pause = INTERVAL

    async def tidy(self, now: datetime) -> None:
        """Tidies up, as of a time."""
        purged = await self.expire(now)
        swept = await self.sweep()
        thinned = await self.thin(now)
        resized = await self._store.sizes.repair()
        searched = await self._store.searched.repair()
        if thinned or purged or swept or resized or searched:
            counts = {"versions": thinned, "notes": purged, "texts": swept, "sizes": resized, "searched": searched}
            log.info("tidied up", extra=counts)

    async def thin(self, now: datetime) -> int:
        """Thins out old versions, days as a whole, and returns how many went."""
        before = (now - self._history).replace(hour=0, minute=0, second=0, microsecond=0)
        history = self._store.history
        thinned = 0
        while (id := await history.unthinned(before)) is not None:
            thinned += await history.thin(id, before)
        return thinned

    async def sweep(self) -> int:
        """Deletes what is left of the texts of purged notes, and returns of how many.

        A worker may have died while it purged one, or have stored what was typed until it knew.
        """
        swept = 0
        after: int | None = 0
        while after is not None:
            purged, after = await self._store.texts.purged(after, BATCH)
            if purged:
                await self._store.texts.forget(purged)
            swept += len(purged)
        return swept

    async def expire(self, now: datetime) -> int:
        """Purges what was in the trash for too long, and returns how many notes went."""
        purged = 0
        while expired := await self._store.lists.expired(now - self._trash, BATCH):
            for id, version in expired.items():
                try:
                    await self._notes.purge(UNRESTRICTED, id, {version}, None)
                    purged += 1
                except (NoteNotFound, VersionMismatch):
                    log.debug("restored, deleted anew or purged in between", extra={"note": id})
        return purged
