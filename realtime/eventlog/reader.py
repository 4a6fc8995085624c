"""Reads the log for clients that resume. Clients that missed the same events share one read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from realtime.eventlog.codec import decode_event

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus
    from realtime.eventlog.cursor import Cursor
    from realtime.eventlog.event import Event

MAX_CONCURRENT_READS = 16
MAX_READ_BYTES = 256 * 1024
"""Maximum size of one read. Clients that missed more events read several times."""


class _Abandoned(Exception):
    """Raised for clients that share a read if the client that performs it is cancelled. They read again."""


class LogReader:
    """Reads the log for the clients of one worker, with a limit on concurrent reads."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._semaphore = asyncio.Semaphore(MAX_CONCURRENT_READS)
        self._pending: dict[tuple[Cursor, int], asyncio.Future[list[Event] | None]] = {}

    async def missed(self, since: Cursor, last: int) -> list[Event] | None:
        """Return events after ``since`` and up to the offset ``last``, only the latest of each note, in order.

        Returns:
            The events, an empty list if there are no more, or ``None`` if the log does not reach back to ``since``.

        Raises:
            BusUnavailable: Redis cannot be reached.
        """
        key = since, last
        while (shared := self._pending.get(key)) is not None:
            try:
                return await asyncio.shield(shared)
            except _Abandoned:
                continue
        future = self._pending[key] = asyncio.get_running_loop().create_future()
        try:
            events = await self._read(since, last)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else _Abandoned())
            future.exception()  # prevents a warning if no other client waits
            raise
        finally:
            del self._pending[key]
        future.set_result(events)
        return events

    async def _read(self, since: Cursor, last: int) -> list[Event] | None:
        async with self._semaphore:
            entries = await self._bus.read(since, last, collapse=True, limit_bytes=MAX_READ_BYTES)
        return None if entries is None else [decode_event(payload) for _, payload in entries]
