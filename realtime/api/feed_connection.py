"""Runs one connection to the feed until the client disconnects or the server closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.websockets import WebSocketDisconnect

from realtime.core.close_codes import CloseCode
from realtime.errors import BusUnavailable, Unavailable
from realtime.feed.subscriber import Subscriber, SubscriberClosed


class FeedClosed(Exception):
    """Raised to close a connection with a code and a detail, by default for an invalid frame."""

    def __init__(self, detail: str, code: CloseCode = CloseCode.BAD_FRAME) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code


async def serve(
    client: Subscriber, write: Coroutine[Any, Any, None], read: Coroutine[Any, Any, None]
) -> FeedClosed | None:
    """Write and read until one of them ends or the server closes the client.

    Args:
        client: The subscriber.
        write: Sends frames to the client.
        read: Receives frames from the client.

    Returns:
        The close code and detail to send, or ``None`` if the client disconnected.
    """
    if client.closing.done():  # the server is stopping: send only the close frame
        write.close()
        read.close()
        return FeedClosed("", client.closing.result())
    tasks = [asyncio.create_task(write), asyncio.create_task(read)]
    try:
        ends: list[asyncio.Future[Any]] = [*tasks, client.closing]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, FeedClosed):
            return failure
        if isinstance(failure, (BusUnavailable, Unavailable)):
            return FeedClosed("", CloseCode.RESUME)
        if failure is not None and not isinstance(failure, (WebSocketDisconnect, OSError, SubscriberClosed)):
            raise failure
    return FeedClosed("", client.closing.result()) if client.closing.done() else None
