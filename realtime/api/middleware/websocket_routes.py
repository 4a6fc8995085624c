"""Middleware that routes WebSockets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Match, WebSocketRoute

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class WebSocketRoutes:
    """Middleware that passes WebSockets directly to their routes, without FastAPI's wrappers for responses."""

    def __init__(self, app: ASGIApp, routes: Iterable[WebSocketRoute]) -> None:
        self._app = app
        self._routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a WebSocket to its route, or reject it; pass other requests on."""
        if scope["type"] == "websocket":
            for route in self._routes:
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    scope.update(child_scope)
                    await route.app(scope, receive, send)
                    return
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        await self._app(scope, receive, send)
