"""Group commit: writes the updates of all rooms to MongoDB in batches. Rooms publish only written updates."""

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

HIGH_WATER_BYTES = 8 * 1024 * 1024
"""Number of queued bytes above which writers should wait."""
MAX_ROW_BYTES = 4 * 1024 * 1024
"""Maximum size of a row. MongoDB allows documents of 16 MiB."""
MAX_DELIVERY_SHARE = 0.1
"""Maximum share of the event loop's time for delivering committed rows. With many clients, commits become larger."""
MAX_DELAY_SECONDS = 0.005
"""Maximum delay after a commit."""


class Source(Protocol):
    """The text that updates belong to."""

    id: int


S = TypeVar("S", bound=Source)


class Batch(Generic[S]):
    """The updates of one commit.

    ``done`` resolves to true once they are stored, and to false if they may be lost.
    """

    __slots__ = ("authors", "done", "size", "updates")

    def __init__(self) -> None:
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.size = 0
        self.updates: dict[S, list[bytes]] = {}
        self.authors: dict[S, dict[str, None]] = {}

    def rows(self) -> list[tuple[S, Row]]:
        """Return the rows of the batch: one for each source, or several if its updates are large."""
        rows = []
        for source, updates in self.updates.items():
            authors = list(self.authors.get(source, ()))
            chunk: list[bytes] = []
            size = 0
            for update in updates:
                if chunk and size + len(update) > MAX_ROW_BYTES:
                    rows.append((source, new_row(source.id, chunk, authors)))
                    chunk, size = [], 0
                chunk.append(update)
                size += len(update)
            rows.append((source, new_row(source.id, chunk, authors)))
        return rows


class Journal(Generic[S]):
    """Writes the updates of one worker. ``on_commit`` is called for every batch before its future resolves."""

    def __init__(self, texts: TextStore, on_commit: Callable[[Sequence[tuple[S, Row]], bool], None]) -> None:
        self._texts = texts
        self._on_commit = on_commit
        self._next: Batch[S] = Batch()
        self._not_empty = asyncio.Event()

    @property
    def overloaded(self) -> bool:
        """Whether writers should wait until the queue is shorter."""
        return self._next.size > HIGH_WATER_BYTES

    def write(self, source: S, update: bytes, name: str | None) -> asyncio.Future[bool]:
        """Queue an update. The returned future resolves to whether its commit succeeded."""
        batch = self._next
        batch.updates.setdefault(source, []).append(update)
        if name is not None:
            batch.authors.setdefault(source, {})[name] = None
        batch.size += len(update)
        self._not_empty.set()
        return batch.done

    async def run(self) -> None:
        """Commit queued updates in batches until cancelled.

        Updates that arrive during a commit, and during a delay after it, form the next batch. The delay is proportional
        to the time that delivering the last batch took.
        """
        while True:
            await self._not_empty.wait()
            batch, self._next = self._next, Batch()
            self._not_empty.clear()
            rows = batch.rows()
            success = False
            try:
                await self._texts.journal([row for _, row in rows])
                success = True
            except Unavailable as error:
                log.warning("updates could not be journaled", extra={"notes": len(rows), "error": error.detail})
            finally:
                started = time.perf_counter()
                try:
                    self._on_commit(rows, success)
                finally:
                    batch.done.set_result(success)
            await asyncio.sleep(min(MAX_DELAY_SECONDS, (1 / MAX_DELIVERY_SHARE - 1) * (time.perf_counter() - started)))
