"""Limits on request bodies: size, rate, and one import at a time for each caller."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from realtime.api.error_handlers import refusal
from realtime.api.middleware.origins import SAFE_METHODS
from realtime.api.requests import caller_of, header_of, path_of, principal_of
from realtime.auth.permissions import check_author
from realtime.errors import RealtimeError, TooManyRequests

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


PATIENCE_SECONDS = 10.0
"""Seconds that a body may be waited for. What arrives refills them, at the rate below."""
BYTES_PER_SECOND = 1024
LARGE_BYTES_PER_SECOND = 8 * 1024
"""The same for large bodies, which are stored while they arrive."""


class BodyLimit:
    """Refuses request bodies over a size with 413: by their announced length, and counted as they arrive.

    A body that arrives too slowly is refused with 408. ``others`` are paths with a size of their own. Bodies for them
    are not read from clients that may not create notes, and only one at a time from each caller.
    """

    def __init__(self, app: ASGIApp, most: int, others: Mapping[str, int]) -> None:
        self._app = app
        self._most = most
        self._others = others
        self._callers: set[str] = set()
        """Those that are sending a large body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with its body counted, and timed while the program waits for it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = path_of(scope).rstrip("/")
        if path not in self._others or scope["method"] in SAFE_METHODS:
            await self._limited(scope, receive, send, self._most, BYTES_PER_SECOND)
            return
        connection = HTTPConnection(scope)
        caller = caller_of(connection)
        try:
            check_author(principal_of(connection))
            if caller in self._callers:
                raise TooManyRequests(1.0, "Another import of yours is running, try again when it is done")
        except RealtimeError as error:
            await refusal(error)(scope, receive, send)
            return
        self._callers.add(caller)
        try:
            await self._limited(scope, receive, send, self._others[path], LARGE_BYTES_PER_SECOND)
        finally:
            self._callers.discard(caller)

    async def _limited(self, scope: Scope, receive: Receive, send: Send, most: int, rate: float) -> None:
        large = HTTPException(413, f"The body must be at most {most} bytes")
        late = HTTPException(408, "The body came too slowly")
        announced = header_of(scope, b"content-length") or "0"
        if announced.isdigit() and int(announced) > most:
            await JSONResponse({"detail": large.detail}, 413)(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        size, patience, whole = 0, PATIENCE_SECONDS, False

        async def counted() -> Message:
            nonlocal size, patience, whole
            if whole:  # what comes now is that the client went away, whenever it does
                return await receive()
            started = clock()
            try:
                async with asyncio.timeout_at(started + patience):
                    message = await receive()
            except TimeoutError:
                raise late from None
            arrived = len(message.get("body", b""))
            patience = min(PATIENCE_SECONDS, patience - (clock() - started) + arrived / rate)
            size += arrived
            whole = not message.get("more_body", False)
            if size > most:
                raise large
            return message

        await self._app(scope, counted, send)
