"""From worker to worker: updates that are journaled, and awareness, over one channel without a log.

Every worker numbers what it says, and says something every second. Whoever misses a number, or hears not even itself,
knows that there is a hole; what was in it is in the journal.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from realtime.errors import BusUnavailable, MalformedUpdate
from realtime.rooms import lib0

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus

log = logging.getLogger(__name__)

BEAT = 1.0
DEAF_AFTER = 3.0
"""Seconds without a word, even of one's own, after which the channel counts as dead."""
FORGET_AFTER = 60.0
ALONE = 0.05
"""Seconds for which news are gathered when no other worker is known: one that just came waits that long, at most."""
MOST_BYTES = 4 * 1024 * 1024
_LARGEST = 2**53 - 1


class RelayKind(IntEnum):
    """What is told of a room."""

    UPDATES = 0
    """Rows that are journaled: the row's name, its updates, the names of those who made them."""
    AWARENESS = 1
    COMPACTED = 2
    """The snapshot is of this generation, and holds these rows."""
    QUERY_AWARENESS = 3
    """A request for the awareness of a room. Every worker answers with :attr:`AWARENESS` and the same row."""


class RelayMessage(NamedTuple):
    """Something about the room of a note."""

    kind: RelayKind
    note: int
    row: str = ""
    updates: Sequence[bytes] = ()
    names: Sequence[str] = ()
    generation: int = 0

    def encode(self) -> bytes:
        """As it goes over the channel."""
        lists = [lib0.number(len(self.updates)), *map(lib0.array, self.updates)]
        lists += [lib0.number(len(self.names)), *map(lib0.string, self.names)]
        head = lib0.number(self.kind) + lib0.number(self.note) + lib0.string(self.row) + lib0.number(self.generation)
        return head + b"".join(lists)


def _decoded(data: bytes) -> tuple[str, int, Iterator[RelayMessage]]:
    reader = lib0.Reader(data)
    sender, serial = reader.string(), reader.number(_LARGEST)

    def told() -> Iterator[RelayMessage]:
        while reader.at < reader.end:
            kind, note = RelayKind(reader.number(len(RelayKind) - 1)), reader.number(_LARGEST)
            row, generation = reader.string(), reader.number(_LARGEST)
            updates = [reader.array() for _ in range(reader.count())]
            yield RelayMessage(kind, note, row, updates, [reader.string() for _ in range(reader.count())], generation)

    return sender, serial, told()


class _Sender(NamedTuple):
    serial: int
    heard: float


class Relay:
    """The relay of one worker. ``hear`` takes what others tell; ``hole`` is called when something may be missing."""

    def __init__(self, bus: Bus, hear: Callable[[RelayMessage], None], hole: Callable[[], None]) -> None:
        self._bus = bus
        self._hear = hear
        self._hole = hole
        self._name = secrets.token_hex(6)
        self._serial = 0
        self._queue: deque[bytes] = deque()
        self._due = asyncio.Event()
        self._senders: dict[str, _Sender] = {}
        self._subscribed = 0.0

    def enqueue(self, told: RelayMessage) -> None:
        """Tells the other workers, soon."""
        self._queue.append(told.encode())
        self._due.set()

    @property
    def sound(self) -> bool:
        """Whether what others tell gets here, as far as can be known."""
        now = asyncio.get_running_loop().time()
        for name in [name for name, last in self._senders.items() if now - last.heard > FORGET_AFTER]:
            del self._senders[name]  # it has ended
        own = self._senders.get(self._name)
        return own is not None and all(now - sender.heard < DEAF_AFTER for sender in self._senders.values())

    @property
    def others(self) -> int | None:
        """The number of other workers that are running; ``None`` if it is not known (yet)."""
        now = asyncio.get_running_loop().time()
        if self._name not in self._senders or now - self._subscribed < 1.5 * BEAT:
            return None
        return sum(name != self._name and now - last.heard < DEAF_AFTER for name, last in self._senders.items())

    async def send(self) -> None:
        """Sends what is queued, and a beat when there is nothing, for ever."""
        while True:
            try:
                async with asyncio.timeout(BEAT):
                    await self._due.wait()
            except TimeoutError:
                pass
            if self._senders.keys() <= {self._name}:
                await asyncio.sleep(ALONE)
            self._due.clear()
            parts = [lib0.string(self._name), lib0.number(self._serial)]
            self._serial += 1
            size = 0
            while self._queue and size < MOST_BYTES:
                parts.append(self._queue.popleft())
                size += len(parts[-1])
            if self._queue:
                self._due.set()
            try:
                await self._bus.publish(self._bus.sync, b"".join(parts))
            except BusUnavailable:
                log.debug("not told to the other workers: they will see a hole")

    async def listen(self) -> None:
        """Listens until the connection is lost; raises :class:`BusUnavailable` then. To be run again."""
        async with self._bus.subscribe(self._bus.sync) as messages:
            async for message in messages:
                if message.data is None:
                    self._subscribed = asyncio.get_running_loop().time()
                    self._senders.clear()  # subscribed, perhaps again: nobody knows what was missed
                    self._hole()
                    continue
                try:
                    self._take(message.data)
                except (MalformedUpdate, ValueError):
                    log.warning("unreadable message of another worker", exc_info=True)
                    self._hole()
        raise BusUnavailable("the subscription ended")

    def _take(self, data: bytes) -> None:
        sender, serial, told = _decoded(data)
        now = asyncio.get_running_loop().time()
        before = self._senders.get(sender)
        self._senders[sender] = _Sender(serial, now)
        if before is not None and serial != before.serial + 1:
            self._hole()
        if sender != self._name:
            for one in told:
                self._hear(one)
