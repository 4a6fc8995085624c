"""A client on a connection that was taken over: no task, but while something that it sent takes its time."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from realtime.core.frames import Listener
from realtime.core.turns import SLICE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from realtime.websocket.connection import Connection

log = logging.getLogger(__name__)

MOST = 16
"""Messages that may wait while more are read."""
SMALL = 4096
"""Bytes that may."""


class Session(Listener, ABC):
    """Takes what a client sends, one message after the other, in the order in which it came."""

    __slots__ = ("_bytes", "_task", "_waiting", "connection")

    expected: tuple[type[Exception], ...]
    """What taking a message may raise: the end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._waiting: deque[str | bytes] | None = None
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    def take(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
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
                work = self.take(message)
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
                work = self.take(message)
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
