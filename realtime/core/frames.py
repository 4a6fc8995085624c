"""WebSocket messages as the bytes on the wire (RFC 6455, section 5.2), made once for all who get them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
"""The first byte of a whole message in one frame."""


def framed(kind: int, message: bytes) -> bytes:
    """A whole message in one frame, as a server sends it."""
    size = len(message)
    if size < 126:
        return bytes((kind, size)) + message
    if size < 65536:
        return bytes((kind, 126)) + size.to_bytes(2, "big") + message
    return bytes((kind, 127)) + size.to_bytes(8, "big") + message


class Packet:
    """Binary messages that go out together."""

    __slots__ = ("framed", "messages")

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.messages = messages
        self.framed = b"".join([framed(BINARY, message) for message in messages])


class Frame:
    """A message of the feed, made once and shared by all clients.

    ``key`` names what the frame is the state of: under pressure a later frame replaces an earlier one of the same key.
    ``cursor`` is the position that a client may resume from once it has the frame.
    """

    __slots__ = ("_framed", "cursor", "data", "key", "size", "version")

    def __init__(
        self, data: bytes, *, key: Hashable | None = None, version: int = 0, cursor: str | None = None
    ) -> None:
        self.data = data
        self.size = len(data)
        self.key = key
        self.version = version
        self.cursor = cursor
        self._framed: bytes | None = None

    @property
    def text(self) -> str:
        """The message as text."""
        return self.data.decode()

    @property
    def framed(self) -> bytes:
        """The message as it goes over the wire."""
        if self._framed is None:
            self._framed = framed(TEXT, self.data)
        return self._framed


class Outlet(Protocol):
    """Where messages for a client go. Nothing here ever waits."""

    def send(self, packet: Packet, limit: int) -> bool:
        """Sends messages, or drops them if the client is gone; false, with nothing sent, if more than that waits."""

    def probe(self) -> None:
        """Find out soon whether the client is still connected, if the connection can tell."""

    @property
    def buffered(self) -> int:
        """Bytes that the client has not taken yet."""


class Wire(Outlet, Protocol):
    """An outlet straight into a client's transport."""

    full: bool
    """Whether so much waits there that nothing should be added."""

    def write(self, data: bytes) -> None:
        """Writes what is framed already."""


class Listener(Protocol):
    """Who hears what happens on a connection. All of it is called in the loop, and must not wait."""

    def received(self, message: str | bytes) -> None:
        """A whole message came."""

    def full(self) -> None:
        """So much waits in the transport that nothing should be written."""

    def writable(self) -> None:
        """There is room in the transport again."""

    def lost(self) -> None:
        """The connection is gone. The last call."""


class Progress:
    """Watches whether a client takes what it is sent. Times are in seconds, of any clock."""

    __slots__ = ("_buffered", "_moved")

    def __init__(self, now: float) -> None:
        self._buffered = 0
        self._moved = now

    def stalled(self, buffered: int, now: float) -> float:
        """For how long it has taken nothing, given what waits for it now. To be asked every second or so."""
        if buffered == 0 or buffered < self._buffered:
            self._moved = now
        self._buffered = buffered
        return now - self._moved
