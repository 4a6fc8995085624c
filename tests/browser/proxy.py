"""A TCP reverse proxy, for tests of programs between a page and its server."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Sync = Literal["pass", "404", "403", "silent", "hang", "brief"]
"""How ``/sync`` is treated.

pass: like all other paths. 404, 403: refused. silent: the handshake is accepted, then nothing is sent. hang: no
response. brief: aborted shortly after the handshake.
"""

REQUEST_LINE = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.1\r\n")
BRIEF_SECONDS = 0.05


@dataclass
class Proxy:
    """Passes one request per connection to a server, and treats ``/sync`` as configured.

    Attributes:
        target: Port of the server.
        prefix: Path prefix that requests must have; others are answered with 404.
        strip: Whether the prefix is removed.
        sync: How ``/sync`` is treated. :meth:`set_sync` aborts the open connections.
        websockets: Whether WebSockets are passed. Otherwise they are answered with 404.
        attempts: Number of requests for ``/sync``.
    """

    target: int
    prefix: str = ""
    strip: bool = True
    sync: Sync = "pass"
    websockets: bool = True
    port: int = 0
    attempts: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The address of the server as the page sees it."""
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def set_sync(self, sync: Sync) -> None:
        """Treat ``/sync`` differently from now on, and abort the open connections."""
        self.sync = sync
        for writer in self._open:
            writer.transport.abort()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side has closed the connection
        finally:
            self._open.discard(writer)
            await _closed(writer, abort=self.sync != "pass")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = REQUEST_LINE.match(head)
        assert request, head
        path = request[2].decode()
        if not re.match(rf"{re.escape(self.prefix)}([/?]|$)", path):
            await self._answer(writer, "404 Not Found")
            return
        inner = path[len(self.prefix) :] or "/"
        is_sync = inner.startswith("/sync/")
        if is_sync:
            self.attempts += 1
            self._open.add(writer)
            if self.sync in ("404", "403"):
                await self._answer(writer, f"{self.sync} Refused")
                return
            if self.sync == "hang":
                await reader.read()
                return
        upgrade = re.search(rb"(?i)\r\nupgrade:", head)
        if upgrade and not self.websockets:
            await self._answer(writer, "404 Not Found")
            return
        if self.strip:
            head = head.replace(request[2], inner.encode(), 1)
        if not upgrade:  # one request per connection, so that each request is checked
            head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head[:-2]) + b"Connection: close\r\n\r\n"
        await self._relay(head, reader, writer, self.sync if is_sync else "pass")

    async def _relay(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, how: Sync) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            forth.write(head)
            if how == "silent":
                writer.write(await back.readuntil(b"\r\n\r\n"))
                await reader.read()  # to the end
                return
            ways = [asyncio.create_task(_copy(reader, forth)), asyncio.create_task(_copy(back, writer))]
            await asyncio.wait(
                ways,
                return_when=asyncio.FIRST_COMPLETED,
                timeout=BRIEF_SECONDS if how == "brief" else None,
            )
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
        finally:
            await _closed(forth, abort=True)

    async def _answer(self, writer: asyncio.StreamWriter, status: str) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()


async def _closed(writer: asyncio.StreamWriter, *, abort: bool) -> None:
    """Close a connection, and wait until it is closed, so that no open transport is garbage-collected."""
    writer.transport.abort() if abort else writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxy(target: int, **options: str | bool) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a server while the block lasts."""
    between = Proxy(target, **options)  # type: ignore[arg-type]  # the dataclass checks them
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(between.handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # A task that is cancelled before it starts does not close the connection.
        task.add_done_callback(lambda _: writer.transport.abort())

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    between.port = listener.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        listener.close()
        while tasks:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await asyncio.sleep(0)  # until the connections are closed
