"""The facts of a request: who sends it, from where, to which host and path."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from realtime.auth.permissions import key_of
from realtime.core.networks import network_of
from realtime.settings import is_loopback

if TYPE_CHECKING:
    from starlette.types import Scope

    from realtime.auth.permissions import Principal


VIEWER = "realtime.viewer"
"""Where a scope has who is behind it."""
FORWARDED_HOST = "realtime.forwarded_host"
"""Scope key: the host that the client requested from a trusted proxy."""
PROXIED = "realtime.proxied"
"""Scope key: set if the request came through a trusted proxy."""


def principal_of(connection: HTTPConnection) -> Principal:
    """Who sent this request or opened this socket."""
    principal: Principal = connection.scope.get(VIEWER, connection.app.state.anyone)
    return principal


def address_of(connection: HTTPConnection) -> str:
    """Return the address that a request came from; empty if it is not known."""
    return connection.client.host if connection.client else ""


def caller_of(connection: HTTPConnection, principal: Principal | None = None) -> str:
    """Return what the requests of one caller are counted for: a user as ``@name``, or the network of an address."""
    name = (principal or principal_of(connection)).name
    if name is not None:
        return key_of(name)
    return network_of(address_of(connection))


def header_of(scope: Scope, name: bytes) -> str | None:
    """A header of a request, by its name in lower case."""
    for given, value in scope["headers"]:
        if given == name:
            text: str = value.decode("latin-1")
            return text
    return None


def host_of(scope: Scope) -> str:
    """Return the host that the client asked for, with its port if it named one."""
    forwarded: str | None = scope.get(FORWARDED_HOST)
    return forwarded or header_of(scope, b"host") or ""


def path_of(scope: Scope) -> str:
    """Return the path of a request below the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def first_part(path: str) -> str:
    """Return the first part of a path."""
    return path.lstrip("/").partition("/")[0]


def scheme_of(scope: Scope) -> str:
    return "https" if scope["scheme"] in ("https", "wss") else "http"


def may_sign_in(connection: HTTPConnection) -> bool:
    """Whether a browser can be given a session without others on its way reading it."""
    try:
        host = urlsplit(f"//{host_of(connection.scope)}").hostname or ""
    except ValueError:  # it may be anything
        host = ""
    return scheme_of(connection.scope) == "https" or is_loopback(host)
