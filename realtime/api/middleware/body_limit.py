"""Middleware that limits request bodies: their size, their rate, and one import at a time per caller."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from realtime.api.error_handlers import response_for
from realtime.api.middleware.origins import SAFE_METHODS
from realtime.api.requests import caller_of, header_of, headers_of, path_of, principal_of
from realtime.auth.permissions import check_author
from realtime.errors import RealtimeError, TooManyRequests

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


BODY_TIMEOUT_SECONDS = 10.0
"""Maximum time to wait for more of a body. Received bytes extend it at the rates below."""
BYTES_PER_SECOND = 1024
LARGE_BYTES_PER_SECOND = 8 * 1024
"""The rate for large bodies, which are stored while they arrive."""
BODY_HEADERS = {b"content-length", b"transfer-encoding"}
"""Headers of requests with a body."""


class BodyLimit:
    """Middleware that rejects request bodies that are too large (413) or arrive too slowly (408).

    The size is checked against ``Content-Length`` and counted while the body arrives. Bodies for the paths in
    ``overrides`` are read only from callers who may create notes, and one at a time per caller.

    Args:
        app: The application.
        limit: The maximum size in bytes.
        overrides: Paths with a different maximum size.
    """

    def __init__(self, app: ASGIApp, limit: int, overrides: Mapping[str, int]) -> None:
        self._app = app
        self._limit = limit
        self._overrides = overrides
        self._uploading: set[str] = set()
        """The keys of callers that are sending a large body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a limited body, or reject it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] in SAFE_METHODS and headers_of(scope).keys().isdisjoint(BODY_HEADERS):
            await self._app(scope, receive, send)
            return
        path = path_of(scope).rstrip("/")
        if path not in self._overrides or scope["method"] in SAFE_METHODS:
            await self._limited(scope, receive, send, self._limit, BYTES_PER_SECOND)
            return
        connection = HTTPConnection(scope)
        caller = caller_of(connection)
        try:
            check_author(principal_of(connection))
            if caller in self._uploading:
                raise TooManyRequests(1.0, "Another import of yours is running. Try again when it has finished")
        except RealtimeError as error:
            await response_for(error)(scope, receive, send)
            return
        self._uploading.add(caller)
        try:
            await self._limited(scope, receive, send, self._overrides[path], LARGE_BYTES_PER_SECOND)
        finally:
            self._uploading.discard(caller)

    async def _limited(self, scope: Scope, receive: Receive, send: Send, limit: int, rate: float) -> None:
        too_large = HTTPException(413, f"The body must be at most {limit} bytes")
        too_slow = HTTPException(408, "The request body arrived too slowly")
        announced = header_of(scope, b"content-length") or "0"
        if announced.isdigit() and int(announced) > limit:
            await JSONResponse({"detail": too_large.detail}, 413)(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        size, budget, complete = 0, BODY_TIMEOUT_SECONDS, False

        async def receive_limited() -> Message:
            nonlocal size, budget, complete
            if complete:  # only a disconnect can follow, at any time
                return await receive()
            started = clock()
            try:
                async with asyncio.timeout_at(started + budget):
                    message = await receive()
            except TimeoutError:
                raise too_slow from None
            arrived = len(message.get("body", b""))
            budget = min(BODY_TIMEOUT_SECONDS, budget - (clock() - started) + arrived / rate)
            size += arrived
            complete = not message.get("more_body", False)
            if size > limit:
                raise too_large
            return message

        await self._app(scope, receive_limited, send)
