"""One subscriber of the feed: its subscription, its permissions and its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING

from realtime.core.close_codes import CloseCode
from realtime.core.stall_detector import StallDetector

if TYPE_CHECKING:
    from collections.abc import Callable

    from realtime.auth.permissions import Principal
    from realtime.core.frames import Frame
    from realtime.core.transport import DirectTransport
    from realtime.eventlog.event import Event

MAX_BATCH_BYTES = 64 * 1024
"""Maximum size of one write. It limits how much data a client that does not read can leave in its transport."""
MIN_BYTES_PER_SECOND = 16 * 1024
"""Rate of the slowest supported link. A large frame gets correspondingly more time before its client is stalled."""


class SubscriberClosed(Exception):
    """Raised when the client must be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Subscription:
    """A group of clients with the same filter and the same permissions, which all receive the same frame for an event.

    Attributes:
        notes: Ids of the notes that the clients subscribe to; ``None`` for all.
        keys: Principal keys of the clients; ``None`` if they have access to all notes.
        content: Whether events include the notes' ``content``.
        ready: Clients whose transport accepts data, with the function that writes to it.
        behind: Clients whose frames are queued.
    """

    __slots__ = ("behind", "content", "keys", "notes", "ready")

    def __init__(self, notes: frozenset[int] | None, keys: frozenset[str | None] | None, *, content: bool) -> None:
        self.notes = notes
        self.keys = keys
        self.content = content
        self.ready: dict[Subscriber, Callable[[bytes], None]] = {}
        self.behind: dict[Subscriber, None] = {}

    def __len__(self) -> int:
        return len(self.ready) + len(self.behind)

    def __iter__(self) -> Iterator[Subscriber]:
        yield from self.ready
        yield from self.behind

    def __contains__(self, client: object) -> bool:
        return client in self.ready or client in self.behind

    def can_read(self, event: Event) -> bool:
        """Return whether these clients have access to the note of an event."""
        return self.keys is None or not self.keys.isdisjoint(event.audience.readers)

    def frame_of(self, event: Event, lost: Collection[str | None]) -> Frame | None:
        """Return the frame of an event for these clients, or ``None``.

        Args:
            event: The event.
            lost: Principal keys that lost access to the note with this event.
        """
        if self.can_read(event):
            return event.full if self.content else event.slim
        return event.gone if self.keys is not None and not self.keys.isdisjoint(lost) else None

    def deliver(self, frames: Collection[Frame]) -> None:
        """Write or queue frames without waiting. Their total size is at most about :data:`MAX_BATCH_BYTES`."""
        for client in list(self.behind):  # first, because the writes below can move more clients here
            for frame in frames:
                client.offer(frame)
        if self.ready:
            data = b"".join([frame.framed for frame in frames])
            for write in list(self.ready.values()):
                write(data)


