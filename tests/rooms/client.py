"""A Yjs client in Python: the protocol without IO, in a room, and over the wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from realtime.auth.permissions import UNRESTRICTED, Principal
from realtime.core.close_codes import CloseCode
from realtime.core.frames import FrameBatch
from realtime.errors import MalformedUpdate, NoteNotFound, Unavailable
from realtime.notes.diff import changes
from realtime.rooms import crdt, lib0, protocol
from realtime.rooms.crdt import TextDocument
from realtime.rooms.lib0 import Reader
from realtime.rooms.manager import Rooms
from realtime.rooms.peer import PeerRefused
from realtime.rooms.room import Room
from tests.harness import UNIT, Returning


def state_of(client: int, clock: int, state: str) -> bytes:
    """An awareness message with the state of one client."""
    return protocol.awareness(b"\1" + lib0.number(client) + lib0.number(clock) + lib0.string(state))


def states_of(clients: Iterable[int]) -> bytes:
    """An awareness message with a small state of each client."""
    states = [lib0.number(client) + lib0.number(0) + lib0.string("1") for client in clients]
    return protocol.awareness(lib0.number(len(states)) + b"".join(states))


def without_origins(client: int, pieces: int, first: int = 0) -> bytes:
    """An update of pieces that say nothing of their place: the library looks at the whole text for each."""
    piece = bytes((4, 1)) + lib0.string("content") + lib0.string("z")
    return b"\1" + lib0.number(pieces) + lib0.number(client) + lib0.number(first) + piece * pieces + b"\0"


def alternating(pieces: int) -> bytes:
    """An update of two clients, each of whose letters continues a letter of the other."""
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
    """What a client has of a text: it answers what a server says, and knows what of its own came back."""

    def __init__(self, client: int | None = None) -> None:
        self.client = client or crdt.new_client_id()
        self.document = TextDocument(client=self.client)
        self.acknowledged: set[bytes] = set()
        self.written: list[bytes] = []
        self.states: dict[int, tuple[int, str]] = {}
        self.denied = 0
        self.synced = 0

    def __str__(self) -> str:
        """The text."""
        return str(self.document)

    def hello(self) -> bytes:
        """Asks for what is missing here."""
        return protocol.state(self.document.state)

    def take(self, message: bytes) -> bytes | None:
        """Takes a message of the server, and returns the answer to it, if any."""
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
        """Clients that are at it."""
        return {client for client, (_, state) in self.states.items() if state != "null"}

    def edit(self, wanted: str) -> bytes:
        """Makes another text of it; returns the message for the server."""
        update = self.document.edit(changes(str(self.document), wanted))
        self.written.append(update)
        return protocol.update(update)

    def append(self, words: str) -> bytes:
        """Writes at the end."""
        return self.edit(str(self.document) + words)

    @property
    def all_acknowledged(self) -> bool:
        """Whether all that was written since the client was made came back."""
        return self.acknowledged.issuperset(self.written)


class Seat:
    """A client in a room of this process; as an outlet, ``buffered`` is what a test says."""

    def __init__(self, text: Text | None = None) -> None:
        self.text = text or Text()
        self.buffered = 0
        self.messages: list[bytes] = []
        self.packets = 0
        self.probed = 0
        self._answers: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.member: Any = None
        self.room: Room | None = None
        self.failure: BaseException | None = None

    def send(self, packet: FrameBatch, limit: int) -> bool:
        """As :class:`MessageSink`."""
        if self.buffered > limit:
            return False
        self.packets += 1
        for message in packet.messages:
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
        """As :class:`MessageSink`."""
        self.probed += 1

    async def sit(self, rooms: Rooms, note: int, *, writes: bool = True, principal: Principal = UNRESTRICTED) -> Self:
        """Goes into a room, and exchanges what either lacks."""
        caller = "127.0.0.1" if principal.name is None else principal.name
        self.member = rooms.create_peer(self, principal, caller, writes=writes)
        self.room = await rooms.join(note, self.member)
        await self.say(self.text.hello())
        return self

    async def say(self, message: bytes) -> None:
        """Sends a message to the room; what it does not like is raised."""
        assert self.room is not None
        await self.room.receive(self.member, message)

    async def append(self, words: str) -> None:
        """Writes at the end."""
        await self.say(self.text.append(words))

    def leave(self) -> None:
        """Goes."""
        assert self.room is not None
        self.room.leave(self.member)

    @property
    def code(self) -> CloseCode | None:
        """The code with which the room asked for it to be closed."""
        closing: asyncio.Future[CloseCode] = self.member.closing
        return closing.result() if closing.done() else None


class Wire(Returning):
    """A client over the wire."""

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
        """Sends a message, if connected; what is lost the next synchronisation brings."""
        if self.socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self.socket.send(message)

    async def append(self, words: str) -> None:
        """Writes at the end."""
        await self.say(self.text.append(words))
