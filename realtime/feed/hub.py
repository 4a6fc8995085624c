"""The hub, which delivers events to the subscribers of a worker. Each worker has one hub.

Events arrive as JSON that :mod:`realtime.eventlog.codec` has already encoded. A message gets its WebSocket frame header
once, at its first delivery (:class:`realtime.core.frames.Frame`), and all subscribers share the result. The fan-out
awaits nothing: it queues frames, or writes them to transports that accept data.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from typing import TYPE_CHECKING

from realtime.core.close_codes import CloseCode
from realtime.core.index import Index
from realtime.feed.flush_delay import AdaptiveFlushDelay
from realtime.feed.replay_buffer import ReplayBuffer
from realtime.feed.subscriber import MAX_BATCH_BYTES, Subscriber, Subscription

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.core.frames import Frame
    from realtime.eventlog.event import Event


MAX_ANNOUNCED_LOSSES = 100_000
"""Maximum number of notes for which the hub remembers the last loss of access that it announced."""
FLUSH_DELAY_ITERATIONS = 6
"""Event loop iterations before a fan-out, so that the response to the write is sent first, and writes that follow share
the fan-out. Without this delay, 32 writers make about 6% fewer writes while 1,000 clients are connected."""
ALL_NOTES = ""
"""The index key of subscriptions to all notes by clients with access to all notes. It is not a principal key."""
SubscriptionKey = tuple[frozenset[int] | None, frozenset[str | None] | None, bool]
"""The note ids (``None``: all notes), the principal keys (``None``: access to all), and whether ``content`` is sent."""


@dataclass
class HubStats:
    """Counters of a hub since its start.

    Attributes:
        deliveries: Events delivered to clients.
        resets: Resets sent to clients.
        too_slow_count: Clients that were disconnected because they read too slowly.
    """

    deliveries: int = 0
    resets: int = 0
    too_slow_count: int = 0


@dataclass
class Hub:
    """Tracks the subscribers of one worker and delivers events to them.

    Events published within a few iterations of the event loop are delivered together. When the loop is saturated, the
    hub combines more events in each write, and delays fan-outs if this raises the throughput
    (:class:`realtime.feed.flush_delay.AdaptiveFlushDelay`).

    Attributes:
        budget: Maximum bytes queued for one client before frames are conflated.
        stall_seconds: Time after which a client that reads nothing is disconnected.
        heartbeat_groups: Number of groups of clients. One group receives a heartbeat at a time.
        stats: Counters.
        replay_buffer: The latest events, for clients that resume.
        flush_delay: Chooses the delay before the next fan-out.
    """

    budget: int
    stall_seconds: float
    heartbeat_groups: int = 25
    stats: HubStats = field(default_factory=HubStats)
    replay_buffer: ReplayBuffer = field(default_factory=ReplayBuffer)
    flush_delay: AdaptiveFlushDelay = field(default_factory=AdaptiveFlushDelay)
    _subscriptions: dict[SubscriptionKey, Subscription] = field(default_factory=dict)
    _index: Index[int | str | None, Subscription] = field(default_factory=Index)
    _admitted: Index[int, Subscriber] = field(default_factory=Index)
    _by_group: Index[int, Subscriber] = field(default_factory=Index)
    _pending: list[tuple[Event, Collection[str | None]]] = field(default_factory=list)
    _pending_bytes: int = 0
    _flushing: asyncio.Handle | None = None
    _next_flush_at: float = 0.0
    _serial: Iterator[int] = field(default_factory=count)
    _next_group: int = 0
    _announced_losses: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self._subscriptions.values()))

    def clients(self) -> Iterator[Subscriber]:
        """Yield every client once."""
        for subscription in self._subscriptions.values():
            yield from subscription

    def subscriptions_of(self, index_key: int | str | None) -> Collection[Subscription]:
        """Return the subscriptions with an index key.

        Subscriptions to a note have its id as the key, and subscriptions to all notes have principal keys or, for
        clients with access to all notes, :data:`ALL_NOTES`.
        """
        return self._index[index_key]

    def join(self, notes: frozenset[int] | None, *, content: bool, principal: Principal) -> Subscriber:
        """Register a client and return it. Events are queued for it until :meth:`Subscriber.start` writes them.

        Args:
            notes: Ids of the notes to subscribe to; ``None`` for all.
            content: Whether events include the notes' ``content``.
            principal: The authenticated caller.
        """
        self.flush()
        key = (notes, principal.keys, content)
        subscription = self._subscriptions.get(key)
        if subscription is None:
            subscription = self._subscriptions[key] = Subscription(notes, principal.keys, content=content)
            for index_key in _index_keys(subscription):
                self._index.add(index_key, subscription)
        client = Subscriber(subscription, principal, budget=self.budget)
        # Start in a group that was just served, so that the first heartbeat is almost a full interval away.
        recent = next(self._serial) % max(1, self.heartbeat_groups // 5)
        client.heartbeat_group = (self._next_group - recent) % self.heartbeat_groups
        self._by_group.add(client.heartbeat_group, client)
        return client

    def leave(self, client: Subscriber) -> None:
        """Unregister a client. Do nothing if it is not registered."""
        subscription = client.subscription
        if client not in subscription:
            return
        self.stats.too_slow_count += client.closing.done() and client.closing.result() is CloseCode.TOO_SLOW
        subscription.ready.pop(client, None)
        subscription.behind.pop(client, None)
        self._by_group.remove(client.heartbeat_group, client)
        for note in list(client.admitted):
            self.remove_admitted(client, note)
        if not len(subscription):
            del self._subscriptions[subscription.notes, subscription.keys, subscription.content]
            for index_key in _index_keys(subscription):
                self._index.remove(index_key, subscription)

    def publish(self, event: Event, *, logged: bool = True) -> None:
        """Queue an event for the next fan-out to all clients that subscribe to its note and may read it.

        Args:
            event: The event.
            logged: Whether the event is in the log. Events that are read from MongoDB while Redis is unavailable are
                not.
        """
        if logged:
            self.replay_buffer.add(event)
        else:
            self.replay_buffer.add_unlogged(event)
        self._pending.append((event, self._announce_losses(event) if event.audience.former else ()))
        self._pending_bytes += event.full.size
        if self._pending_bytes > MAX_BATCH_BYTES:
            self.flush()
        elif self._flushing is None:
            loop = asyncio.get_running_loop()
            delay = self._next_flush_at - time.perf_counter()  # uvloop's loop.time() stands still within an iteration
            if delay > 0:
                self._flushing = loop.call_later(delay, self.flush)
            else:
                self._flushing = loop.call_soon(self._flush_after, FLUSH_DELAY_ITERATIONS)

    def _flush_after(self, iterations: int) -> None:
        if iterations:
            self._flushing = asyncio.get_running_loop().call_soon(self._flush_after, iterations - 1)
        else:
            self.flush()

    def flush(self) -> None:
        """Deliver all pending events now."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if not self._pending:
            return
        started = time.perf_counter()
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for subscription, frames in self._prepare_frames(pending).items():
            self.stats.deliveries += len(frames) * len(subscription)
            subscription.deliver(frames)
        ended = time.perf_counter()
        self._next_flush_at = ended + self.flush_delay.next_delay(started, ended, len(pending))

    def _prepare_frames(self, pending: list[tuple[Event, Collection[str | None]]]) -> dict[Subscription, list[Frame]]:
        """Return the frames for each subscription, and forget the notes that clients can no longer read.

        For clients that may not read the note of an event, the cached permission is removed. If they have just lost
        access, the note's frames are dropped from their queues.
        """
        frames: dict[Subscription, list[Frame]] = {}
        for event, lost in pending:
            index_keys = (ALL_NOTES, event.id, *event.audience.readers, *lost)
            for subscription in dict.fromkeys(chain.from_iterable(map(self.subscriptions_of, index_keys))):
                frame = subscription.frame_of(event, lost)
                if frame is not None:
                    frames.setdefault(subscription, []).append(frame)
                    if frame is event.gone:
                        for client in subscription.behind:
                            client.drop_note(event.id)
            for client in [client for client in self._admitted[event.id] if not client.subscription.can_read(event)]:
                self.remove_admitted(client, event.id)
        return frames

    def _announce_losses(self, event: Event) -> Collection[str | None]:
        """Remember that clients lost access to a note, and return the affected principal keys.

        These are the keys that have lost access since the last loss that the hub remembers for this note. If it
        remembers none, they are all the keys that have lost access.
        """
        former = event.audience.former
        known = self._announced_losses.get(event.id, 0)
        if len(self._announced_losses) >= MAX_ANNOUNCED_LOSSES:
            self._announced_losses.clear()  # as a result, clients may receive ``note.deleted`` for a note again
        self._announced_losses[event.id] = max(former.values())
        return {key for key, version in former.items() if version > known}

    def publish_presence(self, note_id: int, frames: Collection[Frame], watchers: Collection[Subscriber]) -> None:
        """Send frames about a note to the clients that subscribe to it by its id, and to ``watchers``.

        Clients that cannot see the note are skipped.
        """
        self.flush()
        subscribed = {client for subscription in self.subscriptions_of(note_id) for client in subscription}
        for client in subscribed.union(watchers):
            if client.sees(note_id):
                for frame in frames:
                    client.offer(frame)

    def set_admitted(self, client: Subscriber, note_id: int, admitted: bool) -> None:
        """Cache whether a client can see a note. ``admitted`` is false until the permission has been read."""
        if client in client.subscription:
            client.admitted[note_id] = admitted
            self._admitted.add(note_id, client)

    def remove_admitted(self, client: Subscriber, note_id: int) -> None:
        """Remove the cached permission of a client to see a note."""
        client.admitted.pop(note_id, None)
        self._admitted.remove(note_id, client)

    def clear_admitted(self, note_id: int) -> list[Subscriber]:
        """Remove the cached permissions of all clients for a note, and return the clients that had an entry."""
        clients = list(self._admitted[note_id])
        for client in clients:
            self.remove_admitted(client, note_id)
        return clients

    def reset(self, frame: Frame) -> None:
        """Replace the queue of every client with a reset frame, because events are missing from the log."""
        self.flush()
        self.replay_buffer.clear_unlogged()
        for client in list(self.clients()):
            client.clear()
            client.offer(frame)
            self.stats.resets += 1

    def heartbeat(self, frame: Frame) -> None:
        """Send a heartbeat to the idle clients of the next group. Groups spread the work over the interval."""
        self.flush()
        self._next_group = (self._next_group + 1) % self.heartbeat_groups
        for client in [client for client in self._by_group[self._next_group] if client.idle]:
            client.offer(frame)

    def sessions(self) -> set[str]:
        """Return the session ids of all clients."""
        return {client.principal.session for client in self.clients() if client.principal.session is not None}

    def close_clients(self, matches: Callable[[Principal], bool], code: CloseCode, last: Frame | None = None) -> None:
        """Disconnect the clients whose principal matches, after sending ``last`` if it is given."""
        for client in list(self.clients()):
            if matches(client.principal):
                client.close(code, last)

    def close_stalled(self, now: float) -> None:
        """Disconnect the clients that have read nothing for too long. ``now`` is the time of the event loop."""
        for subscription in self._subscriptions.values():
            for client in list(subscription.behind):
                client.close_if_stalled(now, self.stall_seconds)

    async def drain(self, code: CloseCode, duration: float) -> None:
        """Disconnect every client, spread over ``duration`` seconds so that they do not all reconnect at once."""
        self.flush()
        clients = list(self.clients())
        steps = max(1, min(len(clients), int(duration * 20)))
        for step in range(steps):
            for client in clients[step::steps]:
                client.close(code)
            await asyncio.sleep(duration / steps)


def _index_keys(subscription: Subscription) -> Collection[int | str | None]:
    """Return the index keys of a subscription: note ids or, for a subscription to all notes, principal keys."""
    if subscription.notes is not None:
        return subscription.notes
    return (ALL_NOTES,) if subscription.keys is None else subscription.keys
