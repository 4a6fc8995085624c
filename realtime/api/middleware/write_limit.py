"""The limit on writes per second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from realtime.api.error_handlers import refusal
from realtime.api.middleware.origins import SAFE_METHODS
from realtime.api.requests import caller_of
from realtime.api.services import services_of
from realtime.errors import TooManyRequests

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from realtime.auth.rate_limit import RateRule


class WriteLimit:
    """Refuses writes of whoever sends too many (429): a user, or an address if nobody is signed in."""

    def __init__(self, app: ASGIApp, rule: RateRule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is within the limit."""
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            limits = services_of(HTTPConnection(scope)).limits
            assert limits is not None
            try:
                await limits.acquire(self._rule, caller_of(HTTPConnection(scope)))
            except TooManyRequests as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
