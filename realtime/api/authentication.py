"""Who sends a request: found out once, before any route, from the cookie of a browser or the token of a program."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, cookie_parser

from realtime.api.routing import VIEWER, header_of, host_of, path_of, record_token_use, refusal
from realtime.auth.authenticator import with_links
from realtime.auth.devices import DEVICE_SECONDS, same_device
from realtime.auth.open_connections import OCCUPANT
from realtime.auth.permissions import STRANGER
from realtime.errors import NotSignedIn, Unavailable
from realtime.settings import is_loopback

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from realtime.auth.authenticator import Viewers
    from realtime.auth.open_connections import Occupant
    from realtime.auth.permissions import Viewer

HOST_COOKIE = "__Host-realtime"
"""A browser takes it from this very host over https only, whatever else may set cookies (RFC 6265bis)."""
PLAIN_COOKIE = "realtime"
"""The cookie where there is no https: on the machine itself."""
LINKS = "-links"
"""The cookie of links goes by the name of the other one and this."""
MOST_LINKS = 50
DEVICES = "-device"
"""The suffix of the cookie with device tokens. Signing out leaves it."""
MAX_DEVICES = 8
"""Users of one browser whose devices are kept."""
COOKIE_SECONDS = 90 * 24 * 3600
BEARER = "bearer "
FOR_ALL = {
    "", "n", "new", "deleted", "account", "people", "invite", "assets", "icon.svg",
    "docs", "redoc", "openapi.json", "asyncapi.json", "ping", "healthz", ".well-known",
}  # fmt: skip
"""First parts of the paths that are the same for everyone, and answer without MongoDB."""
OPERATIONS = {"readyz", "metrics"}
"""First parts of the paths that tell more to administrators, and answer without MongoDB, too."""
WITHOUT_MONGODB = FOR_ALL | OPERATIONS


class SignIn:
    """Puts the :class:`Viewer` of each request and WebSocket into its scope.

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
                viewer = replace(await self._viewer(scope, address), address=address)
                scope[VIEWER] = viewer
                record_token_use(scope["app"].state.parts, viewer)
            except (NotSignedIn, Unavailable) as error:
                if first_part(path_of(scope)) not in OPERATIONS or not isinstance(error, Unavailable):
                    await refusal(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _viewer(self, scope: Scope, address: str | None) -> Viewer:
        viewers: Viewers = scope["app"].state.parts.viewers
        authorization = header_of(scope, b"authorization") or ""
        if authorization.lower().startswith(BEARER):
            viewer = await viewers.of_token(authorization[len(BEARER) :].strip(), address)
            if viewer is None:
                raise NotSignedIn("The token is wrong, or has expired or been revoked")
            return viewer
        if scope["type"] == "websocket" and not self._trusted(scope):
            return STRANGER
        secret = cookie_of(scope)
        viewer = None if secret is None else await viewers.of_secret(secret, address)
        return with_links(viewer or STRANGER, links_of(scope))

    def _trusted(self, scope: Scope) -> bool:
        origin = header_of(scope, b"origin")
        return origin in self._others or origin == f"{_scheme(scope)}://{host_of(scope)}"


def first_part(path: str) -> str:
    """Return the first part of a path."""
    return path.lstrip("/").partition("/")[0]


def _is_surplus(scope: Scope) -> bool:
    """Return whether the connection of a request is beyond a limit, and only of use to signed-in users."""
    occupant: Occupant | None = scope.get(OCCUPANT)
    return occupant is not None and occupant.surplus


def _scheme(scope: Scope) -> str:
    return "https" if scope["scheme"] in ("https", "wss") else "http"


def cookie_of(scope: Scope) -> str | None:
    """The secret in the cookie of a request."""
    header = header_of(scope, b"cookie")
    return None if header is None else cookie_parser(header).get(_cookie(scope)) or None


def links_of(scope: Scope) -> list[str]:
    """The tokens of the links that a browser was given."""
    return _tokens_of(scope, LINKS, MOST_LINKS)


def add_link(response: Response, connection: HTTPConnection, token: str) -> None:
    """Gives a browser the token of a link, beside those that it has."""
    others = [one for one in links_of(connection.scope) if one != token]
    _set(response, connection, LINKS, ".".join([*others, token][-MOST_LINKS:]), COOKIE_SECONDS)


def drop_links(response: Response, connection: HTTPConnection) -> None:
    """Take all links away from a browser."""
    _delete(response, connection, LINKS)


def devices_of(scope: Scope) -> list[str]:
    """Return the device tokens that a browser has, one for each user who signed in there."""
    return _tokens_of(scope, DEVICES, MAX_DEVICES)


def add_device(response: Response, connection: HTTPConnection, token: str) -> None:
    """Give a browser a device token, in the place of the earlier token of the device."""
    others = [one for one in devices_of(connection.scope) if not same_device(one, token)]
    _set(response, connection, DEVICES, ".".join([*others, token][-MAX_DEVICES:]), DEVICE_SECONDS)


def _tokens_of(scope: Scope, suffix: str, limit: int) -> list[str]:
    header = header_of(scope, b"cookie")
    value = None if header is None else cookie_parser(header).get(_cookie(scope) + suffix)
    return value.split(".")[-limit:] if value else []


def _set(response: Response, connection: HTTPConnection, suffix: str, value: str, seconds: int) -> None:
    scope = connection.scope
    secure = _scheme(scope) == "https"
    response.set_cookie(_cookie(scope) + suffix, value, max_age=seconds, secure=secure, httponly=True, samesite="lax")


def _delete(response: Response, connection: HTTPConnection, suffix: str) -> None:
    scope = connection.scope
    secure = _scheme(scope) == "https"
    response.delete_cookie(_cookie(scope) + suffix, secure=secure, httponly=True, samesite="lax")


def _cookie(scope: Scope) -> str:
    return HOST_COOKIE if _scheme(scope) == "https" else PLAIN_COOKIE


def set_cookie(response: Response, connection: HTTPConnection, secret: str | None) -> None:
    """Gives a browser the secret of its session, or takes it away."""
    if secret is None:
        _delete(response, connection, "")
    else:
        _set(response, connection, "", secret, COOKIE_SECONDS)


def may_sign_in(connection: HTTPConnection) -> bool:
    """Whether a browser can be given a session without others on its way reading it."""
    try:
        host = urlsplit(f"//{host_of(connection.scope)}").hostname or ""
    except ValueError:  # it may be anything
        host = ""
    return _scheme(connection.scope) == "https" or is_loopback(host)
