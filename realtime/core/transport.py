"""The interfaces between a WebSocket connection and the code that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from realtime.core.frames import FrameBatch


class MessageSink(Protocol):
    """Where messages for a client go. Nothing here ever waits."""

    def send(self, packet: FrameBatch, limit: int) -> bool:
        """Sends messages, or drops them if the client is gone; false, with nothing sent, if more than that waits."""

    def probe(self) -> None:
        """Find out soon whether the client is still connected, if the connection can tell."""

    @property
    def buffered(self) -> int:
        """Bytes that the client has not taken yet."""


class DirectTransport(MessageSink, Protocol):
    """An outlet straight into a client's transport."""

    full: bool
    """Whether so much waits there that nothing should be added."""

    def write(self, data: bytes) -> None:
        """Writes what is framed already."""


class ConnectionHandler(Protocol):
    """Who hears what happens on a connection. All of it is called in the loop, and must not wait."""

    def received(self, message: str | bytes) -> None:
        """A whole message came."""

    def full(self) -> None:
        """So much waits in the transport that nothing should be written."""

    def writable(self) -> None:
        """There is room in the transport again."""

    def lost(self) -> None:
        """The connection is gone. The last call."""
