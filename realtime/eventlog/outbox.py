"""The outbox: what was committed gets published and archived, at least once, whoever died in between.

A write leaves its note ``dirty``, with its revision, in the same commit. Once its event is in the log and its revision
in the history the mark is cleared, in batches and only at the version that was published. A sweep in every worker takes
up what stays dirty over two passes; the log and the history drop what they already have. No clocks.
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

CLEAR_INTERVAL = 0.1
SWEEP_INTERVAL = 1.0
SWEEP_NOTES = 1000
REPUBLISH_NOTES = 50
CLOSE_TIMEOUT = 1.0


class Outbox:
    """Publishes committed changes, has their revisions archived, and clears their marks."""

    def __init__(self, store: Store, bus: Bus, failpoints: FailPoints, metrics: Metrics, *, wait: float) -> None:
        self._store = store
        self._bus = bus
        self._failpoints = failpoints
        self._metrics = metrics
        self._wait = wait
        self._tasks: set[asyncio.Task[bool]] = set()
        self._committed: set[int] = set()
        self._published: dict[int, int] = {}
        self._dirty_before: dict[int, int] = {}

    async def publish(self, change: NoteChange) -> None:
        """Publishes a change that is committed, and waits for it a little.

        Never fails and never waits long: what is not published now, the sweep will.
        """
        self._committed.add(change.note.id)
        task = asyncio.create_task(self._publish(change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not self._bus.silent:
            await asyncio.wait({task}, timeout=self._wait)

    async def _publish(self, change: NoteChange) -> bool:
        """Whether the log has it now."""
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

    async def clear(self) -> None:
        """Archives what was committed and takes the mark off what was published, for ever."""
        while True:
            await asyncio.sleep(CLEAR_INTERVAL)
            await self.flush()

    async def flush(self) -> None:
        """Archives what was committed and takes the mark off what was published, so far."""
        # Lost with a failure here, a note stays dirty, and the sweep takes it up.
        committed, self._committed = self._committed, set()
        published, self._published = self._published, {}
        await self._store.archive.archive(committed, published)

    async def sweep(self) -> None:
        """Publishes again what stays dirty, for ever."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            await self.sweep_once()

    async def sweep_once(self) -> None:
        """One pass of the sweep."""
        dirty = await self._store.notes.dirty(SWEEP_NOTES)
        self._metrics.dirty.set(len(dirty))
        stale = [id for id, version in dirty.items() if self._dirty_before.get(id) == version]
        self._dirty_before = dirty
        self._committed.update(stale)
        for start in range(0, len(stale) if self._bus.available else 1, REPUBLISH_NOTES):
            changes = await self._store.notes.changes(stale[start : start + REPUBLISH_NOTES])
            published = sum(await asyncio.gather(*(self._publish(change) for change in changes)))
            if published:
                log.info("published again what was left over", extra={"notes": published})
        await self.flush()

    async def aclose(self) -> None:
        """Waits a little for the publishes under way, and clears their marks if that can be done at once."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._wait)
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.flush()
