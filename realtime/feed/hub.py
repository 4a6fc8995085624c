"""The fan-out: clients, and who gets what. One hub in every worker; no IO, no encoding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from realtime.feed.flush_delay import AdaptiveFlushDelay
from realtime.feed.replay_buffer import ReplayBuffer
from realtime.feed.subscriber import BATCH, Subscriber, Subscription

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.core.close_codes import CloseCode
    from realtime.core.frames import Frame
    from realtime.eventlog.event import Event


MOST_TOLD = 100_000
TURNS = 6
"""Of the loop, before a fan-out: the answer to the write that it tells of goes out first, and the next can come."""


Wants = tuple[frozenset[int] | None, frozenset[str | None] | None, bool]
"""The notes that a client wants, the keys that it has, and whether it wants contents."""


@dataclass
class HubStats:
    """What the hub counted since it started."""

    deliveries: int = 0
    resets: int = 0
    too_slow: int = 0


@dataclass
class Hub:
    """All clients of this worker.

    What is due in a few turns of the loop goes out together; a loop that falls behind joins more into each write, and
    rests between fan-outs if that makes more of them (:class:`realtime.feed.flush_delay.AdaptiveFlushDelay`).
    """

    budget: int
    stall: float
    too_slow: CloseCode
    slots: int = 25
    stats: HubStats = field(default_factory=HubStats)
    replay_buffer: ReplayBuffer = field(default_factory=ReplayBuffer)
    _subscriptions: dict[Wants, Subscription] = field(default_factory=dict)
    _everything: dict[Subscription, None] = field(default_factory=dict)
    _by_note: dict[int, dict[Subscription, None]] = field(default_factory=dict)
    _due: list[tuple[Event, Collection[str | None]]] = field(default_factory=list)
    _due_bytes: int = 0
    _flushing: asyncio.Handle | None = None
    _pace: AdaptiveFlushDelay = field(default_factory=AdaptiveFlushDelay)
    _rested: float = 0.0
    _serial: Iterator[int] = field(default_factory=count)
    _beat: int = 0
    _told: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self._subscriptions.values()))

    def clients(self) -> Iterator[Subscriber]:
        """Every client, once."""
        for subscription in self._subscriptions.values():
            yield from subscription

    def join(self, notes: frozenset[int] | None, *, content: bool, principal: Principal) -> Subscriber:
        """Registers a client: from this moment on, everything that it wants waits for it."""
        self.flush()
        wants = (notes, principal.keys, content)
        subscription = self._subscriptions.get(wants)
        if subscription is None:
            subscription = self._subscriptions[wants] = Subscription(notes, principal.keys, content=content)
            for subscriptions in self._places(subscription):
                subscriptions[subscription] = None
        client = Subscriber(subscription, principal, budget=self.budget, too_slow=self.too_slow)
        # A slot that had its turn just now: the first heartbeat is nearly a whole interval away.
        client.slot = (self._beat - next(self._serial) % max(1, self.slots // 5)) % self.slots
        return client

    def leave(self, client: Subscriber) -> None:
        """Forgets a client."""
        subscription = client.subscription
        if client not in subscription.ready and client not in subscription.behind:
            return
        self.stats.too_slow += client.closing.done() and client.closing.result() is self.too_slow
        subscription.ready.pop(client, None)
        subscription.behind.pop(client, None)
        if not len(subscription):
            del self._subscriptions[subscription.notes, subscription.keys, subscription.content]
            for subscriptions in self._places(subscription):
                del subscriptions[subscription]
            for note in subscription.notes or ():
                if not self._by_note[note]:
                    del self._by_note[note]

    def _places(self, subscription: Subscription) -> list[dict[Subscription, None]]:
        if subscription.notes is None:
            return [self._everything]
        return [self._by_note.setdefault(note, {}) for note in subscription.notes]

    def publish(self, event: Event, *, logged: bool = True) -> None:
        """Hands an event to every client that wants it and may have it, with what else is due by then.

        One that is not ``logged`` came around the log.
        """
        if logged:
            self.replay_buffer.add(event)
        else:
            self.replay_buffer.add_unlogged(event)
        self._due.append((event, self._newly_lost(event) if event.audience.former else ()))
        self._due_bytes += event.full.size
        if self._due_bytes > BATCH:
            self.flush()
        elif self._flushing is None:
            loop = asyncio.get_running_loop()
            wait = self._rested - time.perf_counter()  # the loop's own clock stands while it fans out
            if wait > 0:
                self._flushing = loop.call_later(wait, self.flush)
            else:
                self._flushing = loop.call_soon(self._flush_after, TURNS)

    def _flush_after(self, turns: int) -> None:
        if turns:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush_after, turns - 1)
        else:
            self.flush()

    def flush(self) -> None:
        """Hands out what is due."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if not self._due:
            return
        started = time.perf_counter()
        due, self._due, self._due_bytes = self._due, [], 0
        frames: dict[Subscription, list[Frame]] = {}
        for event, lost in due:
            for subscriptions in (self._everything, self._by_note.get(event.id, ())):
                for subscription in subscriptions:
                    frame = subscription.frame_of(event, lost)
                    if frame is not None:
                        frames.setdefault(subscription, []).append(frame)
                    if frame is None or frame is event.gone:
                        for client in subscription:
                            client.admitted.pop(event.id, None)
                    if frame is not None and frame is event.gone:
                        for client in subscription.behind:
                            client.drop(event.id)
        for subscription, some in frames.items():
            self.stats.deliveries += len(some) * len(subscription)
            subscription.deliver(some)
        ended = time.perf_counter()
        self._rested = ended + self._pace.rest(started, ended, len(due))

    def _newly_lost(self, event: Event) -> Collection[str | None]:
        """The keys that lost the note of an event since the one before it, or ever, when that is not known."""
        former = event.audience.former
        told = self._told.get(event.id, 0)
        if len(self._told) >= MOST_TOLD:
            self._told.clear()  # who lost a note may hear so again
        self._told[event.id] = max(former.values())
        return {key for key, version in former.items() if version > told}

    def publish_presence(self, note: int, frames: Collection[Frame], also: Collection[Subscriber]) -> None:
        """Send frames about a note to the clients that asked for this note by its id, and to those in ``also``.

        Clients that may not see the note are left out.
        """
        self.flush()
        asked = {client for subscription in self._by_note.get(note, ()) for client in subscription}
        for client in asked.union(also):
            if client.sees(note):
                for frame in frames:
                    client.offer(frame)

    def forget(self, note: int) -> list[Subscriber]:
        """Forgets which clients may see a note, and tells which did."""
        return [client for client in self.clients() if client.admitted.pop(note, None) is not None]

    def reset(self, frame: Frame) -> None:
        """History has a hole: what waits is pointless, every client is to start over."""
        self.flush()
        self.replay_buffer.clear_unlogged()
        for client in list(self.clients()):
            client.clear()
            client.offer(frame)
            self.stats.resets += 1

    def heartbeat(self, frame: Frame) -> None:
        """Shows the next slot of the idle clients how far they are. Slots spread the work over the interval."""
        self.flush()
        self._beat = (self._beat + 1) % self.slots
        for client in [client for client in self.clients() if client.slot == self._beat and client.idle]:
            client.offer(frame)

    def sessions(self) -> set[str]:
        """The sessions that clients come from."""
        return {client.principal.session for client in self.clients() if client.principal.session is not None}

    def end(self, sessions: Collection[str], code: CloseCode, last: Frame | None = None) -> None:
        """Close the clients that come from these sessions, after a last frame if there is one."""
        for client in list(self.clients()):
            if client.principal.session in sessions:
                client.close(code, last)

    def close_stalled(self, now: float) -> None:
        """Closes the clients whose transport has taken nothing for too long. ``now`` is the loop's time."""
        for subscription in self._subscriptions.values():
            for client in list(subscription.behind):
                client.check(now, self.stall)

    async def drain(self, code: CloseCode, over: float) -> None:
        """Closes every client, spread over so many seconds, so that they do not all come back at once."""
        self.flush()
        clients = list(self.clients())
        steps = max(1, min(len(clients), int(over * 20)))
        for step in range(steps):
            for client in clients[step::steps]:
                client.close(code)
            await asyncio.sleep(over / steps)
