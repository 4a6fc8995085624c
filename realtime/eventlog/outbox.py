"""Publishes and archives every committed change at least once, even if a worker is killed.

A write marks its note as ``dirty`` and stores the revision in the same commit. The mark is cleared, in batches, when
the event is in the log and the revision in the history, and only if the note still has the published version. Each
worker periodically reads which notes are dirty (the sweep): if a note is dirty at the same version in two consecutive
passes, its change is published again. The log and the history ignore duplicates. The procedure does not compare clocks.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from realtime.errors import BusUnavailable, Unavailable
from realtime.eventlog.bus import LogEntry
from realtime.eventlog.codec import encode_change

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus
    from realtime.failpoints import FailPoints
    from realtime.metrics import Metrics
    from realtime.notes.models import NoteChange
    from realtime.store.database import Store

log = logging.getLogger(__name__)

ARCHIVE_INTERVAL_SECONDS = 0.1
SWEEP_INTERVAL_SECONDS = 1.0
MAX_SWEEP_NOTES = 1000
REPUBLISH_BATCH_NOTES = 50
CLOSE_TIMEOUT_SECONDS = 1.0


class Outbox:
    """Publishes committed changes, archives their revisions and clears the dirty marks.

    Args:
        store: The database.
        bus: The event log.
        failpoints: Fault injection for tests.
        metrics: The metrics, which count publications and dirty notes.
        publish_wait: Maximum time in seconds for which :meth:`publish` waits for the log.
    """

    def __init__(
        self, store: Store, bus: Bus, failpoints: FailPoints, metrics: Metrics, *, publish_wait: float
    ) -> None:
        self._store = store
        self._bus = bus
        self._failpoints = failpoints
        self._metrics = metrics
        self._publish_wait = publish_wait
        self._tasks: set[asyncio.Task[bool]] = set()
        self._to_archive: set[int] = set()
        self._published: dict[int, int] = {}
        self._dirty_before: dict[int, int] = {}

    async def publish(self, change: NoteChange) -> None:
        """Publish a committed change, and wait for it to reach the log.

        Waits at most ``publish_wait`` seconds, and not at all if Redis is unavailable or slow to respond
        (:attr:`Bus.silent`). Does not raise: if the change cannot be published, the sweep publishes it later.
        """
        self._to_archive.add(change.note.id)
        task = asyncio.create_task(self._publish(change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not self._bus.silent:
            await asyncio.wait({task}, timeout=self._publish_wait)

    async def _publish(self, change: NoteChange) -> bool:
        """Publish a change, and return whether it is in the log now."""
        note = change.note
        await self._failpoints.hit("after_write_before_publish")
        try:
            await self._bus.append(LogEntry(str(note.id), note.version, *encode_change(change)))
        except BusUnavailable:
            self._metrics.publishes.labels("failed").inc()
            return False
        self._metrics.publishes.labels("ok").inc()
        await self._failpoints.hit("after_publish_before_clear")
        self._published[note.id] = max(note.version, self._published.get(note.id, 0))
        return True

    async def run_archive(self) -> None:
        """Call :meth:`archive_and_clear` periodically until cancelled."""
        while True:
            await asyncio.sleep(ARCHIVE_INTERVAL_SECONDS)
            await self.archive_and_clear()

    async def archive_and_clear(self) -> None:
        """Archive the committed revisions, and clear the dirty marks of published changes."""
        # After a failure the notes stay dirty, and the sweep retries them.
        notes, self._to_archive = self._to_archive, set()
        published, self._published = self._published, {}
        await self._store.archiver.archive(notes, published)

    async def run_sweep(self) -> None:
        """Call :meth:`sweep_once` periodically until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_SECONDS)
            await self.sweep_once()

    async def sweep_once(self) -> None:
        """Republish the changes of notes that are still dirty at the same version as in the previous pass."""
        dirty = await self._store.notes.dirty(MAX_SWEEP_NOTES)
        self._metrics.dirty.set(len(dirty))
        stale = [id for id, version in dirty.items() if self._dirty_before.get(id) == version]
        self._dirty_before = dirty
        self._to_archive.update(stale)
        for start in range(0, len(stale) if self._bus.available else 1, REPUBLISH_BATCH_NOTES):
            changes = await self._store.notes.changes(stale[start : start + REPUBLISH_BATCH_NOTES])
            published = sum(await asyncio.gather(*(self._publish(change) for change in changes)))
            if published:
                log.info("published changes that were still pending", extra={"note_count": published})
        await self.archive_and_clear()

    async def aclose(self) -> None:
        """Wait briefly for changes that are being published, and clear their marks if MongoDB responds in time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._publish_wait)
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self.archive_and_clear()
