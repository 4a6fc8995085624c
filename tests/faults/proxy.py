"""A TCP proxy that treats bytes badly, in the way of toxiproxy: each direction by itself, switched while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

CHUNK = 64 * 1024
STEP = 0.01
"""Seconds of a bandwidth that go out at once."""


@dataclass
class Toxics:
    """What happens to the bytes of one direction; as it is made, nothing. Times are in seconds.

    ``latency`` and ``jitter`` delay; ``bandwidth`` is in bytes a second; ``slice`` cuts into pieces of at most so many
    bytes; ``hole`` takes them and passes nothing on, with the connections left open; ``timeout`` does that, too, and
    closes the connection so long after its first byte was swallowed; ``reset`` resets it at its next byte.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    slice: int | None = None
    hole: bool = False
    timeout: float | None = None
    reset: bool = False
    match: bytes | None = None
    """``hole``, ``timeout`` and ``reset`` are only for bytes read at once that have this in them."""


@dataclass
class Proxy:
    """Listens on a port of its own for a server. ``up`` is towards that server, ``down`` back to the client."""

    host: str
    to: int
    random: Random = field(default_factory=lambda: Random(0))
    up: Toxics = field(default_factory=Toxics)
    down: Toxics = field(default_factory=Toxics)
    port: int = 0
    accepts: bool = True
    """Whether connections are let in; if not, they are reset at once."""

    def __post_init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Future[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def through(self, url: str) -> str:
        """A URL of the server, by way of this proxy."""
        return url.replace(f":{self.to}", f":{self.port}", 1)

    def heal(self) -> None:
        """Treats bytes well again."""
        self.up, self.down, self.accepts = Toxics(), Toxics(), True

    def cut(self) -> None:
        """Resets all connections."""
        for writer in list(self._open):
            _reset(writer)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open) // 2

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepts:
            _reset(writer)
            return
        try:
            back, there = await asyncio.open_connection(self.host, self.to, limit=CHUNK)
        except OSError:
            _reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._open |= {writer, there}
        try:
            ways = [self._pass(reader, there, "up"), self._pass(back, writer, "down")]
            _, rest = await asyncio.wait(map(asyncio.ensure_future, ways), return_when=asyncio.FIRST_COMPLETED)
            for way in rest:
                way.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
        finally:
            self._open -= {writer, there}
            writer.close()
            there.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                toxics: Toxics = getattr(self, way)
                if toxics.match is None or toxics.match in data:
                    if toxics.reset:
                        _reset(writer)
                        return
                    if toxics.timeout is not None:
                        await asyncio.sleep(toxics.timeout)
                        return
                    if toxics.hole:
                        continue
                if toxics.latency or toxics.jitter:
                    await asyncio.sleep(toxics.latency + self.random.uniform(0, toxics.jitter))
                step = toxics.slice or int((toxics.bandwidth or 0) * STEP) or len(data)
                for start in range(0, len(data), step):
                    piece = data[start : start + step]
                    await asyncio.sleep(len(piece) / toxics.bandwidth if toxics.bandwidth else 0)
                    writer.write(piece)
                    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Without lingering, the system sends RST instead of FIN.
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
