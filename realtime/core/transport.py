"""The interfaces between a WebSocket connection and the code that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from realtime.core.frames import FrameBatch


class MessageSink(Protocol):
    """Accepts messages for one client. No method blocks."""

    def send(self, packet: FrameBatch, limit: int) -> bool:
        """Send messages, or drop them if the client has disconnected.

        Returns:
            False, with nothing sent, if more than ``limit`` bytes are buffered.
        """

    def probe(self) -> None:
        """Start a check of whether the client is still connected, if the connection supports this."""

    @property
    def buffered(self) -> int:
        """Bytes that the client has not read yet."""


class DirectTransport(MessageSink, Protocol):
    """A sink that writes directly to the transport of a client."""

    full: bool
    """Whether the write buffer is above its high-water mark. If so, callers should not write."""

    def write(self, data: bytes) -> None:
        """Write encoded frames."""


class HandledConnection(DirectTransport, Protocol):
    """A connection that passes what it receives to a handler."""

    @property
    def closing(self) -> bool:
        """Whether the connection is being closed. If so, messages from the client are ignored."""

    def set_held(self, held: bool) -> None:
        """Pause or resume reading."""

    def close(self, code: int, reason: str, last: bytes | None = None, *, delay: float = 0) -> None:
        """Send the text message ``last`` if it is given, and close the connection after ``delay`` seconds."""

    def abort(self) -> None:
        """End the connection at once."""


class ConnectionHandler(Protocol):
    """Receives the events of a connection. The methods are called in the event loop and must not block."""

    def received(self, message: str | bytes) -> None:
        """Handle a complete message."""

    def full(self) -> None:
        """Stop writing: the write buffer is above its high-water mark."""

    def writable(self) -> None:
        """Resume writing: the write buffer is below its low-water mark."""

    def lost(self) -> None:
        """Handle the end of the connection. This is the last call."""
