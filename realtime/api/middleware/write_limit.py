"""Middleware that limits writes per second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from realtime.api.error_handlers import response_for
from realtime.api.middleware.origins import SAFE_METHODS
from realtime.api.requests import caller_of
from realtime.api.services import services_of
from realtime.errors import TooManyRequests

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from realtime.auth.rate_limit import RateRule


class WriteLimit:
    """Middleware that rejects writes above a rate (429), per user, or per network without sign-in."""

    def __init__(self, app: ASGIApp, rule: RateRule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or reject it."""
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            limits = services_of(HTTPConnection(scope)).rate_limiter
            assert limits is not None
            try:
                await limits.acquire(self._rule, caller_of(HTTPConnection(scope)))
            except TooManyRequests as error:
                await response_for(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
