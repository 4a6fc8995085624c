"""Where requests come from: pages of this server, those of others that are let in, and sites that must not be."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from realtime.api.requests import PROXIED, header_of, host_of, path_of
from realtime.settings import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class SameOrigin:
    """Middleware that refuses requests (403) that a page must not make a browser send.

    - Writes and WebSockets of pages of another origin.
    - Reads of such pages, which cannot see the answer, but can measure how long it takes. Following a link is allowed.
    - Reads that a page embeds, such as an image in a note whose address is ``/changes``: they would run with the rights
      of whoever looks at the page.

    A browser says where the page is from (``Sec-Fetch-Site``) and what it wants the answer for (``Sec-Fetch-Dest``), an
    old one at least the origin; no page can change that. Other programs send none of these headers and are not touched.

    A proxy may drop the port from ``Host`` (``proxy_set_header Host $host`` in nginx). With ``any_port``, the ports are
    then not compared.
    """

    def __init__(self, app: ASGIApp, others: frozenset[str], *, any_port: bool) -> None:
        self._app = app
        self._others = others
        self._any_port = any_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on unless a page must not make it."""
        detail = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if detail is not None:
            refusal = JSONResponse({"detail": detail}, 403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """Return why a request is refused, or ``None``."""
        if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
            purpose = header_of(scope, b"sec-fetch-dest")
            if purpose is None or purpose == "document" or _may_be_embedded(scope):
                return None
            if purpose not in ("", "empty"):
                return EMBEDDED.format(purpose if purpose.isalnum() else "something else")
        if header_of(scope, b"origin") in self._others or self._from_here(scope):
            return None
        return FOREIGN

    def _from_here(self, scope: Scope) -> bool:
        """Whether a page of this origin sent it, or none did."""
        site, origin = header_of(scope, b"sec-fetch-site"), header_of(scope, b"origin")
        if site is not None:
            return site in ("same-origin", "none")
        if origin is None:
            return True
        # Not taken apart as an address: it may be anything, and only one is ours.
        named, host = origin.partition("://")[2], host_of(scope)
        return named == host or (self._any_port and PROXIED in scope and PORT.sub("", named) == host)


FOREIGN = (
    "Requests from this origin are not allowed. Behind a proxy, pass on the Host header or send X-Forwarded-Host."
    " To allow other origins, set REALTIME_ORIGINS"
)
EMBEDDED = (
    "The browser requested this address to embed it in a page (Sec-Fetch-Dest: {}). The API answers only to fetch, to"
    " EventSource and to links that are followed"
)
EMBEDDABLE = {"assets", "files", "icon.svg"}
"""First parts of the paths of what pages may embed."""
HEALTH = {"ping", "healthz", "readyz"}
"""First parts of the paths that tell nothing about notes."""
PORT = re.compile(r":[0-9]+$")


def _may_be_embedded(scope: Scope) -> bool:
    first = path_of(scope).lstrip("/").partition("/")[0]
    return first in EMBEDDABLE or first in HEALTH


class KnownHost:
    """Refuses requests to a name that a stranger can have made to lead here, or that others could reach at all (421).

    A page of that name would count as ours (DNS rebinding), and read and write whatever everyone may. Names without a
    dot and addresses can be nobody's on the internet; ``others`` are origins whose hosts are known. What others can
    reach ``realtime serve`` does not even bind, but ``fastapi run`` does, to every address.

    Requests that a proxy passes on are refused, too, whatever their name: others can reach the proxy, and its default
    ``Host`` may be that of this machine.
    """

    def __init__(self, app: ASGIApp, others: frozenset[str]) -> None:
        self._app = app
        self._others = {urlsplit(origin).netloc for origin in others}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is for a known name."""
        if scope["type"] in ("http", "websocket"):
            forwarded = proxy_header_of(scope)
            if forwarded is not None:
                await JSONResponse({"detail": THROUGH_PROXY.format(forwarded)}, 421)(scope, receive, send)
                return
            # Check every forwarded host: after DNS rebinding a page could send X-Forwarded-Host itself.
            given = [header_of(scope, b"host") or "", *(header_of(scope, b"x-forwarded-host") or "").split(",")]
            hosts = [host.strip() for host in given if host.strip() not in self._others]
            address = (scope.get("server") or ("",))[0]
            if any(map(_is_public, hosts)) or _is_reachable(address):
                refusal = JSONResponse({"detail": UNKNOWN_HOST}, 421)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def proxy_header_of(scope: Scope) -> str | None:
    """Return the name of a header that says that a proxy passed the request on."""
    for name, _ in scope["headers"]:
        if name in PROXY_HEADERS or name.startswith(b"x-forwarded-"):
            text: str = name.decode("latin-1").title()
            return text
    return None


PROXY_HEADERS = {b"forwarded", b"x-real-ip", b"via"}
THROUGH_PROXY = (
    "Without accounts this server does not answer requests that come through a proxy (this one has the header {}):"
    " set REALTIME_AUTH=accounts to have people sign in, or REALTIME_ALLOW_PUBLIC=true if everyone who reaches"
    " the proxy may"
    " read and write all notes"
)
UNKNOWN_HOST = (
    "Without accounts this server answers to this machine, and to its names only:"
    " REALTIME_ORIGINS names others, REALTIME_ALLOW_PUBLIC allows all, REALTIME_AUTH=accounts has people sign in"
)


@lru_cache(1024)
def _is_public(host: str) -> bool:
    """Whether a host, with its port, is a name on the internet."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if "." in name and not is_loopback(name):
            ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


@lru_cache(1024)
def _is_reachable(address: str) -> bool:
    """Whether an address that a connection came to is one that other machines can reach."""
    try:
        place = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket
        return False
    return not (getattr(place, "ipv4_mapped", None) or place).is_loopback


class AllowedOrigins(CORSMiddleware):
    """Lets pages of other origins, each named exactly, see what they are answered."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("Authorization", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID"),
            expose_headers=("ETag", "Link", "Location", "Retry-After", "X-Cursor", "X-Incomplete", "X-Total-Count"),
        )
