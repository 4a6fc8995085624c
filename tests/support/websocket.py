"""Helpers for WebSocket tests: an in-memory transport, a recording handler, and a server of one application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import uvicorn

from realtime.core.frames import framed
from realtime.server.serve import listen
from realtime.websocket.handshake import Handshake
from realtime.websocket.http_protocol import HttpProtocol
from tests.faults.raw import CLOSE, FIRST, LAST, MORE, PING, frame
from tests.support.harness import UNIT, eventually

Message = str | bytes


def close_of(code: int, reason: bytes = b"") -> bytes:
    return framed(CLOSE, code.to_bytes(2) + reason)


class Heard:
    """Records the calls of a connection."""

    def __init__(self, then: Callable[[Message], None] = lambda _: None) -> None:
        self.messages: list[Message] = []
        self.calls: list[str] = []
        self._then = then

    def received(self, message: Message) -> None:
        self.messages.append(message)
        self._then(message)

    def full(self) -> None:
        self.calls.append("full")

    def writable(self) -> None:
        self.calls.append("writable")

    def lost(self) -> None:
        self.calls.append("lost")


class Memory(asyncio.Transport):
    """A transport that keeps the written data in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def can_write_eof(self) -> bool:
        return False

    def has(self, end: bytes) -> bool:
        """Return whether the written data ends with these bytes."""
        return self.written.endswith(end)


PARTS = frame(FIRST, "ä".encode()[:1]) + frame(PING, b"p") + frame(MORE) + frame(LAST, "ä".encode()[1:] + b"b")


Application = Callable[[Any, Any, Any], Awaitable[None]]

KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455, section 1.3."""
LINES = (
    b"GET / HTTP/1.1",
    b"Host: test",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
)


def handshake_request(*more: bytes, **instead: bytes) -> bytes:
    """Return a handshake with additional lines, and with some lines replaced by their name."""
    lines = [instead.get(line.partition(b":")[0].decode().rpartition("-")[2].lower(), line) for line in LINES]
    lines[0] = instead.get("first", LINES[0])
    return b"".join(line + b"\r\n" for line in (*lines, *more) if line) + b"\r\n"


async def accept_websocket(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})


@asynccontextmanager
async def serving(application: Application, **options: Any) -> AsyncIterator[tuple[int, set[Any]]]:
    """Serve an application, and yield the port and the connections of the server."""
    options = {"http": HttpProtocol, "ws": Handshake, "lifespan": "off", "log_config": None, **options}
    server = uvicorn.Server(uvicorn.Config(application, **options))
    with closing(listen("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        await eventually(lambda: server.started)
        yield listener.getsockname()[1], server.server_state.connections
        server.should_exit = True
        await running


@asynccontextmanager
async def sent_request(port: int, data: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send a request, and yield the reader and writer of its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(5 * UNIT):
            writer.write(data)
            yield reader, writer
    finally:
        writer.close()


@asynccontextmanager
async def open_websocket(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield the reader and writer of a connection after its handshake."""
    async with sent_request(port, handshake_request()) as (reader, writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        yield reader, writer


class SingleSocketApp:
    """An application that calls a function for each WebSocket."""

    def __init__(self, act: Application) -> None:
        self._act = act
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        assert await receive() == {"type": "websocket.connect"}
        await self._act(scope, receive, send)
