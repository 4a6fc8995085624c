"""One subscriber of the feed: what it wants and may have, and what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING

from realtime.core.stall_detector import StallDetector

if TYPE_CHECKING:
    from collections.abc import Callable

    from realtime.auth.permissions import Principal
    from realtime.core.close_codes import CloseCode
    from realtime.core.frames import Frame
    from realtime.core.transport import DirectTransport
    from realtime.eventlog.event import Event

BATCH = 64 * 1024  # bytes handed to a writer at once: what a client that takes nothing costs in its transport
SLOWEST = 16 * 1024  # bytes a second of the slowest link that counts as progress: a large frame takes its time


class SubscriberClosed(Exception):
    """The client is to be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Subscription:
    """Clients that want and may have the same: of an event, all of them get the same frame, or none.

    ``notes`` are those wanted, ``None`` for all. Those ``open`` take what comes straight into their transports; for
    those ``behind`` it waits.
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

    def frame_of(self, event: Event, lost: Collection[str | None]) -> Frame | None:
        """What these clients are to hear of an event by which the keys ``lost`` stopped opening its note."""
        if self.keys is None or not self.keys.isdisjoint(event.audience.readers):
            return event.full if self.content else event.slim
        return None if self.keys.isdisjoint(lost) else event.gone

    def deliver(self, frames: Collection[Frame]) -> None:
        """Hands frames out, without ever waiting. Together they are at most about :data:`BATCH` bytes, or one."""
        for client in list(self.behind):  # first: whose transport is full by what is written below falls behind with it
            for frame in frames:
                client.offer(frame)
        if self.ready:
            data = b"".join([frame.framed for frame in frames])
            for write in list(self.ready.values()):
                write(data)


class Subscriber:
    """One subscriber.

    ``admitted`` are notes that it may see, by id; false while that is looked up, so that an event that takes the right
    away meanwhile is not missed.

    Offering never waits. Up to ``budget`` bytes every frame is kept, in order; above it only the latest per key, still
    in the order of their cursors, so that a client can resume from whatever it has received; and when even that
    exceeds twice the budget, the client is too slow and gets closed.
    """

    __slots__ = (
        "_budget", "_conflating", "_live", "_pending", "_progress", "_serial", "_size", "_too_slow", "_wakeup",
        "_wire", "_writing", "admitted", "busy_since", "closing", "patience", "principal", "slot", "subscription",
    )  # fmt: skip

    def __init__(self, subscription: Subscription, principal: Principal, *, budget: int, too_slow: CloseCode) -> None:
        self.subscription = subscription
        self.principal = principal
        self.admitted: dict[int, bool] = {}
        self.slot = 0
        self.busy_since: float | None = None
        self.patience = 0.0
        self._writing = 0
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self._budget = budget
        self._too_slow = too_slow
        self._pending: dict[Hashable, Frame] = {}
        self._serial = count()
        self._size = 0
        self._conflating = False
        self._wakeup: asyncio.Future[None] | None = None
        self._wire: DirectTransport | None = None
        self._live = False
        self._progress: StallDetector | None = None
        subscription.behind[self] = None

    @property
    def notes(self) -> frozenset[int] | None:
        """The notes that it wants; ``None`` for all."""
        return self.subscription.notes

    @property
    def idle(self) -> bool:
        """Whether nothing waits for this client and nothing is being written to it."""
        return not self._pending and self.busy_since is None and not (self._wire is not None and self._wire.full)

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for this client."""
        return self._size

    def sees(self, note: int) -> bool:
        """Whether it is known that this client may see a note: only then is it told who else looks at it."""
        return self.principal.keys is None or self.admitted.get(note, False)

    def offer(self, frame: Frame) -> None:
        """Hands over a frame, or queues it, without ever waiting."""
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
            self._size += frame.size
            if self._size > self._budget:
                self._conflate()
        if self._size > 2 * self._budget and len(self._pending) > 1:
            self.close(self._too_slow)
        self._wake()

    def drop(self, note: int) -> None:
        """Forgets what waits of a note that it may see no more: who reads slowly would get it long after."""
        for place in [place for place, frame in self._pending.items() if _is_about(frame, note)]:
            self._size -= self._pending.pop(place).size

    def clear(self) -> None:
        """Forgets what waits, for a frame that makes it pointless."""
        self._pending.clear()
        self._size = 0
        self._conflating = False

    def close(self, code: CloseCode, last: Frame | None = None) -> None:
        """Ask for the connection to be closed, after a last frame if there is one; the first code stands."""
        if not self.closing.done():
            self.clear()
            if last is not None:
                self.offer(last)
            self.closing.set_result(code)
            self._fall_behind()
            self._wake()

    async def take(self) -> list[Frame]:
        """Waits for frames and hands out what is due, at most :data:`BATCH` bytes or one frame.

        Raises :class:`SubscriberClosed` when the client is to be closed.
        """
        self.busy_since = None
        while not self._pending:
            if self.closing.done():
                raise SubscriberClosed(self.closing.result())
            await self._woken()
        return self._batch()

    def writing(self, frame: Frame) -> None:
        """The transport took what came before, and this frame is about to be written."""
        self.patience = (self._writing + frame.size) / SLOWEST
        self._writing = frame.size
        self.busy_since = asyncio.get_running_loop().time()

    def connect(self, wire: DirectTransport) -> None:
        """From now on what is for this client is written by :meth:`send`, and once it is :meth:`live`, at once."""
        self._wire = wire

    async def send(self, frames: Iterable[Frame]) -> None:
        """Writes frames before all that waits; waits while the transport is full. Raises :class:`SubscriberClosed`."""
        assert self._wire is not None
        for data in _joined(frames):
            while self._wire.full and not self.closing.done():
                await self._woken()
            if self.closing.done():
                raise SubscriberClosed(self.closing.result())
            self._wire.write(data)

    def live(self) -> None:
        """Writes what waits, and from then on all that comes; what the transport has no room for waits."""
        self._live = True
        self._write()

    def full(self) -> None:
        """The transport has no room: what comes now waits until it is :meth:`writable` again."""
        self._fall_behind()

    def writable(self) -> None:
        """The transport has room again."""
        self._progress = None
        if self._live:
            self._write()
        else:
            self._wake()

    def check(self, now: float, stall: float) -> None:
        """Closes this client if its transport has taken nothing for so many seconds. To be called every second."""
        if self._wire is None:
            stalled = self.busy_since is not None and now - self.busy_since > stall + self.patience
        elif self._wire.full:
            self._progress = self._progress or StallDetector(now)
            stalled = self._progress.seconds_stalled(self._wire.buffered, now) > stall
        else:
            return
        if stalled:
            self.close(self._too_slow)

    def _write(self) -> None:
        wire = self._wire
        assert wire is not None
        while self._pending and not wire.full:
            wire.write(b"".join([frame.framed for frame in self._batch()]))
        if not wire.full and not self.closing.done() and self.subscription.behind.pop(self, self) is None:
            self.subscription.ready[self] = wire.write

    def _fall_behind(self) -> None:
        if self.subscription.ready.pop(self, None) is not None:
            self.subscription.behind[self] = None

    def _batch(self) -> list[Frame]:
        batch: list[Frame] = []
        size = 0
        while self._pending:
            key = next(iter(self._pending))
            frame = self._pending[key]
            if size and size + frame.size > BATCH:
                return batch
            del self._pending[key]
            size += frame.size
            self._size -= frame.size
            batch.append(frame)
        self._conflating = False
        return batch

    def _conflate(self) -> None:
        waiting = list(self._pending.values())
        self.clear()
        self._conflating = True
        for frame in waiting:
            self._replace(frame)

    def _replace(self, frame: Frame) -> None:
        key: Hashable = next(self._serial) if frame.key is None else frame.key
        earlier = self._pending.get(key)
        if earlier is not None:
            if earlier.version > frame.version:
                return
            del self._pending[key]
            self._size -= earlier.size
        self._pending[key] = frame
        self._size += frame.size

    async def _woken(self) -> None:
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
    """Frames as they go over the wire, some at a time."""
    some: list[bytes] = []
    size = 0
    for frame in frames:
        if some and size + frame.size > BATCH:
            yield b"".join(some)
            some, size = [], 0
        some.append(frame.framed)
        size += frame.size
    if some:
        yield b"".join(some)
