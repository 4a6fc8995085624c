"""Middleware that prevents a server in open mode from serving a database with accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.api.error_handlers import response_for
from realtime.api.middleware.authentication import WITHOUT_MONGODB
from realtime.api.requests import first_segment, path_of
from realtime.auth.open_mode import OpenModeCheck
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class OpenModeGate:
    """Middleware that responds with 503 unless the database is known to have no accounts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or reject it."""
        if scope["type"] in ("http", "websocket"):
            open_mode: OpenModeCheck = scope["app"].state.services.open_mode
            if open_mode.has_accounts is not False and first_segment(path_of(scope)) not in WITHOUT_MONGODB:
                try:
                    await open_mode.check()
                except Unavailable as error:
                    await response_for(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)
