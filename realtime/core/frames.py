"""WebSocket messages as frames (RFC 6455, section 5.2). Each frame is encoded once for all recipients."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
"""The first byte of an unfragmented message: FIN and the opcode."""


def framed(kind: int, message: bytes) -> bytes:
    """Return a message as one unmasked frame, as servers send it."""
    size = len(message)
    if size < 126:
        return bytes((kind, size)) + message
    if size < 65536:
        return bytes((kind, 126)) + size.to_bytes(2, "big") + message
    return bytes((kind, 127)) + size.to_bytes(8, "big") + message


def unframed(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the first byte and the message of each frame in concatenated results of :func:`framed`."""
    start = 0
    while start < len(data):
        kind, size, body = data[start], data[start + 1], start + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[body : body + width], "big")
            body += width
        yield kind, data[body : body + size]
        start = body + size


class FrameBatch:
    """Binary messages that are sent together."""

    __slots__ = ("framed",)

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.framed = b"".join([framed(BINARY, message) for message in messages])


class Frame:
    """A message of the feed, encoded once and shared by all subscribers.

    Args:
        data: The message as UTF-8.
        key: The conflation key. Under backpressure, a later frame replaces an earlier one with the same key.
        version: The version of the note.
        cursor: The position from which a client can resume once it has received the frame.
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
        """The message as an encoded frame."""
        if self._framed is None:
            self._framed = framed(TEXT, self.data)
        return self._framed
