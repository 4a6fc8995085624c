"""The rules for subscribing and resuming, shared by WebSockets, event streams and long polling.

A client is registered first, and the current position is read after that. New events are queued for the client while
the events that it missed up to this position are read from the log, so no event is lost in between. An event that was
published between the two steps can arrive twice, with the same version both times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from realtime.auth.permissions import sees
from realtime.core.close_codes import CloseCode
from realtime.errors import Unavailable
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.reader import LogReader
from realtime.feed.codec import RESET, heartbeat, ready, reset
from realtime.feed.subscriber import SubscriberClosed

if TYPE_CHECKING:
    from realtime.auth.permissions import NoteAccess, Principal
    from realtime.core.frames import Frame
    from realtime.eventlog.bus import Bus
    from realtime.eventlog.consumer import LogConsumer
    from realtime.eventlog.event import Event
    from realtime.feed.hub import Hub
    from realtime.feed.presence import Presence
    from realtime.feed.query import FeedQuery
    from realtime.feed.replay_buffer import ReplayBuffer
    from realtime.feed.subscriber import Subscriber
    from realtime.metrics import Metrics


TICK_SECONDS = 1.0
MAX_POLL_BYTES = 8 * 1024 * 1024
MAX_CLOSES_PER_SECOND = 2000
UNLOGGED_POLL_SECONDS = 1.0
"""Delay before a long poll returns events that are not in the log: the client may have missed them between polls."""


class CursorExpired(Exception):
    """Raised when the log no longer contains the events after the cursor, or belongs to another epoch."""


class AccessReader(Protocol):
    """Reads the access rights of notes."""

    async def note_access(self, id: int) -> NoteAccess | None:
        """Return the access rights of a note; ``None`` if there is no such note."""


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """The options of the feed.

    Attributes:
        heartbeat_seconds: Interval between two heartbeats to a client.
        is_outdated: Returns whether a principal's session has ended or its administrator role has changed.
    """

    heartbeat_seconds: float
    is_outdated: Callable[[Principal], bool] = lambda _: False


class Feed:
    """Subscribes clients of one worker to events and presence.

    Args:
        hub: The hub of this worker.
        consumer: The consumer of the log.
        bus: The event log.
        presence: Presence on all workers.
        notes: Reads the access rights of notes.
        options: The options.
    """

    def __init__(
        self,
        hub: Hub,
        consumer: LogConsumer,
        bus: Bus,
        presence: Presence,
        notes: AccessReader,
        options: FeedOptions,
    ) -> None:
        self._notes = notes
        self._hub = hub
        self._consumer = consumer
        self._bus = bus
        self._options = options
        self._reader = LogReader(bus)
        self.presence = presence
        self.draining = False

    @property
    def position(self) -> Cursor:
        """The current position. A client that reads it before it reads the notes can resume from it."""
        return self._consumer.position

    @property
    def replay_buffer(self) -> ReplayBuffer:
        """The latest events of this worker, for clients that resume."""
        return self._hub.replay_buffer

    @property
    def subscriber_count(self) -> int:
        """The number of subscribers of this worker."""
        return len(self._hub)

    def join(self, query: FeedQuery, principal: Principal) -> Subscriber:
        """Register a subscriber. Close it at once if the server is stopping or its session has ended."""
        client = self._hub.join(query.ids, content=query.content, principal=principal)
        if self.draining:
            client.close(CloseCode.DRAIN)
        elif self._options.is_outdated(principal):
            client.close(CloseCode.NOT_SIGNED_IN)
        return client

    def leave(self, client: Subscriber) -> None:
        """Unregister a subscriber."""
        self._hub.leave(client)
        self.presence.leave(client)

    async def admit_to_presence(self, client: Subscriber, note: int) -> bool:
        """Return whether a client can see a note. If it can, it receives the note's presence from now on.

        Raises:
            Unavailable: MongoDB cannot be reached.
        """
        if not client.sees(note):
            await self._read_access([client], note)
        return client.sees(note)

    async def _read_access(self, clients: Collection[Subscriber], note: int) -> None:
        for client in clients:
            self._hub.set_admitted(client, note, False)
        access = await self._notes.note_access(note)
        for client in clients:
            if access is None or not access.live or not sees(client.principal, access):
                self._hub.remove_admitted(client, note)
            elif note in client.admitted:
                self._hub.set_admitted(client, note, True)

    async def recheck_access(self, note: int) -> None:
        """Read the access rights of a note again, and end the presence of clients that can no longer see it."""
        try:
            await self._read_access(self._hub.clear_admitted(note), note)
        finally:
            self.presence.remove_unauthorized(note)

    async def set_presence(self, client: Subscriber, note: int, state: dict[str, JsonValue] | None) -> None:
        """Set a client's state on a note; ``None`` removes it. Do nothing if the client cannot see the note.

        Raises:
            ValueError: The state is too large, or the client has states on too many notes.
            TooManyRequests: The client changes its state too often.
            Unavailable: MongoDB cannot be reached.
        """
        if await self.admit_to_presence(client, note):
            self.presence.set_state(client, note, state)

    async def catch_up(self, client: Subscriber, since: Cursor | None) -> AsyncGenerator[Iterable[Frame]]:
        """Yield the first frames for a subscriber: missed events, ``ready``, and the presence of its notes.

        Raises:
            BusUnavailable: The log cannot be read.
            Unavailable: MongoDB cannot be reached.
        """
        await self._consumer.ready()
        position = self.position
        if since is not None:
            try:
                async for frames in self._missed(client, since, position):
                    yield frames
            except CursorExpired:
                position = self.position
                client.clear()
                yield (reset(position),)
        if self.replay_buffer.unlogged:
            yield _frames(client, self.replay_buffer.unlogged.values())
        yield (ready(position),)
        for note in client.notes or ():
            if await self.admit_to_presence(client, note) and self.presence.people(note):
                yield (self.presence.frame(note),)

    async def stream(self, client: Subscriber, since: Cursor | None) -> AsyncGenerator[Frame]:
        """Yield all frames for a subscriber without a direct transport.

        Raises:
            SubscriberClosed: The client must be closed.
            BusUnavailable: The log cannot be read.
            Unavailable: MongoDB cannot be reached.
        """
        async for frames in self.catch_up(client, since):
            for frame in frames:
                client.start_write(frame)
                yield frame
        while True:
            for frame in await client.next_batch():
                client.start_write(frame)
                yield frame

    async def start_direct_delivery(self, client: Subscriber, since: Cursor | None) -> None:
        """Send the first frames to a subscriber with a direct transport, and start the delivery of later ones.

        Raises:
            SubscriberClosed: The client must be closed.
            BusUnavailable: The log cannot be read.
            Unavailable: MongoDB cannot be reached.
        """
        async for frames in self.catch_up(client, since):
            await client.send(frames)
        client.start()

    async def _missed(self, client: Subscriber, since: Cursor, position: Cursor) -> AsyncIterator[list[Frame]]:
        """Yield the latest event of each note after ``since`` and up to a position, in order and in chunks.

        If the client has lost access to a note at any time, this yields ``note.deleted`` for it, possibly again. Notes
        that the client could never see are skipped.

        Raises:
            CursorExpired: The log does not reach back to ``since``.
        """
        if since.epoch != position.epoch:
            raise CursorExpired
        buffered = self.replay_buffer.between(since, position)
        if buffered is not None:
            yield _frames(client, buffered)
            return
        while True:
            events = await self._reader.missed(since, position.offset)
            if events is None:
                raise CursorExpired
            if not events:
                return
            yield _frames(client, events)
            since = events[-1].cursor

    async def poll(self, query: FeedQuery, principal: Principal, limit: int, timeout: float) -> str:
        """Return the response to a long poll as JSON: the changes since the cursor. Wait for a change if there is none.

        Args:
            query: The subscription, and the cursor to resume from.
            principal: The authenticated caller.
            limit: Maximum number of changes.
            timeout: Seconds to wait for a change.

        Raises:
            Unavailable: Redis has not been reached since the start.
            BusUnavailable: The log cannot be read.
        """
        since = query.cursor
        client = self.join(query, principal)
        try:
            async with asyncio.timeout(max(timeout, 1.0)):
                await self._consumer.ready()
            position = self.position
            if since is None:
                return _poll_response(position, [])
            frames: list[Frame] = []
            try:
                size = 0
                async for chunk in self._missed(client, since, position):
                    for frame in chunk:
                        frames.append(frame)
                        size += frame.size
                        if len(frames) == limit or size > MAX_POLL_BYTES:
                            return _poll_response(Cursor.parse(frame.cursor or ""), frames)
            except CursorExpired:
                return _poll_response(self.position, [], reset=True)
            position = max(position, since)
            if frames:
                return _poll_response(position, frames)
            return await self._await_change(client, position, limit, timeout)
        except TimeoutError:
            raise Unavailable("The feed is not available. Try again") from None
        finally:
            self.leave(client)

    async def _await_change(self, client: Subscriber, position: Cursor, limit: int, timeout: float) -> str:
        unlogged = self.replay_buffer.unlogged if self._bus.silent else {}
        deadline = asyncio.get_running_loop().time() + (min(timeout, UNLOGGED_POLL_SECONDS) if unlogged else timeout)
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    frames = await client.next_batch()
                if any(frame.key == RESET for frame in frames):
                    return _poll_response(self.position, [], reset=True)
                changes = [frame for frame in frames if _is_change(frame)][:limit]
                if changes:
                    return _poll_response(Cursor.parse(changes[-1].cursor or ""), changes)
        except TimeoutError:
            if frames := _frames(client, [*unlogged.values()][-limit:]):
                return _poll_response(position, frames)
            # The client has missed nothing up to the current position, unless an event was queued just now.
            self._hub.flush()
            has_all_events = client.idle and self.position.epoch == position.epoch
            return _poll_response(max(position, self.position) if has_all_events else position, [])
        except SubscriberClosed:
            return _poll_response(position, [])

    async def run(self) -> None:
        """Send heartbeats and close stalled clients until cancelled."""
        loop = asyncio.get_running_loop()
        groups = self._hub.heartbeat_groups
        pause = min(TICK_SECONDS, self._options.heartbeat_seconds / groups)
        next_heartbeat = loop.time() + pause
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            self._hub.close_stalled(now)
            while next_heartbeat <= now:
                self._hub.heartbeat(heartbeat(self.position))
                next_heartbeat += self._options.heartbeat_seconds / groups

    async def run_sampling(self, metrics: Metrics) -> None:
        """Update the metrics of the feed once a second, until cancelled."""
        while True:
            metrics.sample(self._hub.stats, lag=self._consumer.lag, connected=self._consumer.connected)
            await asyncio.sleep(TICK_SECONDS)

    async def drain(self, duration: float) -> None:
        """Close all subscribers, spread over up to ``duration`` seconds, and reject clients that connect later."""
        self.draining = True
        await self._hub.drain(CloseCode.DRAIN, min(duration, len(self._hub) / MAX_CLOSES_PER_SECOND))


def _frames(client: Subscriber, events: Iterable[Event]) -> list[Frame]:
    """Return the frames of missed events that match a client's subscription and permissions."""
    subscription = client.subscription
    matching = (event for event in events if subscription.notes is None or event.id in subscription.notes)
    return [frame for event in matching if (frame := subscription.frame_of(event, event.audience.former)) is not None]


def _is_change(frame: Frame) -> bool:
    return isinstance(frame.key, tuple) and frame.key[0] == "note"


def _poll_response(cursor: Cursor, frames: list[Frame], *, reset: bool = False) -> str:
    changes = ",".join(frame.text for frame in frames)
    return f'{{"cursor":"{cursor}","reset":{"true" if reset else "false"},"changes":[{changes}]}}'
