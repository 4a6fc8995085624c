"""The fan-out: clients, their filters and their bounded queues. One hub in every worker; no IO, no encoding."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.access import Viewer
    from realtime.cursor import Cursor
    from realtime.errors import CloseCode

BATCH = 64 * 1024  # bytes handed to a writer at once: what a transport buffers before it asks to wait
MOST_TOLD = 100_000
SLOWEST = 16 * 1024  # bytes a second of the slowest link that counts as progress: a large frame takes its time


class Frame:
    """A message as the text that is sent, made once and shared by all clients.

    ``key`` names what the frame is the state of: under pressure a later frame replaces an earlier one of the same key.
    ``cursor`` is the position that a client may resume from once it has the frame.
    """

    __slots__ = ("cursor", "key", "size", "text", "version")

    def __init__(
        self,
        text: str,
        *,
        size: int | None = None,
        key: Hashable | None = None,
        version: int = 0,
        cursor: str | None = None,
    ) -> None:
        self.text = text
        self.size = len(text) if size is None else size
        self.key = key
        self.version = version
        self.cursor = cursor


@dataclass(frozen=True, slots=True)
class Audience:
    """Who may have the events of a note: the keys that open it since a version of it.

    ``former`` are those that did before, each with the version that ended it.
    """

    since: int
    readers: frozenset[str | None]
    former: Mapping[str | None, int]


UNSHARED = Audience(1, frozenset({None}), {})
"""That of a note that nobody owns."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a note in its variants: ``full``, ``slim`` without the content, ``gone`` for who lost the note."""

    id: int
    cursor: Cursor
    full: Frame
    slim: Frame
    deleted: bool = False
    audience: Audience = UNSHARED
    gone: Frame | None = None


class Closed(Exception):
    """The client is to be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Client:
    """One subscriber: what it wants, and what waits for it.

    ``admitted`` are notes that it may see, by id; false while that is looked up, so that an event that takes the right
    away meanwhile is not missed.

    Offering never waits. Up to ``budget`` bytes every frame is kept, in order; above it only the latest per key, still
    in the order of their cursors, so that a client can resume from whatever it has received; and when even that
    exceeds twice the budget, the client is too slow and gets closed.
    """

    __slots__ = (
        "_budget", "_conflating", "_pending", "_serial", "_size", "_too_slow", "_wakeup",
        "_writing", "admitted", "busy_since", "closing", "content", "notes", "patience", "slot", "viewer",
    )  # fmt: skip

    def __init__(
        self, notes: frozenset[int] | None, *, content: bool, viewer: Viewer, budget: int, too_slow: CloseCode
    ) -> None:
        self.viewer = viewer
        self.notes = notes
        self.content = content
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

    @property
    def idle(self) -> bool:
        """Whether nothing waits for this client and nothing is being written to it."""
        return not self._pending and self.busy_since is None

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for this client."""
        return self._size

    def sees(self, note: int) -> bool:
        """Whether it is known that this client may see a note: only then is it told who else looks at it."""
        return self.viewer.keys is None or self.admitted.get(note, False)

    def frame_of(self, event: Event, lost: Collection[str | None]) -> Frame | None:
        """What this client is to hear of an event by which the keys ``lost`` stopped opening its note."""
        keys = self.viewer.keys
        if keys is None or not keys.isdisjoint(event.audience.readers):
            return event.full if self.content else event.slim
        self.admitted.pop(event.id, None)
        return None if keys.isdisjoint(lost) else event.gone

    def offer(self, frame: Frame) -> None:
        """Queues a frame, without ever waiting."""
        if self.closing.done():
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

    def clear(self) -> None:
        """Forgets what waits, for a frame that makes it pointless."""
        self._pending.clear()
        self._size = 0
        self._conflating = False

    def close(self, code: CloseCode) -> None:
        """Asks the client's handler to close the connection; the first code stands."""
        if not self.closing.done():
            self.closing.set_result(code)
            self.clear()
            self._wake()

    async def take(self) -> list[Frame]:
        """Waits for frames and hands out what is due, at most :data:`BATCH` bytes or one frame.

        Raises :class:`Closed` when the client is to be closed.
        """
        self.busy_since = None
        while not self._pending:
            if self.closing.done():
                raise Closed(self.closing.result())
            self._wakeup = asyncio.get_running_loop().create_future()
            await self._wakeup
        return list(self._batch())

    def writing(self, frame: Frame) -> None:
        """The transport took what came before, and this frame is about to be written."""
        self.patience = (self._writing + frame.size) / SLOWEST
        self._writing = frame.size
        self.busy_since = asyncio.get_running_loop().time()

    def _batch(self) -> Iterator[Frame]:
        size = 0
        while self._pending:
            key = next(iter(self._pending))
            frame = self._pending[key]
            if size and size + frame.size > BATCH:
                return
            del self._pending[key]
            size += frame.size
            self._size -= frame.size
            yield frame
        self._conflating = False

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

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


