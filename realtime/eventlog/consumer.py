"""Delivers every event of the log to a worker, once and in order. If events are missing, it resets the clients."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from realtime.errors import BusUnavailable
from realtime.eventlog.codec import decode_event, event_at
from realtime.eventlog.cursor import UNKNOWN, Cursor

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus
    from realtime.eventlog.event import Event
    from realtime.notes.models import NoteChange

log = logging.getLogger(__name__)

CHECK_INTERVAL_SECONDS = 1.0
CONTACT_INTERVAL_SECONDS = 0.1
"""Interval at which the consumer checks whether Redis is available, until its first reply."""
READ_AHEAD = 2**32
MAX_READ_BYTES = 512 * 1024
"""Smaller than the queue of one client, so that one read does not fill the queue and close the client as too slow."""


class LogListener(Protocol):
    """Receives what a consumer reads, in order."""

    def deliver(self, event: Event, *, logged: bool = True) -> None:
        """Process an event, which is in the log or (if not ``logged``) was read from MongoDB."""

    def reset(self, position: Cursor) -> None:
        """Process that events are missing. Clients continue from this position of the log."""

    def receive_presence(self, message: bytes) -> None:
        """Process a message of the presence channel."""


class LogConsumer:
    """Follows the channel of the feed, and reads missed events from the log."""

    def __init__(self, bus: Bus, listener: LogListener) -> None:
        self._bus = bus
        self._listener = listener
        self._position: Cursor | None = None
        self._contacted = asyncio.Event()
        self._log_position = UNKNOWN
        self._received_count = 0
        self._catch_up_lock = asyncio.Lock()
        self.connected = False

    @property
    def position(self) -> Cursor:
        """The position of the last delivered event; before the first contact with Redis, :data:`UNKNOWN`."""
        return self._position or UNKNOWN

    def deliver_unlogged(self, change: NoteChange) -> None:
        """Deliver a change that was read from MongoDB, as an event at the current position of the log."""
        self._listener.deliver(event_at(change, self.position), logged=False)

    @property
    def lag(self) -> int:
        """Number of undelivered events in the log at the time of the last check."""
        if self._position is None or self._log_position.epoch != self._position.epoch:
            return 0
        return max(0, self._log_position.offset - self._position.offset)

    async def ready(self) -> None:
        """Wait until Redis has replied, or is known to be unavailable. In that case, events come from MongoDB."""
        while not (self._contacted.is_set() or self._bus.silent):
            with suppress(TimeoutError):
                async with asyncio.timeout(CONTACT_INTERVAL_SECONDS):
                    await self._contacted.wait()

    async def run(self) -> None:
        """Follow the log until the connection is lost. Call this again to reconnect.

        Raises:
            BusUnavailable: The connection was lost.
        """
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
                        self._listener.receive_presence(message.data)
                    continue
                self._received_count += 1
                if message.data is None:
                    # redis-py resubscribes automatically after a disconnect. Events from that time are only in the log.
                    await self._catch_up()
                    self.connected = True
                elif not self._accept(message.data):
                    await self._catch_up()
        raise BusUnavailable("the subscription ended")

    async def _check(self) -> None:
        """Compare the position with the log periodically, because a connection can stay open and deliver nothing."""
        while True:
            previous, received_count = self._log_position, self._received_count
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            self._log_position = await self._bus.position()
            position = self._position
            if position is None or self._log_position.epoch != position.epoch:
                await self._catch_up()
            elif (
                previous.epoch == position.epoch
                and previous.offset > position.offset
                and received_count == self._received_count
            ):
                await self._catch_up()
                raise BusUnavailable("the subscription delivers nothing")

    def _accept(self, payload: bytes) -> bool:
        """Deliver an event if it is the next one. Return ``False`` if earlier events are missing, or it is invalid."""
        try:
            event = decode_event(payload)
        except ValueError:
            log.warning("invalid event", exc_info=True)
            return False
        position = self._position
        if position is None or event.cursor.epoch != position.epoch or event.cursor.offset > position.offset + 1:
            return False
        if event.cursor.offset == position.offset + 1:
            self._position = event.cursor
            self._listener.deliver(event)
        return True

    async def _catch_up(self) -> None:
        """Deliver the events after the last delivered one from the log. If it lacks some of them, reset all clients."""
        async with self._catch_up_lock:
            if self._position is None:
                # Clients that connected before this point may have missed events that came from MongoDB.
                self._position = await self._bus.position()
                self._contacted.set()
                self._listener.reset(self._position)
            while entries := await self._bus.read(
                self._position, self._position.offset + READ_AHEAD, limit_bytes=MAX_READ_BYTES
            ):
                if not all(self._accept(payload) for _, payload in entries):
                    entries = None
                    break
            if entries is None:
                position = await self._bus.position()
                log.warning(
                    "events are missing from the log: clients are reset",
                    extra={"last": str(self._position), "position": str(position)},
                )
                self._position = position
                self._listener.reset(position)
