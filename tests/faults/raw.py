"""A WebSocket client that can send arbitrary bytes, and records the response of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self
from urllib.parse import urlsplit

from websockets.utils import apply_mask

from realtime.core.frames import BINARY, CLOSE, PING, PONG, TEXT
from tests.support.harness import UNIT

MASK = b"\x12\x34\x56\x78"
FIRST, MORE, LAST = TEXT & 0x7F, 0x00, 0x80
"""The first bytes of a fragmented text message."""
FIRST_BINARY = BINARY & 0x7F
PATIENCE = 20.0

__all__ = [
    "BINARY", "CLOSE", "FIRST", "FIRST_BINARY", "LAST", "MORE", "PING", "PONG", "TEXT", "Peer", "close_frame", "frame",
]  # fmt: skip


def frame(kind: int, message: bytes = b"", *, mask: bytes | None = MASK, wide: int = 0) -> bytes:
    """Return a frame of a client. ``wide`` is the number of bytes of its extended length."""
    size = len(message)
    wide = wide or (0 if size < 126 else 2 if size < 65536 else 8)
    short = {0: size, 2: 126, 8: 127}[wide]
    head = bytes((kind, short | (0 if mask is None else 0x80))) + (size.to_bytes(wide, "big") if wide else b"")
    return head + message if mask is None else head + mask + apply_mask(message, mask)


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Return a close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


class Peer:
    """A WebSocket connection."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self.texts: list[bytes] = []
        self.pongs: list[bytes] = []
        self.code: int | None = None
        """The close code that the server sent."""
        self._finished = False
        self.head = b""
        """The response to the handshake."""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def arrive(cls, url: str, offers: str = "") -> Self:
        """Connect, and optionally offer extensions."""
        peer = cls(url)
        to = peer._url
        peer._reader, peer._writer = await asyncio.open_connection(to.hostname, to.port)
        lines = (
            f"GET {to.path}?{to.query} HTTP/1.1",
            f"Host: {to.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            *([f"Sec-WebSocket-Extensions: {offers}"] if offers else []),
        )
        peer._writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE * UNIT):
            peer.head = await peer._reader.readuntil(b"\r\n\r\n")
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def say(self, pieces: Iterable[bytes]) -> None:
        """Send chunks of bytes separately. Chunks after the end of the connection are discarded."""
        for piece in pieces:
            self._writer.write(piece)
            await asyncio.sleep(0)

    def finish(self) -> None:
        """Close the sending side of the connection."""
        self._finished = True
        if not self._writer.transport.is_closing():
            self._writer.write_eof()

    async def hear(self) -> tuple[int, bytes] | None:
        """Return the first byte and the payload of the next frame, or ``None`` after the last one."""
        try:
            async with asyncio.timeout(PATIENCE * UNIT):
                kind, size = await self._reader.readexactly(2)
                if size > 125:
                    size = int.from_bytes(await self._reader.readexactly({126: 2, 127: 8}[size]), "big")
                message = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        assert self.code is None, f"after the close came {kind:x} {message[:100]!r}"
        if kind == PONG:
            self.pongs.append(message)
        elif kind == TEXT:
            self.texts.append(message)
        elif kind == CLOSE:
            self.code = int.from_bytes(message[:2], "big") if message else 1005
            if not self._finished:
                self._writer.write(frame(CLOSE, message[:2]))
        return kind, message

    async def until(self, kind: int, part: bytes = b"") -> bool:
        """Receive frames up to one of a kind that contains some bytes. Return false if the connection ends before."""
        while (heard := await self.hear()) is not None:
            if heard[0] == kind and part in heard[1]:
                return True
        return False

    async def end(self) -> int | None:
        """Receive all frames, and return the close code, if there is one."""
        while await self.hear() is not None:
            pass
        return self.code
