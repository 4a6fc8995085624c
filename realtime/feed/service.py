"""The feed: subscribe, resume and snapshot rules, the same for every way in.

A client is registered and the position taken in one step, so what comes after it waits in the client's queue while
what it missed up to there is read from the log. Nothing falls in between, and what comes twice carries its version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING

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
    from realtime.feed.subscriber import Subscriber
    from realtime.metrics import Metrics


TICK = 1.0
ANSWER_BYTES = 8 * 1024 * 1024
CLOSES_PER_SECOND = 2000
AGAIN = 1.0
"""Seconds after which who polls is told what came around the log: between two polls it was told to nobody."""


class HistoryLost(Exception):
    """The log does not reach back to the cursor."""


class Feed:
    """The feed of one worker."""

    def __init__(
        self,
        hub: Hub,
        follower: LogConsumer,
        bus: Bus,
        presence: Presence,
        metrics: Metrics,
        *,
        standing: Callable[[int], Awaitable[NoteAccess | None]],
        interval: float,
        ended: Callable[[Principal], bool] = lambda _: False,
    ) -> None:
        self._standing = standing
        self._hub = hub
        self._follower = follower
        self._bus = bus
        self.metrics = metrics
        self._interval = interval
        self._ended = ended
        self._reads = LogReader(bus)
        self.presence = presence
        self.draining = False

    @property
    def position(self) -> Cursor:
        """The position to resume from for whoever reads the notes after asking for it."""
        return self._follower.position

    def join(self, wanted: FeedQuery, principal: Principal) -> Subscriber:
        """Registers a subscriber; closed at once when the server is about to stop, or its rights ended meanwhile."""
        client = self._hub.join(wanted.ids, content=wanted.content, principal=principal)
        if self.draining:
            client.close(CloseCode.DRAIN)
        elif self._ended(principal):
            client.close(CloseCode.NOT_SIGNED_IN)
        return client

    def leave(self, client: Subscriber) -> None:
        """Forgets a subscriber."""
        self._hub.leave(client)
        self.presence.leave(client)

    async def admit(self, client: Subscriber, note: int) -> bool:
        """Whether a client may see a note; it hears of who looks at it, then. Raises :class:`Unavailable`."""
        if not client.sees(note):
            await self._admit([client], note)
        return client.sees(note)

    async def _admit(self, clients: Collection[Subscriber], note: int) -> None:
        for client in clients:
            client.admitted[note] = False
        standing = await self._standing(note)
        for client in clients:
            if standing is None or not standing.live or not sees(client.principal, standing):
                client.admitted.pop(note, None)
            elif note in client.admitted:
                client.admitted[note] = True

    async def check(self, note: int) -> None:
        """Looks up again who may see a note; who may not hears no more of who looks at it, and is not shown."""
        try:
            await self._admit(self._hub.forget(note), note)
        finally:
            self.presence.check(note)

    async def set_presence(self, client: Subscriber, note: int, state: dict[str, JsonValue] | None) -> None:
        """Shows that a client looks at a note, or no longer; of one that it may not see, nothing happens.

        Raises ``ValueError`` if it is too much, :class:`Unavailable`.
        """
        if await self.admit(client, note):
            self.presence.set_state(client, note, state)

    async def catch_up(self, client: Subscriber, since: Cursor | None) -> AsyncGenerator[Iterable[Frame]]:
        """What a subscriber is told before what happens: what it missed, ``ready``, and who is there already.

        Raises :class:`BusUnavailable` when the log cannot be read, :class:`Unavailable`.
        """
        await self._follower.ready()
        position = self.position
        if since is not None:
            try:
                async for frames in self._missed(client, since, position):
                    yield frames
            except HistoryLost:
                position = self.position
                client.clear()
                yield (reset(position),)
        if self._hub.replay_buffer.aside:
            yield _frames(client, self._hub.replay_buffer.aside.values())
        yield (ready(position),)
        for note in client.notes or ():
            if await self.admit(client, note) and self.presence.people(note):
                yield (self.presence.frame(note),)

    async def stream(self, client: Subscriber, since: Cursor | None) -> AsyncGenerator[Frame]:
        """All frames for a subscriber that takes them one at a time, until it is to be closed.

        Raises :class:`SubscriberClosed` then, and as :meth:`catch_up`.
        """
        async for frames in self.catch_up(client, since):
            for frame in frames:
                client.writing(frame)
                yield frame
        while True:
            for frame in await client.take():
                client.writing(frame)
                yield frame

    async def follow(self, client: Subscriber, since: Cursor | None) -> None:
        """Sends a subscriber with a wire of its own what it missed; what happens then comes to it by itself.

        Raises :class:`SubscriberClosed`, and as :meth:`catch_up`.
        """
        async for frames in self.catch_up(client, since):
            await client.send(frames)
        client.live()

    async def _missed(self, client: Subscriber, since: Cursor, position: Cursor) -> AsyncIterator[list[Frame]]:
        """What a subscriber missed up to a position, the latest event of each note, in order, some at a time.

        Of a note that it lost at any time it hears that, perhaps again; of one that it never had, nothing.
        """
        if since.epoch != position.epoch:
            raise HistoryLost
        recent = self._hub.replay_buffer.between(since, position)
        if recent is not None:
            yield _frames(client, recent)
            return
        while True:
            events = await self._reads.missed(since, position.offset)
            if events is None:
                raise HistoryLost
            if not events:
                return
            yield _frames(client, events)
            since = events[-1].cursor

    async def poll(self, wanted: FeedQuery, principal: Principal, limit: int, timeout: float) -> str:
        """The answer to a long poll: what happened since the cursor, at once or as soon as something does.

        Raises :class:`Unavailable` while Redis has never been reached, :class:`BusUnavailable` when it is away.
        """
        since = wanted.cursor
        client = self.join(wanted, principal)
        try:
            async with asyncio.timeout(max(timeout, 1.0)):
                await self._follower.ready()
            position = self.position
            if since is None:
                return _answer(position, [])
            frames: list[Frame] = []
            try:
                size = 0
                async for some in self._missed(client, since, position):
                    for frame in some:
                        frames.append(frame)
                        size += frame.size
                        if len(frames) == limit or size > ANSWER_BYTES:
                            return _answer(Cursor.parse(frame.cursor or ""), frames)
            except HistoryLost:
                return _answer(self.position, [], reset=True)
            position = max(position, since)
            if frames:
                return _answer(position, frames)
            return await self._await_change(client, position, limit, timeout)
        except TimeoutError:
            raise Unavailable("The feed is not available, try again") from None
        finally:
            self.leave(client)

    async def _await_change(self, client: Subscriber, position: Cursor, limit: int, timeout: float) -> str:
        aside = self._hub.replay_buffer.aside if self._bus.silent else {}
        deadline = asyncio.get_running_loop().time() + (min(timeout, AGAIN) if aside else timeout)
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    frames = await client.take()
                if any(frame.key == RESET for frame in frames):
                    return _answer(self.position, [], reset=True)
                changes = [frame for frame in frames if _is_change(frame)][:limit]
                if changes:
                    return _answer(Cursor.parse(changes[-1].cursor or ""), changes)
        except TimeoutError:
            if around := _frames(client, [*aside.values()][-limit:]):
                return _answer(position, around)
            # Nothing that this client wants happened up to where the worker is now, unless something waits this moment.
            self._hub.flush()
            moved_on = client.idle and self.position.epoch == position.epoch
            return _answer(max(position, self.position) if moved_on else position, [])
        except SubscriberClosed:
            return _answer(position, [])

    async def tick(self) -> None:
        """Heartbeats, stalled clients and counters, for ever."""
        loop = asyncio.get_running_loop()
        slots = self._hub.slots
        pause = min(TICK, self._interval / slots)
        due = loop.time() + pause
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            self._hub.close_stalled(now)
            self.metrics.sample(self._hub.stats, lag=self._follower.lag, connected=self._follower.connected)
            while due <= now:
                self._hub.heartbeat(heartbeat(self.position))
                due += self._interval / slots

    async def drain(self, over: float) -> None:
        """Closes all subscribers, and whoever still comes; spread over so many seconds where they are many."""
        self.draining = True
        await self._hub.drain(CloseCode.DRAIN, min(over, len(self._hub) / CLOSES_PER_SECOND))


def _frames(client: Subscriber, events: Iterable[Event]) -> list[Frame]:
    """What a subscriber is to be told of events that it missed."""
    told = client.subscription
    mine = (event for event in events if told.notes is None or event.id in told.notes)
    return [frame for event in mine if (frame := told.frame_of(event, event.audience.former)) is not None]


def _is_change(frame: Frame) -> bool:
    return isinstance(frame.key, tuple) and frame.key[0] == "note"


def _answer(cursor: Cursor, frames: list[Frame], *, reset: bool = False) -> str:
    changes = ",".join(frame.text for frame in frames)
    return f'{{"cursor":"{cursor}","reset":{"true" if reset else "false"},"changes":[{changes}]}}'