class Subscriber:
    """One client of the feed, with a bounded queue.

    Adding a frame never waits. Up to ``budget`` bytes, all frames are queued in order. Above it, only the latest frame
    per conflation key is kept, still in the order of cursors, so that the client can resume from any frame that it has
    received. If the queue still exceeds twice the budget, the client is closed with ``TOO_SLOW``.

    Attributes:
        admitted: Whether the client can see a note, by note id. The value is false while the permission is being read.
            An event that revokes the permission removes the entry, so that the outdated result is discarded. The hub
            sets and removes the entries.
        heartbeat_group: The clients of a group receive heartbeats at the same time.
        busy_since: Time at which the current write started; ``None`` while no write is in progress.
        write_allowance: Seconds that the current write may take in addition to the stall timeout.
        closing: Done, with the close code, once the client must be closed.
    """

    __slots__ = (
        "_budget", "_conflating", "_pending", "_pending_bytes", "_serial", "_stall_detector", "_started",
        "_transport", "_wakeup", "_written_bytes", "admitted", "busy_since", "closing", "heartbeat_group", "principal",
        "subscription", "write_allowance",
    )  # fmt: skip

    def __init__(self, subscription: Subscription, principal: Principal, *, budget: int) -> None:
        self.subscription = subscription
        self.principal = principal
        self.admitted: dict[int, bool] = {}
        self.heartbeat_group = 0
        self.busy_since: float | None = None
        self.write_allowance = 0.0
        self._written_bytes = 0
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self._budget = budget
        self._pending: dict[Hashable, Frame] = {}
        self._serial = count()
        self._pending_bytes = 0
        self._conflating = False
        self._wakeup: asyncio.Future[None] | None = None
        self._transport: DirectTransport | None = None
        self._started = False
        self._stall_detector: StallDetector | None = None
        subscription.behind[self] = None

    @property
    def notes(self) -> frozenset[int] | None:
        """Ids of the notes that the client subscribes to; ``None`` for all."""
        return self.subscription.notes

    @property
    def idle(self) -> bool:
        """Whether no frame is queued for this client, and none is being written to it."""
        return (
            not self._pending and self.busy_since is None and not (self._transport is not None and self._transport.full)
        )

    @property
    def pending_bytes(self) -> int:
        """Size of the queue in bytes."""
        return self._pending_bytes

    def sees(self, note: int) -> bool:
        """Return whether this client is known to have access to a note, and so receives the note's presence."""
        return self.principal.keys is None or self.admitted.get(note, False)

    def offer(self, frame: Frame) -> None:
        """Write or queue a frame without waiting. A client that is being closed ignores it."""
        if self.closing.done():
            return
        write = self.subscription.ready.get(self)
        if write is not None:
            write(frame.framed)
            return
        if self._conflating:
            self._replace(frame)
        else:
            self._pending[next(self._serial)] = frame
            self._pending_bytes += frame.size
            if self._pending_bytes > self._budget:
                self._conflate()
        if self._pending_bytes > 2 * self._budget and len(self._pending) > 1:
            self.close(CloseCode.TOO_SLOW)
        self._wake()

    def drop_note(self, note: int) -> None:
        """Remove the queued frames of a note that the client can no longer see."""
        for key in [key for key, frame in self._pending.items() if _is_about(frame, note)]:
            self._pending_bytes -= self._pending.pop(key).size

    def clear(self) -> None:
        """Empty the queue, before a frame that supersedes it."""
        self._pending.clear()
        self._pending_bytes = 0
        self._conflating = False

    def close(self, code: CloseCode, last: Frame | None = None) -> None:
        """Request that the connection be closed, after sending ``last`` if it is given. The first code is kept."""
        if not self.closing.done():
            self.clear()
            if last is not None:
                self.offer(last)
            self.closing.set_result(code)
            self._fall_behind()
            self._wake()

    async def next_batch(self) -> list[Frame]:
        """Wait for frames, and return up to :data:`MAX_BATCH_BYTES` of them, or one larger frame.

        Raises:
            SubscriberClosed: The client must be closed.
        """
        self.busy_since = None
        while not self._pending:
            if self.closing.done():
                raise SubscriberClosed(self.closing.result())
            await self._wait_for_wakeup()
        return self._pop_batch()

    def start_write(self, frame: Frame) -> None:
        """Record that all earlier frames were written and that the write of this one begins."""
        self.write_allowance = (self._written_bytes + frame.size) / MIN_BYTES_PER_SECOND
        self._written_bytes = frame.size
        self.busy_since = asyncio.get_running_loop().time()

    def connect(self, transport: DirectTransport) -> None:
        """Attach a direct transport. :meth:`send` writes to it, and after :meth:`start` so does :meth:`offer`."""
        self._transport = transport

    async def send(self, frames: Iterable[Frame]) -> None:
        """Write frames ahead of the queue. Wait while the transport is full.

        Raises:
            SubscriberClosed: The client must be closed.
        """
        assert self._transport is not None
        for data in _joined(frames):
            while self._transport.full and not self.closing.done():
                await self._wait_for_wakeup()
            if self.closing.done():
                raise SubscriberClosed(self.closing.result())
            self._transport.write(data)

    def start(self) -> None:
        """Write the queue, and from now on each frame at once while the transport accepts data."""
        self._started = True
        self._flush()

    def pause(self) -> None:
        """Queue all frames until :meth:`resume` is called: the transport is full."""
        self._fall_behind()

    def resume(self) -> None:
        """Write the queue: the transport accepts data again."""
        self._stall_detector = None
        if self._started:
            self._flush()
        else:
            self._wake()

    def close_if_stalled(self, now: float, stall_seconds: float) -> None:
        """Close this client if it has read nothing for ``stall_seconds``. Call this about once per second."""
        if self._transport is None:
            stalled = self.busy_since is not None and now - self.busy_since > stall_seconds + self.write_allowance
        elif self._transport.full:
            self._stall_detector = self._stall_detector or StallDetector(now)
            stalled = self._stall_detector.seconds_stalled(self._transport.buffered, now) > stall_seconds
        else:
            return
        if stalled:
            self.close(CloseCode.TOO_SLOW)

    def _flush(self) -> None:
        transport = self._transport
        assert transport is not None
        while self._pending and not transport.full:
            transport.write(b"".join([frame.framed for frame in self._pop_batch()]))
        if not transport.full and not self.closing.done() and self.subscription.behind.pop(self, self) is None:
            self.subscription.ready[self] = transport.write

    def _fall_behind(self) -> None:
        if self.subscription.ready.pop(self, None) is not None:
            self.subscription.behind[self] = None

    def _pop_batch(self) -> list[Frame]:
        batch: list[Frame] = []
        size = 0
        while self._pending:
            key = next(iter(self._pending))
            frame = self._pending[key]
            if size and size + frame.size > MAX_BATCH_BYTES:
                return batch
            del self._pending[key]
            size += frame.size
            self._pending_bytes -= frame.size
            batch.append(frame)
        self._conflating = False
        return batch

    def _conflate(self) -> None:
        frames = list(self._pending.values())
        self.clear()
        self._conflating = True
        for frame in frames:
            self._replace(frame)

    def _replace(self, frame: Frame) -> None:
        key: Hashable = next(self._serial) if frame.key is None else frame.key
        earlier = self._pending.get(key)
        if earlier is not None:
            if earlier.version > frame.version:
                return
            del self._pending[key]
            self._pending_bytes -= earlier.size
        self._pending[key] = frame
        self._pending_bytes += frame.size

    async def _wait_for_wakeup(self) -> None:
        self._wakeup = asyncio.get_running_loop().create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


def _is_about(frame: Frame, note: int) -> bool:
    return isinstance(frame.key, tuple) and frame.key[0] in ("note", "presence") and frame.key[1] == note


def _joined(frames: Iterable[Frame]) -> Iterator[bytes]:
    """Yield frames in their wire encoding, joined into chunks of up to :data:`MAX_BATCH_BYTES`, or one larger frame."""
    chunk: list[bytes] = []
    size = 0
    for frame in frames:
        if chunk and size + frame.size > MAX_BATCH_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(frame.framed)
        size += frame.size
    if chunk:
        yield b"".join(chunk)
