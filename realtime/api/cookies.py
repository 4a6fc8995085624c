"""Cookies: the session, share links, and known devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection, cookie_parser

from realtime.api.requests import header_of, scheme_of
from realtime.auth.devices import DEVICE_SECONDS, same_device

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope


HOST_COOKIE = "__Host-realtime"
"""The session cookie over HTTPS. Because of the prefix, only this exact host can set it (RFC 6265bis)."""
PLAIN_COOKIE = "realtime"
"""The session cookie without HTTPS, on the local machine."""
LINKS_SUFFIX = "-links"
"""The suffix of the cookie with the tokens of share links."""
MAX_LINKS = 50
DEVICES_SUFFIX = "-device"
"""The suffix of the cookie with device tokens. Signing out keeps it."""
MAX_DEVICES = 8
"""Maximum number of users whose device tokens a browser keeps."""
COOKIE_SECONDS = 90 * 24 * 3600


def cookie_of(scope: Scope) -> str | None:
    """Return the session secret from the cookie of a request."""
    header = header_of(scope, b"cookie")
    return None if header is None else cookie_parser(header).get(_cookie_name(scope)) or None


def links_of(scope: Scope) -> list[str]:
    """Return the tokens of the share links that were opened in a browser."""
    return _tokens_of(scope, LINKS_SUFFIX, MAX_LINKS)


def add_link(response: Response, connection: HTTPConnection, token: str) -> None:
    """Add the token of a share link to the cookie."""
    others = [other for other in links_of(connection.scope) if other != token]
    _set(response, connection, LINKS_SUFFIX, ".".join([*others, token][-MAX_LINKS:]), COOKIE_SECONDS)


def drop_links(response: Response, connection: HTTPConnection) -> None:
    """Delete the cookie with share links."""
    _delete(response, connection, LINKS_SUFFIX)


def devices_of(scope: Scope) -> list[str]:
    """Return the device tokens of a browser, one for each user who signed in there."""
    return _tokens_of(scope, DEVICES_SUFFIX, MAX_DEVICES)


def add_device(response: Response, connection: HTTPConnection, token: str) -> None:
    """Add a device token to the cookie, replacing the earlier token of the same user."""
    others = [other for other in devices_of(connection.scope) if not same_device(other, token)]
    _set(response, connection, DEVICES_SUFFIX, ".".join([*others, token][-MAX_DEVICES:]), DEVICE_SECONDS)


def _tokens_of(scope: Scope, suffix: str, limit: int) -> list[str]:
    header = header_of(scope, b"cookie")
    value = None if header is None else cookie_parser(header).get(_cookie_name(scope) + suffix)
    return value.split(".")[-limit:] if value else []


def _set(response: Response, connection: HTTPConnection, suffix: str, value: str, seconds: int) -> None:
    scope = connection.scope
    secure = scheme_of(scope) == "https"
    response.set_cookie(
        _cookie_name(scope) + suffix, value, max_age=seconds, secure=secure, httponly=True, samesite="lax"
    )


def _delete(response: Response, connection: HTTPConnection, suffix: str) -> None:
    scope = connection.scope
    secure = scheme_of(scope) == "https"
    response.delete_cookie(_cookie_name(scope) + suffix, secure=secure, httponly=True, samesite="lax")


def _cookie_name(scope: Scope) -> str:
    return HOST_COOKIE if scheme_of(scope) == "https" else PLAIN_COOKIE


def set_cookie(response: Response, connection: HTTPConnection, secret: str | None) -> None:
    """Set the session cookie, or delete it if ``secret`` is ``None``."""
    if secret is None:
        _delete(response, connection, "")
    else:
        _set(response, connection, "", secret, COOKIE_SECONDS)
