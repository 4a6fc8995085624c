"""Group commit: updates of all rooms go into MongoDB's journal together, and out of this worker only afterwards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from realtime.errors import Unavailable
from realtime.store.texts import Row, new_row

if TYPE_CHECKING:
    from realtime.store.texts import TextStore

log = logging.getLogger(__name__)

WAIT = 0.005
"""Seconds for which the first update of a commit waits for others, at most."""
MOST_UPDATES = 256
MOST_BYTES = 1024 * 1024


class Batch:
    """What one commit stores. ``done`` is true once it is stored, and false if it may not be."""

    __slots__ = ("done", "people", "size", "updates", "waiting")

    def __init__(self) -> None:
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        self.size = 0
        self.updates: dict[int, list[bytes]] = {}
        self.people: dict[int, dict[str, None]] = {}

    def rows(self) -> list[Row]:
        """The batch as rows, one for each note."""
        return [new_row(note, updates, list(self.people.get(note, ()))) for note, updates in self.updates.items()]


class Journal:
    """The journal of one worker. ``stored`` hears of every batch before whoever waits for it."""

    def __init__(self, texts: TextStore, stored: Callable[[Sequence[Row], bool], None]) -> None:
        self._texts = texts
        self._stored = stored
        self._next = Batch()
        self._due = asyncio.Event()
        self._full = asyncio.Event()

    def write(self, note: int, update: bytes, name: str | None) -> asyncio.Future[bool]:
        """Queues an update. The future tells whether the commit that it goes with succeeded."""
        batch = self._next
        batch.updates.setdefault(note, []).append(update)
        if name is not None:
            batch.people.setdefault(note, {})[name] = None
        batch.waiting += 1
        batch.size += len(update)
        self._due.set()
        if batch.waiting >= MOST_UPDATES or batch.size >= MOST_BYTES:
            self._full.set()
        return batch.done

    async def run(self) -> None:
        """Commits what is queued, for ever, one batch after the other."""
        while True:
            await self._due.wait()
            try:
                async with asyncio.timeout(WAIT):
                    await self._full.wait()
            except TimeoutError:
                pass
            batch, self._next = self._next, Batch()
            self._due.clear()
            self._full.clear()
            rows = batch.rows()
            stored = False
            try:
                await self._texts.journal(rows)
                stored = True
            except Unavailable as error:
                log.warning("updates could not be journaled", extra={"notes": len(rows), "error": error.detail})
            finally:
                self._stored(rows, stored)
                batch.done.set_result(stored)
