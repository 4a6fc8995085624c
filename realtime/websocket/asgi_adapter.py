"""Ways out to a WebSocket client that never wait: its connection itself, or a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from realtime.core.frames import FrameBatch
    from realtime.core.transport import ConnectionHandler
    from realtime.websocket.connection import WebSocketConnection

DIRECT = "realtime.direct"
"""The extension of a WebSocket's scope under which this program's server leaves the connection to a session."""


class AsgiAdapter:
    """An outlet under any other server: messages wait in a queue, and ``run`` sends them."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._queue: deque[Sequence[bytes]] = deque()
        self._due = asyncio.Event()
        self.buffered = 0

    def send(self, packet: FrameBatch, limit: int) -> bool:
        """Queues messages, unless more than ``limit`` bytes wait."""
        if self.buffered > limit:
            return False
        self._queue.append(packet.messages)
        self.buffered += sum(map(len, packet.messages))
        self._due.set()
        return True

    def probe(self) -> None:
        """Do nothing: the other server pings its clients."""

    async def run(self) -> None:
        """Sends what is queued until the client is gone."""
        try:
            while True:
                await self._due.wait()
                while self._queue:
                    for message in self._queue.popleft():
                        await self._socket.send_bytes(message)
                        self.buffered -= len(message)
                self._due.clear()
        except (WebSocketDisconnect, OSError, RuntimeError):
            return


class Direct(Protocol):
    """A WebSocket of this program's own server."""

    connection: WebSocketConnection

    def take_over(self, listener: ConnectionHandler) -> None:
        """Leaves the connection to a listener."""


def direct(socket: WebSocket) -> Direct | None:
    """What leaves the connection of a socket to a session; ``None`` under any other server."""
    extensions: dict[str, Any] = socket.scope.get("extensions") or {}
    return extensions.get(DIRECT)
