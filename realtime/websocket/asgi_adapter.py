"""Adapts the WebSockets of any ASGI server to the interface of this package's own connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.core.frames import TEXT, framed, unframed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from realtime.core.frames import FrameBatch
    from realtime.core.transport import ConnectionHandler, HandledConnection

DIRECT_EXTENSION = "realtime.direct"
"""Name of the ASGI scope extension with which this package's server offers its connections for direct use."""
CLOSE_TIMEOUT_SECONDS = 1.0
"""Time that a closing connection waits for the client to read queued messages before it is dropped."""


class AcceptedSocket(Protocol):
    """An accepted WebSocket that a handler can take over."""

    @property
    def connection(self) -> HandledConnection:
        """The connection of the client."""

    def attach(self, handler: ConnectionHandler) -> AbstractAsyncContextManager[None]:
        """Pass the connection to a handler, which the caller starts in the ``async with`` block.

        On exit, wait until the application may return. On this package's server that is immediate; on others it is
        when the client has disconnected.
        """


def accepted_socket(socket: WebSocket) -> AcceptedSocket:
    """Return the server's own connection for an accepted WebSocket, or an adapter on any other server."""
    extensions: dict[str, Any] = socket.scope.get("extensions") or {}
    return extensions.get(DIRECT_EXTENSION) or AsgiConnection(socket)


class AsgiConnection:
    """A WebSocket of any ASGI server. Written data is queued, and a task sends it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._handler: ConnectionHandler
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._pending_close: tuple[int, str, float] | None = None
        self.buffered = 0
        self.full = False

    @property
    def connection(self) -> AsgiConnection:
        """This object: the adapter is the connection."""
        return self

    @property
    def closing(self) -> bool:
        """Whether the connection is being closed. Messages from the client are then ignored."""
        return self._pending_close is not None

    @asynccontextmanager
    async def attach(self, handler: ConnectionHandler) -> AsyncGenerator[None]:
        """Pass the connection to a handler. On exit, wait until the client has disconnected."""
        self._handler = handler
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]
        for task in self._tasks:
            task.add_done_callback(self._on_task_done)
        try:
            yield
            await self._ended
        finally:
            self.abort()

    def write(self, data: bytes) -> None:
        """Queue encoded frames."""
        if self.closing:
            return
        self._queue.append(data)
        self.buffered += len(data)
        self._changed.set()
        if not self.full:
            self.full = True
            self._handler.full()

    def send(self, batch: FrameBatch, limit: int) -> bool:
        """Queue a batch of messages. Return false and queue nothing if more than ``limit`` bytes are queued."""
        if self.buffered > limit:
            return False
        self.write(batch.framed)
        return True

    def probe(self) -> None:
        """Do nothing: the ASGI server pings its clients."""

    def set_held(self, held: bool) -> None:
        """Pause or resume reading."""
        if held:
            self._may_read.clear()
        else:
            self._may_read.set()

    def close(self, code: int, reason: str, last: bytes | None = None, *, delay: float = 0) -> None:
        """Send the queued data and the text message ``last``, wait for ``delay`` seconds, and close the connection."""
        if self.closing:
            return
        if last is not None:
            self.write(framed(TEXT, last))
        self._pending_close = code, reason, delay
        self._changed.set()
        asyncio.get_running_loop().call_later(delay + CLOSE_TIMEOUT_SECONDS, self.abort)

    def abort(self) -> None:
        """End the connection at once. The application then returns, and the server closes the socket."""
        self._end(None)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._end(None if task.cancelled() else task.exception())

    def _end(self, error: BaseException | None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
        self._pending_close = self._pending_close or (0, "", 0)
        for task in self._tasks:
            task.cancel()
        self._handler.lost()

    async def _receive(self) -> None:
        while True:
            await self._may_read.wait()
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if not self.closing:
                self._handler.received(message["bytes"] if text is None else text)

    async def _send(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, OSError, RuntimeError):  # the client disconnected
            while True:
                await self._changed.wait()
                self._changed.clear()
                while self._queue:
                    data = self._queue.popleft()
                    for kind, message in unframed(data):
                        await (
                            self._socket.send_text(message.decode())
                            if kind == TEXT
                            else self._socket.send_bytes(message)
                        )
                    self.buffered -= len(data)
                if self._pending_close is not None:
                    code, reason, delay = self._pending_close
                    await asyncio.sleep(delay)
                    await self._socket.close(code, reason)
                    return
                self.full = False
                self._handler.writable()
