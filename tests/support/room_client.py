"""A Yjs client in Python: the protocol without I/O, in a room, and over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from realtime.auth.permissions import UNRESTRICTED, Principal
from realtime.core.close_codes import CloseCode
from realtime.core.frames import FrameBatch, unframed
from realtime.errors import MalformedUpdate, NoteNotFound, Unavailable
from realtime.notes.diff import changes
from realtime.rooms import crdt, lib0, protocol
from realtime.rooms.crdt import TextDocument
from realtime.rooms.lib0 import Reader
from realtime.rooms.manager import Rooms
from realtime.rooms.peer import PeerRefused
from realtime.rooms.room import Room
from tests.support.harness import UNIT, Returning


def state_of(client: int, clock: int, state: str) -> bytes:
    """Return an awareness message with the state of one client."""
    return protocol.awareness(b"\1" + lib0.number(client) + lib0.number(clock) + lib0.string(state))


def states_of(clients: Iterable[int]) -> bytes:
    """Return an awareness message with a small state of each client."""
    states = [lib0.number(client) + lib0.number(0) + lib0.string("1") for client in clients]
    return protocol.awareness(lib0.number(len(states)) + b"".join(states))


def without_origins(client: int, pieces: int, first: int = 0) -> bytes:
    """Return an update of items without an origin: the library searches the entire text for the position of each."""
    piece = bytes((4, 1)) + lib0.string("content") + lib0.string("z")
    return b"\1" + lib0.number(pieces) + lib0.number(client) + lib0.number(first) + piece * pieces + b"\0"


def many_clients(first: int, count: int) -> bytes:
    """Return an update of this number of clients, from an id on, each of which has written a deleted character."""
    clients = range(first + count - 1, first - 1, -1)
    return lib0.number(count) + b"".join(b"\1" + lib0.number(client) + b"\0\0\1" for client in clients) + b"\0"


def alternating(pieces: int) -> bytes:
    """Return an update of two clients, each of whose characters follows a character of the other."""
    letters = [bytes((4, 1)) + lib0.string("content") + lib0.string("a")]
    for number in range(1, pieces):
        other = 12 if number % 2 == 0 else 11
        letters.append(b"\x84" + lib0.number(other) + lib0.number((number - 1) // 2) + lib0.string("a"))
    sections = (
        lib0.number(len(own)) + lib0.number(client) + b"\0" + b"".join(own)
        for client, own in ((12, letters[1::2]), (11, letters[::2]))
    )
    return b"\2" + b"".join(sections) + b"\0"


class Text:
    """The text of a client. It responds to messages of the server and tracks which of its updates were acknowledged."""

    def __init__(self, client: int | None = None) -> None:
        self.client = client or crdt.new_client_id()
        self.document = TextDocument(client=self.client)
        self.acknowledged: set[bytes] = set()
        self.written: list[bytes] = []
        self.states: dict[int, tuple[int, str]] = {}
        self.denied = 0
        self.synced = 0

    def __str__(self) -> str:
        """Return the text."""
        return str(self.document)

    def hello(self) -> bytes:
        """Return a request for missing updates."""
        return protocol.state(self.document.state)

    def take(self, message: bytes) -> bytes | None:
        """Apply a message of the server, and return the response, if any."""
        reader = Reader(message)
        kind = reader.number(3)
        if kind == 1:
            states = Reader(reader.array())
            for _ in range(states.count()):
                client, clock = states.number(2**53), states.number(2**53)
                self.states[client] = (clock, states.string())
        elif kind == 2:
            self.denied += 1
        elif kind == 0:
            step, payload = reader.number(2), reader.array()
            if step == 0:
                return protocol.missing(self.document.since(payload))
            self.synced += step == 1
            self.document.apply(payload)
            self.acknowledged.add(payload)
        return None

    @property
    def here(self) -> set[int]:
        """The clients in the room."""
        return {client for client, (_, state) in self.states.items() if state != "null"}

    def edit(self, wanted: str) -> bytes:
        """Change the text, and return the message for the server."""
        update = self.document.edit(changes(str(self.document), wanted))
        self.written.append(update)
        return protocol.update(update)

    def append(self, words: str) -> bytes:
        """Append to the text."""
        return self.edit(str(self.document) + words)

    @property
    def all_acknowledged(self) -> bool:
        """Whether all local changes were acknowledged."""
        return self.acknowledged.issuperset(self.written)


class RoomClient:
    """A client in a room of this process. As a message sink, its ``buffered`` is set by the test."""

    def __init__(self, text: Text | None = None) -> None:
        self.text = text or Text()
        self.buffered = 0
        self.messages: list[bytes] = []
        self.packets = 0
        self.probed = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.member: Any = None
        self.room: Room | None = None
        self.failure: BaseException | None = None

    def send(self, packet: FrameBatch, limit: int) -> bool:
        """Implement :class:`MessageSink`."""
        if self.buffered > limit:
            return False
        self.packets += 1
        for _, message in unframed(packet.framed):
            self.messages.append(message)
            if answer := self.text.take(message):
                task = asyncio.get_running_loop().create_task(self._answer(answer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, message: bytes) -> None:
        with contextlib.suppress(PeerRefused, MalformedUpdate, NoteNotFound, Unavailable):
            await self.say(message)

    def probe(self) -> None:
        """Implement :class:`MessageSink`."""
        self.probed += 1

    async def sit(self, rooms: Rooms, note: int, *, writes: bool = True, principal: Principal = UNRESTRICTED) -> Self:
        """Join a room, and exchange missing updates."""
        caller = "127.0.0.1" if principal.name is None else principal.name
        self.member = rooms.create_peer(self, principal, caller, writes=writes)
        self.room = await rooms.join(note, self.member)
        await self.say(self.text.hello())
        return self

    async def say(self, message: bytes) -> None:
        """Send a message to the room, and raise its error."""
        assert self.room is not None
        self.member.charge_arrival(message)
        work = self.room.receive(self.member, message)
        if work is not None:
            await work

    async def append(self, words: str) -> None:
        """Append to the text."""
        await self.say(self.text.append(words))

    def leave(self) -> None:
        """Leave the room."""
        assert self.room is not None
        self.room.leave(self.member)

    @property
    def code(self) -> CloseCode | None:
        """The close code that the room requested."""
        closing: asyncio.Future[CloseCode] = self.member.closing
        return closing.result() if closing.done() else None


class Wire(Returning):
    """A client over a WebSocket."""

    def __init__(self, url: str, note: int | str, text: Text | None = None) -> None:
        super().__init__()
        self.url = f"{url.replace('http', 'ws', 1)}/sync/{note}"
        self.text = text or Text()
        self.codes: list[int] = []
        self.socket: ClientConnection | None = None

    async def _stay(self) -> None:
        async with connect(self.url, max_size=None, open_timeout=5 * UNIT, close_timeout=0.1) as socket:
            self.socket = socket
            try:
                await self._talk(socket)
            except ConnectionClosed:
                self.codes.append(socket.close_code or 1006)
            finally:
                self.socket = None

    async def _talk(self, socket: ClientConnection) -> None:
        await socket.send(self.text.hello())
        async for message in socket:
            assert isinstance(message, bytes)
            before = self.text.synced
            if answer := self.text.take(message):
                await socket.send(answer)
            if self.text.synced > before:
                self._live.set()
        self.codes.append(socket.close_code or 1006)

    async def say(self, message: bytes) -> None:
        """Send a message if connected. The next synchronization includes lost messages."""
        if self.socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self.socket.send(message)

    async def append(self, words: str) -> None:
        """Append to the text."""
        await self.say(self.text.append(words))
