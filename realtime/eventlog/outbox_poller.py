"""The way around Redis: while it is silent, what is committed reaches the clients of every worker from MongoDB.

There, what is not published yet is marked, whoever wrote it. Once Redis is back all of it comes again, in the order of
the log; what comes twice carries its version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus
    from realtime.notes.models import NoteChange
    from realtime.store.database import Store

INTERVAL = 0.2
GRACE = 0.05
"""Seconds in which a loop that was held up reads an answer that is there."""
SHARE = 0.25
"""Of the time, at most, for looking: the longer Redis is away, the more is marked."""
NOTES = 10_000
BATCH = 50


class OutboxPoller:
    """Looks for what is not published while Redis is silent, and has it told."""

    def __init__(self, store: Store, bus: Bus, tell: Callable[[NoteChange], None]) -> None:
        self._store = store
        self._bus = bus
        self._tell = tell
        self._told: dict[int, int] = {}

    async def run(self) -> None:
        """Looks, for ever."""
        loop = asyncio.get_running_loop()
        rest = INTERVAL
        while True:
            await asyncio.sleep(rest)
            started = loop.time()
            if self._bus.silent:
                await asyncio.sleep(GRACE)
            if self._bus.silent:
                await self.poll()
            else:
                self._told.clear()
            rest = max(INTERVAL, (1 / SHARE - 1) * (loop.time() - started))

    async def poll(self) -> None:
        """Tells of what is not published and was not told yet. Raises :class:`Unavailable`."""
        dirty = await self._store.notes.dirty(NOTES)
        new = [id for id, version in dirty.items() if version > self._told.get(id, 0)]
        for start in range(0, len(new), BATCH):
            for change in await self._store.notes.changes(new[start : start + BATCH]):
                self._told[change.note.id] = change.note.version
                self._tell(change)
