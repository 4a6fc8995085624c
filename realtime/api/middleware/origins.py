"""Checks of the origin and the host of requests: CSRF, CORS, and DNS rebinding."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from realtime.api.requests import HEALTH_SEGMENTS, PROXIED, first_segment, header_of, headers_of, host_of, path_of
from realtime.settings import is_loopback

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Scope

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class SameOrigin:
    """Rejects requests (403) that pages of other origins cause a browser to send.

    It rejects:

    - Writes and WebSockets.
    - Reads by scripts. The page cannot see the response, but can measure how long it takes. Links are allowed.
    - Reads that a page embeds, even a page of this origin, such as an image in a note with the address ``/changes``.
      They would have the rights of the user who views the page.

    Browsers state the origin of the page (``Sec-Fetch-Site``, ``Origin``) and the purpose of the request
    (``Sec-Fetch-Dest``), and pages cannot change these headers. Other programs do not send them and are not affected.

    Args:
        allowed: Other origins that are allowed.
        any_port: Whether to ignore the port behind a proxy. A proxy may drop it from ``Host``
            (``proxy_set_header Host $host`` in nginx).
    """

    def __init__(self, allowed: frozenset[str], *, any_port: bool) -> None:
        self._allowed = allowed
        self._any_port = any_port

    async def __call__(self, scope: Scope) -> Response | None:
        """Return the response that rejects a request, or ``None``."""
        detail = self._refusal(scope)
        return None if detail is None else JSONResponse({"detail": detail}, 403)

    def _refusal(self, scope: Scope) -> str | None:
        """Return the reason to reject a request, or ``None``."""
        if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
            purpose = header_of(scope, b"sec-fetch-dest")
            if purpose is None or purpose == "document" or _may_be_embedded(scope):
                return None
            if purpose not in ("", "empty"):
                return EMBEDDED.format(purpose if purpose.isalnum() else "other")
        if header_of(scope, b"origin") in self._allowed or self._is_same_origin(scope):
            return None
        return FOREIGN

    def _is_same_origin(self, scope: Scope) -> bool:
        """Return whether the request is from a page of this origin, or from no page."""
        site, origin = header_of(scope, b"sec-fetch-site"), header_of(scope, b"origin")
        if site is not None:
            return site in ("same-origin", "none")
        if origin is None:
            return True
        # Compared as text, not parsed: the header may contain anything.
        named, host = origin.partition("://")[2], host_of(scope)
        return named == host or (self._any_port and PROXIED in scope and PORT.sub("", named) == host)


FOREIGN = (
    "Requests from this origin are not allowed. Behind a proxy, pass on the Host header or send X-Forwarded-Host."
    " To allow other origins, set REALTIME_ORIGINS"
)
EMBEDDED = "This address cannot be embedded in a page (Sec-Fetch-Dest: {}). Use fetch, EventSource or a link"
EMBEDDABLE = {"assets", "files", "icon.svg"}
"""First segments of paths that pages may embed."""
PORT = re.compile(r":[0-9]+$")


def _may_be_embedded(scope: Scope) -> bool:
    first = first_segment(path_of(scope))
    return first in EMBEDDABLE or first in HEALTH_SEGMENTS


class KnownHost:
    """Rejects requests (421) for public host names, on reachable addresses, or through a proxy.

    It is used on servers without accounts, and prevents DNS rebinding: otherwise, a hostile page could point its own
    domain at this server, count as same-origin, and read and write all notes. Host names without a dot and IP addresses
    are allowed, because nobody can register them. ``realtime serve`` binds only to loopback addresses, but
    ``fastapi run`` binds to all addresses, so requests on an address that other machines can reach are also rejected.
    Requests that a proxy forwarded are rejected whatever their host is, because other machines can reach the proxy, and
    it may send the host name of this machine.

    Args:
        origins: Origins whose hosts are allowed.
    """

    def __init__(self, origins: frozenset[str]) -> None:
        self._hosts = {urlsplit(origin).netloc for origin in origins}

    async def __call__(self, scope: Scope) -> Response | None:
        """Return the response that rejects a request, or ``None``."""
        forwarded = proxy_header_of(scope)
        if forwarded is not None:
            return JSONResponse({"detail": THROUGH_PROXY.format(forwarded)}, 421)
        # Check every forwarded host: after DNS rebinding a page could send X-Forwarded-Host itself.
        values = [header_of(scope, b"host") or "", *(header_of(scope, b"x-forwarded-host") or "").split(",")]
        hosts = [host.strip() for host in values if host.strip() not in self._hosts]
        address = (scope.get("server") or ("",))[0]
        if any(map(_is_public, hosts)) or _is_reachable(address):
            return JSONResponse({"detail": UNKNOWN_HOST}, 421)
        return None


def proxy_header_of(scope: Scope) -> str | None:
    """Return the name of a header that a proxy added, or ``None``."""
    for name in headers_of(scope):
        if name in PROXY_HEADERS or name.startswith(b"x-forwarded-"):
            text: str = name.decode("latin-1").title()
            return text
    return None


PROXY_HEADERS = {b"forwarded", b"x-real-ip", b"via"}
THROUGH_PROXY = (
    "Without accounts this server rejects requests that come through a proxy (this one has the header {})."
    " Set REALTIME_AUTH=accounts to require sign-in, or REALTIME_ALLOW_PUBLIC=true to let everyone who can reach the"
    " proxy read and write all notes"
)
UNKNOWN_HOST = (
    "Without accounts this server accepts only requests from this machine, to its own host names."
    " Set REALTIME_AUTH=accounts to require sign-in, REALTIME_ORIGINS to allow other host names, or"
    " REALTIME_ALLOW_PUBLIC=true to allow all"
)


@lru_cache(1024)
def _is_public(host: str) -> bool:
    """Return whether a host, with an optional port, is a public host name."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if "." in name and not is_loopback(name):
            ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


@lru_cache(1024)
def _is_reachable(address: str) -> bool:
    """Return whether other machines can reach an address of this server."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket
        return False
    return not (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


class AllowedOrigins(CORSMiddleware):
    """CORS middleware that lets pages of the given origins read responses."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("Authorization", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID"),
            expose_headers=("ETag", "Link", "Location", "Retry-After", "X-Cursor", "X-Incomplete", "X-Total-Count"),
        )
