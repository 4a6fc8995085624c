"""Publishes changes from MongoDB to the clients of a worker while Redis is unavailable.

Unpublished changes of all workers are marked as dirty in MongoDB. When Redis is available again, the same changes are
published through the log as well. Clients ignore events with a version that they already have.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus
    from realtime.eventlog.consumer import LogConsumer
    from realtime.store.database import Store

POLL_INTERVAL_SECONDS = 0.2
REPLY_GRACE_SECONDS = 0.05
"""Time for an event loop that was blocked to read a reply that has already arrived."""
MAX_TIME_SHARE = 0.25
"""Maximum share of time spent on polling. A poll takes longer the longer Redis is unavailable: more notes are dirty."""
MAX_NOTES = 10_000
BATCH_NOTES = 50


class OutboxPoller:
    """Polls MongoDB for unpublished changes while Redis is unresponsive, and delivers them through the consumer."""

    def __init__(self, store: Store, bus: Bus, consumer: LogConsumer) -> None:
        self._store = store
        self._bus = bus
        self._consumer = consumer
        self._published: dict[int, int] = {}

    async def run(self) -> None:
        """Poll until cancelled."""
        loop = asyncio.get_running_loop()
        delay = POLL_INTERVAL_SECONDS
        while True:
            await asyncio.sleep(delay)
            started = loop.time()
            if self._bus.silent:
                await asyncio.sleep(REPLY_GRACE_SECONDS)
            if self._bus.silent:
                await self.poll()
            else:
                self._published.clear()
            delay = max(POLL_INTERVAL_SECONDS, (1 / MAX_TIME_SHARE - 1) * (loop.time() - started))

    async def poll(self) -> None:
        """Publish the unpublished changes that were not passed on yet. Raises :class:`Unavailable`."""
        dirty = await self._store.notes.dirty(MAX_NOTES)
        new = [id for id, version in dirty.items() if version > self._published.get(id, 0)]
        for start in range(0, len(new), BATCH_NOTES):
            for change in await self._store.notes.changes(new[start : start + BATCH_NOTES]):
                self._published[change.note.id] = change.note.version
                self._consumer.deliver_unlogged(change)
