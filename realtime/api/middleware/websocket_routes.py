"""Middleware that takes WebSockets straight to their routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Match, WebSocketRoute

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class WebSocketRoutes:
    """Middleware that takes WebSockets straight to their routes: what comes around a request's answer is not theirs."""

    def __init__(self, app: ASGIApp, routes: Iterable[WebSocketRoute]) -> None:
        self._app = app
        self._routes = tuple(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is no WebSocket; one for none of them is refused."""
        if scope["type"] == "websocket":
            for route in self._routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await route.app(scope, receive, send)
                    return
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        await self._app(scope, receive, send)