@dataclass
class Stats:
    """What the hub counted since it started."""

    deliveries: int = 0
    resets: int = 0
    too_slow: int = 0


@dataclass
class Hub:
    """All clients of this worker."""

    budget: int
    stall: float
    too_slow: CloseCode
    slots: int = 25
    stats: Stats = field(default_factory=Stats)
    _everything: set[Client] = field(default_factory=set)
    _by_note: dict[int, set[Client]] = field(default_factory=dict)
    _serial: Iterator[int] = field(default_factory=count)
    _beat: int = 0
    _told: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(1 for _ in self.clients())

    def clients(self) -> Iterator[Client]:
        """Every client, once."""
        yield from self._everything
        yield from {client for clients in self._by_note.values() for client in clients}

    def join(self, notes: frozenset[int] | None, *, content: bool, viewer: Viewer) -> Client:
        """Registers a client: from this moment on, everything that it wants waits for it."""
        client = Client(notes, content=content, viewer=viewer, budget=self.budget, too_slow=self.too_slow)
        # A slot that had its turn just now: the first heartbeat is nearly a whole interval away.
        client.slot = (self._beat - next(self._serial) % max(1, self.slots // 5)) % self.slots
        if notes is None:
            self._everything.add(client)
        else:
            for note in notes:
                self._by_note.setdefault(note, set()).add(client)
        return client

    def leave(self, client: Client) -> None:
        """Forgets a client."""
        self.stats.too_slow += client.closing.done() and client.closing.result() is self.too_slow
        self._everything.discard(client)
        for note in client.notes or ():
            watchers = self._by_note.get(note)
            if watchers is not None:
                watchers.discard(client)
                if not watchers:
                    del self._by_note[note]

    def publish(self, event: Event) -> None:
        """Hands an event to every client that wants it and may have it."""
        lost = self._newly_lost(event) if event.audience.former else ()
        for clients in (self._everything, self._by_note.get(event.id, ())):
            for client in clients:
                frame = client.frame_of(event, lost)
                if frame is not None:
                    client.offer(frame)
                    self.stats.deliveries += 1

    def _newly_lost(self, event: Event) -> Collection[str | None]:
        """The keys that lost the note of an event since the one before it, or ever, when that is not known."""
        former = event.audience.former
        told = self._told.get(event.id, 0)
        if len(self._told) >= MOST_TOLD:
            self._told.clear()  # who lost a note may hear so again
        self._told[event.id] = max(former.values())
        return {key for key, version in former.items() if version > told}

    def tell(self, note: int, frame: Frame, also: Collection[Client]) -> None:
        """Hands a frame about a note to the clients that asked for this note by its id, and to those named.

        Only to those that may see it.
        """
        for client in self._by_note.get(note, set()).union(also):
            if client.sees(note):
                client.offer(frame)

    def forget(self, note: int) -> list[Client]:
        """Forgets which clients may see a note, and tells which did."""
        return [client for client in self.clients() if client.admitted.pop(note, None) is not None]

    def reset(self, frame: Frame) -> None:
        """History has a hole: what waits is pointless, every client is to start over."""
        for client in self.clients():
            client.clear()
            client.offer(frame)
            self.stats.resets += 1

    def heartbeat(self, frame: Frame) -> None:
        """Shows the next slot of the idle clients how far they are. Slots spread the work over the interval."""
        self._beat = (self._beat + 1) % self.slots
        for client in self.clients():
            if client.slot == self._beat and client.idle:
                client.offer(frame)

    def sessions(self) -> set[str]:
        """The sessions that clients come from."""
        return {client.viewer.session for client in self.clients() if client.viewer.session is not None}

    def end(self, sessions: Collection[str], code: CloseCode) -> None:
        """Closes the clients that come from these sessions."""
        for client in list(self.clients()):
            if client.viewer.session in sessions:
                client.close(code)

    def close_stalled(self, now: float) -> None:
        """Closes the clients whose transport has taken nothing for too long. ``now`` is the loop's time."""
        for client in list(self.clients()):
            if client.busy_since is not None and now - client.busy_since > self.stall + client.patience:
                client.close(self.too_slow)

    async def drain(self, code: CloseCode, over: float) -> None:
        """Closes every client, spread over so many seconds, so that they do not all come back at once."""
        clients = list(self.clients())
        steps = max(1, min(len(clients), int(over * 20)))
        for step in range(steps):
            for client in clients[step::steps]:
                client.close(code)
            await asyncio.sleep(over / steps)
