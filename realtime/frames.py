"""WebSocket messages as the bytes on the wire (RFC 6455, section 5.2), made once for all who get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_BINARY = 0x82
"""A whole message in one frame."""


def _framed(message: bytes) -> bytes:
    size = len(message)
    if size < 126:
        return bytes((_BINARY, size)) + message
    if size < 65536:
        return bytes((_BINARY, 126)) + size.to_bytes(2, "big") + message
    return bytes((_BINARY, 127)) + size.to_bytes(8, "big") + message


class Packet:
    """Binary messages that go out together."""

    __slots__ = ("framed", "messages")

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.messages = messages
        self.framed = b"".join(map(_framed, messages))


class Outlet(Protocol):
    """Where messages for a client go. Nothing here ever waits."""

    def send(self, packet: Packet, limit: int) -> bool:
        """Sends messages, or drops them if the client is gone; false, with nothing sent, if more than that waits."""

    @property
    def buffered(self) -> int:
        """Bytes that the client has not taken yet."""
