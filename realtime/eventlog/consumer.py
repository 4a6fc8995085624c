"""Keeps a worker at the head of the log: every event once and in order, or a reset. Never a silent hole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from realtime.errors import BusUnavailable
from realtime.eventlog.cursor import UNKNOWN, Cursor

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus
    from realtime.eventlog.event import Event

log = logging.getLogger(__name__)

CHECK_INTERVAL = 1.0
CONTACT_INTERVAL = 0.1
"""Seconds between checks for Redis, until it answers for the first time."""
READ_AHEAD = 2**32
READ_BYTES = 512 * 1024  # handed out at once: less than a client's budget, so that catching up closes nobody


@dataclass(frozen=True, slots=True)
class ConsumerHandlers:
    """Where the follower hands things: events, resets, and messages of the presence channel."""

    decode: Callable[[bytes], Event]
    deliver: Callable[[Event], None]
    reset: Callable[[Cursor], None]
    presence: Callable[[bytes], None]


class LogConsumer:
    """Follows the feed's channel, and the log wherever the channel leaves a hole."""

    def __init__(self, bus: Bus, handlers: ConsumerHandlers) -> None:
        self._bus = bus
        self._handlers = handlers
        self._position: Cursor | None = None
        self._known = asyncio.Event()
        self._top = UNKNOWN
        self._heard = 0
        self._catching_up = asyncio.Lock()
        self.connected = False

    @property
    def position(self) -> Cursor:
        """The last event handed out. Before the first contact with Redis, a cursor that always leads to a reset."""
        return self._position or UNKNOWN

    @property
    def lag(self) -> int:
        """Events in the log that were not handed out yet, as of the last check."""
        if self._position is None or self._top.epoch != self._position.epoch:
            return 0
        return max(0, self._top.offset - self._position.offset)

    async def ready(self) -> None:
        """Wait until Redis answers, or is known to be unavailable: events then come from MongoDB."""
        while not (self._known.is_set() or self._bus.silent):
            with suppress(TimeoutError):
                async with asyncio.timeout(CONTACT_INTERVAL):
                    await self._known.wait()

    async def run(self) -> None:
        """Follows until the connection is lost; raises :class:`BusUnavailable` then. To be run again."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._check())
        except ExceptionGroup as group:
            lost, others = group.split(BusUnavailable)
            if lost is None or others is not None:
                raise
            raise BusUnavailable(str(lost.exceptions[0])) from None
        finally:
            self.connected = False

    async def _listen(self) -> None:
        async with self._bus.subscribe(self._bus.feed, self._bus.presence) as messages:
            async for message in messages:
                if message.channel == self._bus.presence:
                    if message.data is not None:
                        self._handlers.presence(message.data)
                    continue
                self._heard += 1
                if message.data is None:
                    # The client library subscribes again by itself after a drop: what was published meanwhile is only
                    # in the log.
                    await self._catch_up()
                    self.connected = True
                elif not self._accept(message.data):
                    await self._catch_up()
        raise BusUnavailable("the subscription ended")

    async def _check(self) -> None:
        """A connection can be healthy and deliver nothing, so the position is asked for, too."""
        while True:
            seen, heard = self._top, self._heard
            await asyncio.sleep(CHECK_INTERVAL)
            self._top = await self._bus.position()
            position = self._position
            if position is None or self._top.epoch != position.epoch:
                await self._catch_up()
            elif seen.epoch == position.epoch and seen.offset > position.offset and heard == self._heard:
                await self._catch_up()
                raise BusUnavailable("the subscription delivers nothing")

    def _accept(self, payload: bytes) -> bool:
        """Hands an event out if it is the next one. False if there is a hole before it, or if it is none of ours."""
        try:
            event = self._handlers.decode(payload)
        except ValueError:
            log.warning("unreadable event", exc_info=True)
            return False
        position = self._position
        if position is None or event.cursor.epoch != position.epoch or event.cursor.offset > position.offset + 1:
            return False
        if event.cursor.offset == position.offset + 1:
            self._position = event.cursor
            self._handlers.deliver(event)
        return True

    async def _catch_up(self) -> None:
        """Reads the log from the last event handed out; where it does not reach back, everyone starts over."""
        async with self._catching_up:
            if self._position is None:
                # Clients that connected before may have missed events that came from MongoDB: they are reset.
                self._position = await self._bus.position()
                self._known.set()
                self._handlers.reset(self._position)
            while entries := await self._bus.read(
                self._position, self._position.offset + READ_AHEAD, limit_bytes=READ_BYTES
            ):
                if not all(self._accept(payload) for _, payload in entries):
                    entries = None
                    break
            if entries is None:
                position = await self._bus.position()
                log.warning("history has a hole", extra={"last": str(self._position), "position": str(position)})
                self._position = position
                self._handlers.reset(position)
