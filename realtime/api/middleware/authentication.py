"""Authentication of requests by a session cookie or a bearer token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from realtime.api.access_records import record_token_use
from realtime.api.cookies import cookie_of, links_of
from realtime.api.error_handlers import response_for
from realtime.api.requests import PRINCIPAL, first_segment, header_of, host_of, path_of, scheme_of
from realtime.auth.authenticator import with_links
from realtime.auth.open_connections import OPEN_CONNECTION
from realtime.auth.permissions import ANONYMOUS
from realtime.errors import NotSignedIn, Unavailable

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from realtime.auth.authenticator import Authenticator
    from realtime.auth.open_connections import OpenConnection
    from realtime.auth.permissions import Principal


BEARER = "bearer "
PUBLIC_SEGMENTS = {
    "", "n", "new", "deleted", "account", "people", "invite", "assets", "icon.svg",
    "docs", "redoc", "openapi.json", "asyncapi.json", "ping", "healthz", ".well-known",
}  # fmt: skip
"""First segments of paths that need no authentication and no MongoDB."""
OPERATIONS_SEGMENTS = {"readyz", "metrics"}
"""First segments of paths that work without MongoDB, and show more to administrators."""
WITHOUT_MONGODB = PUBLIC_SEGMENTS | OPERATIONS_SEGMENTS
"""First segments of paths that work without MongoDB."""


class Authentication:
    """Puts the :class:`Principal` of each request and WebSocket into its scope.

    A wrong, expired or revoked token is rejected with 401, but a cookie with such a session is ignored. The cookie of a
    WebSocket is used only if the page has the origin of this server or an allowed one, because browsers send the cookie
    with requests from any page.

    Args:
        origins: Other origins that are allowed.
    """

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    async def __call__(self, scope: Scope) -> Response | None:
        """Set the principal of a request, or return the response that rejects it."""
        segment = first_segment(path_of(scope))
        if segment not in PUBLIC_SEGMENTS or _is_surplus(scope):
            try:
                address = scope["client"][0] if scope.get("client") else None
                principal = replace(await self._principal(scope, address), address=address)
                scope[PRINCIPAL] = principal
                record_token_use(scope["app"].state.services, principal)
            except (NotSignedIn, Unavailable) as error:
                if segment not in OPERATIONS_SEGMENTS or not isinstance(error, Unavailable):
                    return response_for(error)
        return None

    async def _principal(self, scope: Scope, address: str | None) -> Principal:
        authenticator: Authenticator = scope["app"].state.services.authenticator
        authorization = header_of(scope, b"authorization") or ""
        if authorization.lower().startswith(BEARER):
            principal = await authenticator.of_token(authorization[len(BEARER) :].strip(), address)
            if principal is None:
                raise NotSignedIn("The token is invalid, expired or revoked")
            return principal
        if scope["type"] == "websocket" and not self._has_allowed_origin(scope):
            return ANONYMOUS
        secret = cookie_of(scope)
        principal = None if secret is None else await authenticator.of_secret(secret, address)
        return with_links(principal or ANONYMOUS, links_of(scope))

    def _has_allowed_origin(self, scope: Scope) -> bool:
        origin = header_of(scope, b"origin")
        return origin in self._origins or origin == f"{scheme_of(scope)}://{host_of(scope)}"


def _is_surplus(scope: Scope) -> bool:
    """Return whether the connection is above a limit, so that only signed-in users can use it."""
    open_connection: OpenConnection | None = scope.get(OPEN_CONNECTION)
    return open_connection is not None and open_connection.surplus
