"""Authentication middleware: find out who sends a request, from a cookie or a token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from realtime.api.access_records import record_token_use
from realtime.api.cookies import cookie_of, links_of
from realtime.api.error_handlers import refusal
from realtime.api.requests import VIEWER, first_part, header_of, host_of, path_of, scheme_of
from realtime.auth.authenticator import with_links
from realtime.auth.open_connections import OCCUPANT
from realtime.auth.permissions import ANONYMOUS
from realtime.errors import NotSignedIn, Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from realtime.auth.authenticator import Authenticator
    from realtime.auth.open_connections import OpenConnection
    from realtime.auth.permissions import Principal


BEARER = "bearer "
FOR_ALL = {
    "", "n", "new", "deleted", "account", "people", "invite", "assets", "icon.svg",
    "docs", "redoc", "openapi.json", "asyncapi.json", "ping", "healthz", ".well-known",
}  # fmt: skip
"""First parts of the paths that are the same for everyone, and answer without MongoDB."""
OPERATIONS = {"readyz", "metrics"}
"""First parts of the paths that tell more to administrators, and answer without MongoDB, too."""
WITHOUT_MONGODB = FOR_ALL | OPERATIONS


class AuthenticationMiddleware:
    """Puts the :class:`Principal` of each request and WebSocket into its scope.

    A token that is wrong, expired or revoked is refused at once; a cookie that is counts as none. On a WebSocket a
    cookie counts only if the page that opened it is of this server, or of one of ``others``: browsers send it always.
    """

    def __init__(self, app: ASGIApp, others: frozenset[str]) -> None:
        self._app = app
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with its viewer."""
        if scope["type"] in ("http", "websocket") and (first_part(path_of(scope)) not in FOR_ALL or _is_surplus(scope)):
            try:
                address = scope["client"][0] if scope.get("client") else None
                principal = replace(await self._principal(scope, address), address=address)
                scope[VIEWER] = principal
                record_token_use(scope["app"].state.parts, principal)
            except (NotSignedIn, Unavailable) as error:
                if first_part(path_of(scope)) not in OPERATIONS or not isinstance(error, Unavailable):
                    await refusal(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _principal(self, scope: Scope, address: str | None) -> Principal:
        authenticator: Authenticator = scope["app"].state.parts.authenticator
        authorization = header_of(scope, b"authorization") or ""
        if authorization.lower().startswith(BEARER):
            principal = await authenticator.of_token(authorization[len(BEARER) :].strip(), address)
            if principal is None:
                raise NotSignedIn("The token is wrong, or has expired or been revoked")
            return principal
        if scope["type"] == "websocket" and not self._trusted(scope):
            return ANONYMOUS
        secret = cookie_of(scope)
        principal = None if secret is None else await authenticator.of_secret(secret, address)
        return with_links(principal or ANONYMOUS, links_of(scope))

    def _trusted(self, scope: Scope) -> bool:
        origin = header_of(scope, b"origin")
        return origin in self._others or origin == f"{scheme_of(scope)}://{host_of(scope)}"


def _is_surplus(scope: Scope) -> bool:
    """Return whether the connection of a request is beyond a limit, and only of use to signed-in users."""
    occupant: OpenConnection | None = scope.get(OCCUPANT)
    return occupant is not None and occupant.surplus
