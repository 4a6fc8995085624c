"""Base class of handlers, each of which serves a client on a connection that was taken over from ASGI.

A handler has no task, except while the processing of a message is awaited.
"""

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
from realtime.websocket.connection import RECONNECT_DELAY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from realtime.core.transport import HandledConnection

log = logging.getLogger(__name__)

MAX_WAITING_MESSAGES = 16
"""Number of waiting messages above which reading is paused."""
MAX_WAITING_BYTES = 4096
"""Total size of waiting messages above which reading is paused."""


class Handler(ConnectionHandler, ABC):
    """Processes the messages of one client, one at a time and in the order of arrival."""

    __slots__ = ("_task", "_waiting", "_waiting_bytes", "connection")

    expected: tuple[type[Exception], ...]
    """Exceptions from :meth:`handle` that close the connection."""

    def __init__(self, connection: HandledConnection) -> None:
        self.connection = connection
        self._waiting: deque[str | bytes] | None = None
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def handle(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Process a message. Return a coroutine to await before the next message, or ``None`` if it is done."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Close the connection because of an error."""

    @abstractmethod
    def released(self) -> None:
        """Release all resources of the client. Called once, when the connection is lost."""

    def received(self, message: str | bytes) -> None:
        """Process a message, or queue it while an earlier one is awaited."""
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
        self._waiting_bytes += len(message)
        if len(self._waiting) > MAX_WAITING_MESSAGES or self._waiting_bytes > MAX_WAITING_BYTES:
            self.connection.set_held(True)

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Await a coroutine before the next message is processed."""
        self._task = asyncio.get_running_loop().create_task(self._run(work))
        self._task.add_done_callback(
            lambda _: work.close()
        )  # a task that is cancelled before it runs does not start it

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
                self._waiting_bytes -= len(message)
                work = self.handle(message)
        except self.expected as error:
            self.failed(error)
        except BaseException as error:
            self.connection.abort()
            if isinstance(error, asyncio.CancelledError):
                raise
            log.exception("a WebSocket failed")
        else:
            self._waiting = self._task = None
            self._waiting_bytes = 0
            self.connection.set_held(False)

    def lost(self) -> None:
        """Cancel the message that is awaited, and release the client."""
        if self._task is not None:
            self._task.cancel()
        self.released()


CLOSE_TIMEOUT_SECONDS = 1.0
REPEATABLE_ERRORS = {CloseCode.BAD_FRAME, CloseCode.TOO_BIG, CloseCode.TOO_MANY}
"""Close codes of errors that a client is likely to repeat after reconnecting."""


def close_delay(code: CloseCode) -> float:
    """Return the delay in seconds before closing a connection to a room."""
    return RECONNECT_DELAY_SECONDS if code in REPEATABLE_ERRORS else 0


async def close(socket: WebSocket, code: CloseCode, last: str | None = None, reason: str | None = None) -> None:
    """Close a WebSocket, after sending the text message ``last`` if it is given."""
    if socket.client_state is not WebSocketState.CONNECTED:
        return
    # A client that does not read would block this indefinitely. The server then drops the connection.
    with contextlib.suppress(WebSocketDisconnect, OSError, TimeoutError, RuntimeError):
        async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
            if last is not None:
                await socket.send_text(last)
            await socket.close(code, reason or CLOSE_REASONS[code])
