"""A check that limits writes per second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from realtime.api.error_handlers import response_for
from realtime.api.middleware.origins import SAFE_METHODS
from realtime.api.requests import caller_of
from realtime.api.services import services_of
from realtime.errors import TooManyRequests

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from realtime.auth.rate_limit import RateRule


class WriteLimit:
    """Rejects writes above a rate (429), per user, or per network without sign-in."""

    def __init__(self, rule: RateRule) -> None:
        self._rule = rule

    async def __call__(self, scope: Scope) -> Response | None:
        """Return the response that rejects a request, or ``None``."""
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            connection = HTTPConnection(scope)
            limits = services_of(connection).rate_limiter
            assert limits is not None
            try:
                await limits.acquire(self._rule, caller_of(connection))
            except TooManyRequests as error:
                return response_for(error)
        return None
