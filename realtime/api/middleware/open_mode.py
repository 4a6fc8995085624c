"""Open mode, without accounts, for the people of one machine only: what a server in it refuses to serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.api.error_handlers import refusal
from realtime.api.middleware.authentication import WITHOUT_MONGODB
from realtime.api.requests import first_part, path_of
from realtime.auth.open_mode import OpenModeCheck
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class OpenModeGate:
    """Middleware that answers 503 unless the database is known to have no accounts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, if it may be served."""
        if scope["type"] in ("http", "websocket"):
            open_mode: OpenModeCheck = scope["app"].state.parts.open_mode
            if open_mode.has_accounts is not False and first_part(path_of(scope)) not in WITHOUT_MONGODB:
                try:
                    await open_mode.check()
                except Unavailable as error:
                    await refusal(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)
