"""Reverse proxies: the client address, scheme, host and path prefix of a request."""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import TYPE_CHECKING, Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from realtime.api.requests import FORWARDED_HOST, PROXIED, header_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORWARDED = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"}
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class ProxyHeaders:
    """Middleware that takes a client's address, scheme and host from the headers of trusted proxies.

    Uvicorn's middleware handles ``X-Forwarded-For`` and a single ``X-Forwarded-Proto``. This one adds
    ``X-Forwarded-Host`` and the lists of values that chains of proxies make, of which the first value counts.
    """

    def __init__(self, app: ASGIApp, proxies: str) -> None:
        self._app = app
        uvicorns: Any = ProxyHeadersMiddleware  # it has types of its own for ASGI
        self._forwarded_for = uvicorns(self._forwarded, proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as the client made it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # The headers first: most requests have none of them, and an address takes longer to look up.
        forwarded = any(name in FORWARDED for name, _ in scope["headers"])
        address = scope["client"][0] if scope.get("client") else None
        if not forwarded or address not in self._forwarded_for.trusted_hosts:
            await self._app(scope, receive, send)
            return
        await self._forwarded_for(scope, receive, send)

    async def _forwarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROXIED] = True
        host = _first(header_of(scope, b"x-forwarded-host"))
        if host:
            scope[FORWARDED_HOST] = host
        scheme = SCHEMES.get(_first(header_of(scope, b"x-forwarded-proto")).lower())
        if scheme is not None:
            scope["scheme"] = scheme if scope["type"] == "http" else scheme.replace("http", "ws")
        await self._app(scope, receive, send)


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()


def trusted_hosts(proxies: str) -> Container[str]:
    """Return the addresses of the proxies whose headers are trusted."""
    uvicorns: Any = ProxyHeadersMiddleware  # it has types of its own for ASGI
    hosts: Container[str] = uvicorns(None, proxies).trusted_hosts
    return hosts


class RootPath:
    """Middleware for an application served under a path prefix, whether or not the proxy strips the prefix.

    Requests get the prefix as their ``root_path``; ``Location`` and ``Link`` headers get it before their paths.
    """

    def __init__(self, app: ASGIApp, root_path: str, first_segments: Collection[str]) -> None:
        self._app = app
        self._prefix = root_path
        self._first_segments = frozenset(first_segments)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its root path."""
        prefix = self._prefix or scope.get("root_path", "")  # the setting, or what another server was told
        if not prefix or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["path"] = prefix + self._own(prefix, scope)
        scope["root_path"] = prefix

        async def prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [_below(prefix.encode(), *header) for header in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, prefixed)

    def _own(self, prefix: str, scope: Scope) -> str:
        """Return the path below the prefix.

        The prefix can equal one of the application's own paths (``/notes``). Then the next segment decides whether the
        prefix is still there; for the bare prefix, the ``Accept`` header decides.
        """
        path: str = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path != prefix and not path.startswith(prefix + "/"):
            return path
        rest = path.removeprefix(prefix) or "/"
        first = rest.split("/")[1]
        if first:
            return rest if first in self._first_segments else path
        conflict = prefix.split("/")[1] in self._first_segments
        return path if conflict and "text/html" not in (header_of(scope, b"accept") or "") else rest


def _below(prefix: bytes, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name == b"location" and value.startswith(b"/"):
        return name, prefix + value
    if name == b"link" and value.startswith(b"</"):
        return name, b"<" + prefix + value[1:]
    return name, value
