"""Properties of a request: its principal, address, headers, host, path and scheme."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from realtime.auth.permissions import key_of
from realtime.core.networks import network_of
from realtime.settings import is_loopback

if TYPE_CHECKING:
    from starlette.types import Scope

    from realtime.auth.permissions import Principal


HEALTH_SEGMENTS = {"ping", "healthz", "readyz"}
"""First segments of paths that reveal nothing about notes. They have no limit, because otherwise an orchestrator would
restart a busy process."""
PRINCIPAL = "realtime.principal"
"""Scope key: the authenticated caller."""
HEADERS = "realtime.headers"
"""Scope key: the headers by name."""
FORWARDED_HOST = "realtime.forwarded_host"
"""Scope key: the host that the client requested from a trusted proxy."""
PROXIED = "realtime.proxied"
"""Scope key: present if the request came through a trusted proxy."""


def principal_of(connection: HTTPConnection) -> Principal:
    """Return the caller of a request or WebSocket."""
    principal: Principal = connection.scope.get(PRINCIPAL, connection.app.state.anyone)
    return principal


def address_of(connection: HTTPConnection) -> str:
    """Return the client's address, or an empty string if it is not known."""
    return connection.client.host if connection.client else ""


def caller_of(connection: HTTPConnection, principal: Principal | None = None) -> str:
    """Return the key under which rate limits count a caller: ``@name`` for a user, otherwise its network."""
    name = (principal or principal_of(connection)).name
    if name is not None:
        return key_of(name)
    return network_of(address_of(connection))


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers of a request by name, in lower case. Of repeated headers, it contains the first one."""
    headers: dict[bytes, bytes] | None = scope.get(HEADERS)
    if headers is None:
        headers = scope[HEADERS] = dict(reversed(scope["headers"]))
    return headers


def header_of(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header, or ``None``. The name is in lower case."""
    value = headers_of(scope).get(name)
    return None if value is None else value.decode("latin-1")


def qualities_of(header: str) -> dict[str, float]:
    """Return the items of an ``Accept`` or similar header with their quality values (RFC 9110, section 12.4.2)."""
    qualities: dict[str, float] = {}
    for part in "".join(header.lower().split()).split(","):
        item, *parameters = part.split(";")
        matches = (re.fullmatch(r"q=([01](?:\.[0-9]*)?)", parameter) for parameter in parameters)
        quality = next((float(match[1]) for match in matches if match), 1.0)
        qualities[item] = max(quality, qualities.get(item, 0.0))
    return qualities


def host_of(scope: Scope) -> str:
    """Return the host that the client requested, with the port if there is one."""
    forwarded: str | None = scope.get(FORWARDED_HOST)
    return forwarded or header_of(scope, b"host") or ""


def path_of(scope: Scope) -> str:
    """Return the path of a request below the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def first_segment(path: str) -> str:
    """Return the first segment of a path."""
    return path.lstrip("/").partition("/")[0]


def scheme_of(scope: Scope) -> str:
    """Return ``http`` or ``https``, including for WebSockets."""
    return "https" if scope["scheme"] in ("https", "wss") else "http"


def is_secure_connection(connection: HTTPConnection) -> bool:
    """Return whether a connection is safe for passwords: over HTTPS, or from this machine."""
    try:
        host = urlsplit(f"//{host_of(connection.scope)}").hostname or ""
    except ValueError:  # the header may contain anything
        host = ""
    return scheme_of(connection.scope) == "https" or is_loopback(host)
