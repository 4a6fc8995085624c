"""Reads of the log for those who come back: a few at a time, and one for all who missed the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from realtime.eventlog.codec import decode_event

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus
    from realtime.eventlog.cursor import Cursor
    from realtime.eventlog.event import Event

AT_ONCE = 16
BYTES = 256 * 1024
"""Of one read; who missed more reads on."""


class _Abandoned(Exception):
    """Who read for all went away."""


class LogReader:
    """The reads of one worker."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._under_way: dict[tuple[Cursor, int], asyncio.Future[list[Event] | None]] = {}

    async def missed(self, since: Cursor, last: int) -> list[Event] | None:
        """The next events after a cursor and up to an offset, the latest of each note; empty if there are no more.

        ``None`` when the log does not reach back so far. Raises :class:`BusUnavailable`.
        """
        key = since, last
        while (others := self._under_way.get(key)) is not None:
            try:
                return await asyncio.shield(others)
            except _Abandoned:
                continue
        mine = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            events = await self._read(since, last)
        except BaseException as error:
            mine.set_exception(error if isinstance(error, Exception) else _Abandoned())
            mine.exception()  # it may be that nobody else asked
            raise
        finally:
            del self._under_way[key]
        mine.set_result(events)
        return events

    async def _read(self, since: Cursor, last: int) -> list[Event] | None:
        async with self._turn:
            entries = await self._bus.read(since, last, collapse=True, limit_bytes=BYTES)
        return None if entries is None else [decode_event(payload) for _, payload in entries]
