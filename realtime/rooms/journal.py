"""Group commit: updates of all rooms go into MongoDB's journal together, and out of this worker only afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from realtime.errors import Unavailable
from realtime.store.texts import Row, new_row

if TYPE_CHECKING:
    from realtime.store.texts import TextStore

log = logging.getLogger(__name__)

CROWDED = 8 * 1024 * 1024
"""Bytes waiting from which on whoever writes should wait, too."""
MOST_ROW = 4 * 1024 * 1024
"""Bytes of a row; a document of MongoDB has room for 16 MiB."""
SHARE = 0.1
"""Of the time of the loop, for handing out what is stored: with many clients each commit takes more together."""
LONGEST_REST = 0.005
"""Seconds."""


class Source(Protocol):
    """Who writes: one text of a note as it is in memory."""

    id: int


S = TypeVar("S", bound=Source)


class Batch(Generic[S]):
    """What one commit stores. ``done`` is true once it is stored, and false if it may not be."""

    __slots__ = ("done", "people", "size", "updates")

    def __init__(self) -> None:
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.size = 0
        self.updates: dict[S, list[bytes]] = {}
        self.people: dict[S, dict[str, None]] = {}

    def rows(self) -> list[tuple[S, Row]]:
        """The batch as rows, one for each source unless it is large, in the order of their names."""
        rows = []
        for source, updates in self.updates.items():
            people = list(self.people.get(source, ()))
            some: list[bytes] = []
            size = 0
            for update in updates:
                if some and size + len(update) > MOST_ROW:
                    rows.append((source, new_row(source.id, some, people)))
                    some, size = [], 0
                some.append(update)
                size += len(update)
            rows.append((source, new_row(source.id, some, people)))
        return rows


class Journal(Generic[S]):
    """The journal of one worker. ``stored`` hears of every batch before whoever waits for it."""

    def __init__(self, texts: TextStore, stored: Callable[[Sequence[tuple[S, Row]], bool], None]) -> None:
        self._texts = texts
        self._stored = stored
        self._next: Batch[S] = Batch()
        self._due = asyncio.Event()

    @property
    def crowded(self) -> bool:
        """Whether so much waits that nobody should add to it."""
        return self._next.size > CROWDED

    def write(self, source: S, update: bytes, name: str | None) -> asyncio.Future[bool]:
        """Queues an update. The future tells whether the commit that it goes with succeeded."""
        batch = self._next
        batch.updates.setdefault(source, []).append(update)
        if name is not None:
            batch.people.setdefault(source, {})[name] = None
        batch.size += len(update)
        self._due.set()
        return batch.done

    async def run(self) -> None:
        """Commits what is queued, for ever: what comes while one batch is on its way, and a little after, is the next.

        After is in proportion to what it took to hand the batch out.
        """
        while True:
            await self._due.wait()
            batch, self._next = self._next, Batch()
            self._due.clear()
            rows = batch.rows()
            stored = False
            try:
                await self._texts.journal([row for _, row in rows])
                stored = True
            except Unavailable as error:
                log.warning("updates could not be journaled", extra={"notes": len(rows), "error": error.detail})
            finally:
                started = time.perf_counter()
                try:
                    self._stored(rows, stored)
                finally:
                    batch.done.set_result(stored)
            await asyncio.sleep(min(LONGEST_REST, (1 / SHARE - 1) * (time.perf_counter() - started)))
