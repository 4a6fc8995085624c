"""Middleware that checks requests before they reach their routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Match, WebSocketRoute

from realtime.api.middleware.origins import SAFE_METHODS
from realtime.api.requests import header_of

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

Check = Callable[["Scope"], Awaitable["Response | None"]]
"""Returns the response that rejects an HTTP request or WebSocket, or ``None``."""

ENCODED = "Content-Encoding {} is not supported. Send the body uncompressed"


class RequestChecks:
    """Middleware that runs checks in order, and rejects a request at the first one that fails.

    It passes WebSockets directly to their routes, without FastAPI's wrappers for responses.

    Args:
        app: The application.
        checks: The checks, in order.
        websocket_routes: The routes of WebSockets.
    """

    def __init__(self, app: ASGIApp, checks: Iterable[Check], websocket_routes: Iterable[WebSocketRoute]) -> None:
        self._app = app
        self._checks = tuple(checks)
        self._websocket_routes = tuple(websocket_routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or reject it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        for check in self._checks:
            response = await check(scope)
            if response is not None:
                await response(scope, receive, send)
                return
        app = self._app if scope["type"] == "http" else self._websocket_app(scope)
        await app(scope, receive, send)

    def _websocket_app(self, scope: Scope) -> ASGIApp:
        for route in self._websocket_routes:
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                scope.update(child_scope)
                return route.app
        return JSONResponse({"detail": "Not Found"}, 404)


async def check_encoding(scope: Scope) -> Response | None:
    """Reject an encoded body with 415."""
    if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
        encoding = (header_of(scope, b"content-encoding") or "").strip()
        if encoding.lower() not in ("", "identity"):
            detail = ENCODED.format(encoding[:100])
            return JSONResponse({"detail": detail}, 415, {"Accept-Encoding": "identity"})
    return None
