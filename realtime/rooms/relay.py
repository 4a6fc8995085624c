"""Sends journaled updates and awareness states between workers, over one Redis channel.

The channel stores no messages, so every worker numbers its messages and sends at least one per second. A worker that
detects a gap in the numbers, or does not receive its own messages, has missed messages. The updates in them are in the
journal.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from realtime.errors import BusUnavailable, MalformedUpdate
from realtime.rooms import lib0

if TYPE_CHECKING:
    from realtime.eventlog.bus import Bus

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
SILENCE_TIMEOUT_SECONDS = 3.0
"""Time without a message from a worker, including this one, after which the channel counts as broken."""
FORGET_SENDER_SECONDS = 60.0
SINGLE_WORKER_DELAY_SECONDS = 0.05
"""Delay for collecting messages if no other worker is known. A worker that just started may receive them late."""
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_MAX_NUMBER = 2**53 - 1


class RelayKind(IntEnum):
    """The type of a message about a room."""

    UPDATES = 0
    """Journaled updates: the row's name, its updates, and the names of the authors."""
    AWARENESS = 1
    COMPACTED = 2
    """The rows that were compacted into the snapshot of a generation."""
    QUERY_AWARENESS = 3
    """A request for the awareness states of a room. Every worker replies with :attr:`AWARENESS` and the same row."""


class RelayMessage(NamedTuple):
    """A message about the room of a note."""

    kind: RelayKind
    note: int
    row: str = ""
    updates: Sequence[bytes] = ()
    names: Sequence[str] = ()
    generation: int = 0

    def encode(self) -> bytes:
        """Return the message as it is sent over the channel."""
        lists = [lib0.number(len(self.updates)), *map(lib0.array, self.updates)]
        lists += [lib0.number(len(self.names)), *map(lib0.string, self.names)]
        head = lib0.number(self.kind) + lib0.number(self.note) + lib0.string(self.row) + lib0.number(self.generation)
        return head + b"".join(lists)


def decode(data: bytes) -> tuple[str, int, Iterator[RelayMessage]]:
    """Return the sender, the number and the messages in a packet from a worker. Raises :class:`MalformedUpdate`."""
    reader = lib0.Reader(data)
    sender, serial = reader.string(), reader.number(_MAX_NUMBER)

    def messages() -> Iterator[RelayMessage]:
        while reader.position < reader.end:
            kind, note = RelayKind(reader.number(len(RelayKind) - 1)), reader.number(_MAX_NUMBER)
            row, generation = reader.string(), reader.number(_MAX_NUMBER)
            updates = [reader.array() for _ in range(reader.count())]
            yield RelayMessage(kind, note, row, updates, [reader.string() for _ in range(reader.count())], generation)

    return sender, serial, messages()


class _Sender(NamedTuple):
    serial: int
    received_at: float


class RelayListener(Protocol):
    """Receives messages from other workers."""

    def receive_relayed(self, message: RelayMessage) -> None:
        """Process a message."""

    def relay_interrupted(self) -> None:
        """Handle the possible loss of messages."""


class Relay:
    """Exchanges messages with other workers."""

    def __init__(self, bus: Bus, listener: RelayListener) -> None:
        self._bus = bus
        self._listener = listener
        self._name = secrets.token_hex(6)
        self._serial = 0
        self._queue: deque[bytes] = deque()
        self._not_empty = asyncio.Event()
        self._senders: dict[str, _Sender] = {}
        self._subscribed_at = 0.0

    def enqueue(self, message: RelayMessage) -> None:
        """Queue a message for the other workers."""
        self._queue.append(message.encode())
        self._not_empty.set()

    @property
    def healthy(self) -> bool:
        """Whether messages from all known workers are arriving."""
        now = asyncio.get_running_loop().time()
        for name in [name for name, last in self._senders.items() if now - last.received_at > FORGET_SENDER_SECONDS]:
            del self._senders[name]  # the worker has terminated
        own = self._senders.get(self._name)
        return own is not None and all(
            now - sender.received_at < SILENCE_TIMEOUT_SECONDS for sender in self._senders.values()
        )

    @property
    def other_workers(self) -> int | None:
        """The number of other running workers; ``None`` if it is not known yet."""
        now = asyncio.get_running_loop().time()
        if self._name not in self._senders or now - self._subscribed_at < 1.5 * HEARTBEAT_SECONDS:
            return None
        return sum(
            name != self._name and now - last.received_at < SILENCE_TIMEOUT_SECONDS
            for name, last in self._senders.items()
        )

    async def run_publish(self) -> None:
        """Publish queued messages, or a heartbeat if there are none, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._not_empty.wait()
            except TimeoutError:
                pass
            if self._senders.keys() <= {self._name}:
                await asyncio.sleep(SINGLE_WORKER_DELAY_SECONDS)
            self._not_empty.clear()
            parts = [lib0.string(self._name), lib0.number(self._serial)]
            self._serial += 1
            size = 0
            while self._queue and size < MAX_MESSAGE_BYTES:
                parts.append(self._queue.popleft())
                size += len(parts[-1])
            if self._queue:
                self._not_empty.set()
            try:
                await self._bus.publish(self._bus.sync, b"".join(parts))
            except BusUnavailable:
                log.debug("messages to other workers were lost")

    async def run_receive(self) -> None:
        """Receive messages until the connection is lost, then raise :class:`BusUnavailable`. Can be called again."""
        async with self._bus.subscribe(self._bus.sync) as messages:
            async for message in messages:
                if message.data is None:
                    self._subscribed_at = asyncio.get_running_loop().time()
                    self._senders.clear()  # after a (re)subscription, messages may be missing
                    self._listener.relay_interrupted()
                    continue
                try:
                    self._receive(message.data)
                except (MalformedUpdate, ValueError):
                    log.warning("invalid message from another worker", exc_info=True)
                    self._listener.relay_interrupted()
        raise BusUnavailable("the subscription ended")

    def _receive(self, data: bytes) -> None:
        sender, serial, messages = decode(data)
        now = asyncio.get_running_loop().time()
        before = self._senders.get(sender)
        self._senders[sender] = _Sender(serial, now)
        if before is not None and serial != before.serial + 1:
            self._listener.relay_interrupted()
        if sender != self._name:
            for message in messages:
                self._listener.receive_relayed(message)
