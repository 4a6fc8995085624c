"""Sends messages to WebSocket clients without waiting: directly, or through a queue under other ASGI servers."""

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

DIRECT_EXTENSION = "realtime.direct"
"""Name of the ASGI scope extension with which this package's server offers its connections for direct use."""


class AsgiAdapter:
    """A message sink for other ASGI servers: messages are queued, and :meth:`run` sends them."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._queue: deque[Sequence[bytes]] = deque()
        self._has_queued = asyncio.Event()
        self.buffered = 0

    def send(self, batch: FrameBatch, limit: int) -> bool:
        """Queue a batch of messages. Return false and queue nothing if more than ``limit`` bytes are queued."""
        if self.buffered > limit:
            return False
        self._queue.append(batch.messages)
        self.buffered += sum(map(len, batch.messages))
        self._has_queued.set()
        return True

    def probe(self) -> None:
        """Do nothing: the ASGI server pings its clients."""

    async def run(self) -> None:
        """Send queued messages until the client disconnects."""
        try:
            while True:
                await self._has_queued.wait()
                while self._queue:
                    for message in self._queue.popleft():
                        await self._socket.send_bytes(message)
                        self.buffered -= len(message)
                self._has_queued.clear()
        except (WebSocketDisconnect, OSError, RuntimeError):
            return


class DirectWebSocket(Protocol):
    """A WebSocket of this package's server, whose connection can be used directly."""

    connection: WebSocketConnection

    def take_over(self, handler: ConnectionHandler) -> None:
        """Pass the connection to a handler."""


def direct_websocket(socket: WebSocket) -> DirectWebSocket | None:
    """Return the direct access to a WebSocket's connection, or ``None`` under another ASGI server."""
    extensions: dict[str, Any] = socket.scope.get("extensions") or {}
    return extensions.get(DIRECT_EXTENSION)
