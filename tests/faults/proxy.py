"""A TCP proxy that injects network faults like toxiproxy, in each direction separately, configurable while it runs."""

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
"""The interval in seconds at which bytes are sent if the bandwidth is limited."""


@dataclass
class Toxics:
    """The faults in one direction, by default none. Times are in seconds.

    Attributes:
        latency: The delay of all bytes.
        jitter: The maximum additional random delay.
        bandwidth: The maximum rate in bytes per second.
        slice: The maximum size in bytes of the chunks that are forwarded.
        hole: Whether bytes are discarded while connections stay open.
        timeout: The time after the first discarded byte at which the connection is closed.
        reset: Whether the next byte resets the connection.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    slice: int | None = None
    hole: bool = False
    timeout: float | None = None
    reset: bool = False
    match: bytes | None = None
    """If set, ``hole``, ``timeout`` and ``reset`` apply only to chunks that contain it."""


@dataclass
class Proxy:
    """A proxy in front of a server. ``up`` is the direction to the server, ``down`` the direction to the client."""

    host: str
    to: int
    random: Random = field(default_factory=lambda: Random(0))
    up: Toxics = field(default_factory=Toxics)
    down: Toxics = field(default_factory=Toxics)
    port: int = 0
    accepts: bool = True
    """Whether connections are accepted. If not, they are reset at once."""

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
        """Return a URL of the server with the address of this proxy."""
        return url.replace(f":{self.to}", f":{self.port}", 1)

    def heal(self) -> None:
        """Remove all faults."""
        self.up, self.down, self.accepts = Toxics(), Toxics(), True

    def cut(self) -> None:
        """Reset all connections."""
        for writer in list(self._open):
            _reset(writer)

    @property
    def connections(self) -> int:
        """The number of connected clients."""
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
    # With a linger time of 0, the system sends RST instead of FIN.
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
