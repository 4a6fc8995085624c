"""Ways out to a WebSocket client that never wait: straight into its transport, or through a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from realtime.frames import Outlet, Packet

DIRECT = "realtime.direct"
"""The extension of a WebSocket's scope under which this program's server hands out an :class:`Outlet`."""


class Queued:
    """An outlet under any other server: messages wait in a queue, and ``run`` sends them."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._queue: deque[Sequence[bytes]] = deque()
        self._due = asyncio.Event()
        self.buffered = 0

    def send(self, packet: Packet, limit: int) -> bool:
        """Queues messages, unless more than ``limit`` bytes wait."""
        if self.buffered > limit:
            return False
        self._queue.append(packet.messages)
        self.buffered += sum(map(len, packet.messages))
        self._due.set()
        return True

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


def outlet(socket: WebSocket) -> Outlet:
    """The best way out to a client."""
    extensions: dict[str, Any] = socket.scope.get("extensions") or {}
    direct: Outlet | None = extensions.get(DIRECT)
    return Queued(socket) if direct is None else direct
