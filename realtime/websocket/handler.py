"""A client on a connection that was taken over: no task, but while something that it sent takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from realtime.core.close_codes import CLOSE_REASONS, CloseCode
from realtime.core.transport import ConnectionHandler
from realtime.core.turns import SLICE_SECONDS
from realtime.websocket.connection import RECONNECT_DELAY

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from realtime.websocket.connection import WebSocketConnection

log = logging.getLogger(__name__)

MOST = 16
"""Messages that may wait while more are read."""
SMALL = 4096
"""Bytes that may."""


class Handler(ConnectionHandler, ABC):
    """Takes what a client sends, one message after the other, in the order in which it came."""

    __slots__ = ("_bytes", "_task", "_waiting", "connection")

    expected: tuple[type[Exception], ...]
    """What taking a message may raise: the end of the connection."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self._waiting: deque[str | bytes] | None = None
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def handle(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a message; what cannot be done at once is returned, to be awaited before the next one."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Closes the connection, and says why."""

    @abstractmethod
    def left(self) -> None:
        """The client is gone."""

    def received(self, message: str | bytes) -> None:
        """A message came."""
        if self._task is None:
            try:
                work = self.handle(message)
            except self.expected as error:
                self.failed(error)
                return
            if work is not None:
                self.wait_for(work)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(message)
        self._bytes += len(message)
        if len(self._waiting) > MOST or self._bytes > SMALL:
            self.connection.hold(True)

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Does this before the next message is taken."""
        self._task = asyncio.get_running_loop().create_task(self._run(work))
        self._task.add_done_callback(lambda _: work.close())  # cancelled at once, it was never begun

    async def _run(self, work: Coroutine[Any, Any, None] | None) -> None:
        until = time.monotonic() + SLICE_SECONDS
        try:
            while True:
                if work is not None:
                    await work
                if not self._waiting or self.connection.closing:
                    break
                if time.monotonic() > until:
                    await asyncio.sleep(0)
                    until = time.monotonic() + SLICE_SECONDS
                message = self._waiting.popleft()
                self._bytes -= len(message)
                work = self.handle(message)
        except self.expected as error:
            self.failed(error)
        except BaseException as error:
            self.connection.transport.abort()
            if isinstance(error, asyncio.CancelledError):
                raise
            log.exception("a WebSocket failed")
        else:
            self._waiting = self._task = None
            self._bytes = 0
            self.connection.hold(False)

    def lost(self) -> None:
        """The connection is gone."""
        if self._task is not None:
            self._task.cancel()
        self.left()


WITHIN = 1.0
REPEATED = {CloseCode.BAD_FRAME, CloseCode.TOO_BIG, CloseCode.TOO_MANY}
"""Close codes of errors that a client is likely to repeat after reconnecting."""


def delay_of(code: CloseCode) -> float:
    """Return the delay in seconds before closing a connection to a room."""
    return RECONNECT_DELAY if code in REPEATED else 0


async def close(socket: WebSocket, code: CloseCode, last: str | None = None, reason: str | None = None) -> None:
    """Closes a socket, with a text message before it if there is one to send."""
    if socket.client_state is not WebSocketState.CONNECTED:
        return
    # A client that takes nothing would hold this up for ever; the server then drops the connection.
    with contextlib.suppress(WebSocketDisconnect, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(WITHIN):
            if last is not None:
                await socket.send_text(last)
            await socket.close(code, reason or CLOSE_REASONS[code])
