"""The cookies of browsers: session, links, known devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection, cookie_parser

from realtime.api.requests import header_of, scheme_of
from realtime.auth.devices import DEVICE_SECONDS, same_device

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope


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
    secure = scheme_of(scope) == "https"
    response.set_cookie(_cookie(scope) + suffix, value, max_age=seconds, secure=secure, httponly=True, samesite="lax")


def _delete(response: Response, connection: HTTPConnection, suffix: str) -> None:
    scope = connection.scope
    secure = scheme_of(scope) == "https"
    response.delete_cookie(_cookie(scope) + suffix, secure=secure, httponly=True, samesite="lax")


def _cookie(scope: Scope) -> str:
    return HOST_COOKIE if scheme_of(scope) == "https" else PLAIN_COOKIE


def set_cookie(response: Response, connection: HTTPConnection, secret: str | None) -> None:
    """Gives a browser the secret of its session, or takes it away."""
    if secret is None:
        _delete(response, connection, "")
    else:
        _set(response, connection, "", secret, COOKIE_SECONDS)
