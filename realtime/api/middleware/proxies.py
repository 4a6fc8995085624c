"""Middleware for reverse proxies: client address, scheme, host and path prefix."""

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
    ``X-Forwarded-Host``, and uses the first value of the lists that chains of proxies send.
    """

    def __init__(self, app: ASGIApp, proxies: str) -> None:
        self._app = app
        uvicorns: Any = ProxyHeadersMiddleware  # uvicorn has its own ASGI types
        self._forwarded_for = uvicorns(self._forwarded, proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the address, scheme and host that the client used."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Check the headers first, because few requests have them, and looking up an address takes longer.
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
    uvicorns: Any = ProxyHeadersMiddleware  # uvicorn has its own ASGI types
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
        prefix = self._prefix or scope.get("root_path", "")  # the setting, or set by another ASGI server
        if not prefix or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["path"] = prefix + self._path_below(prefix, scope)
        scope["root_path"] = prefix

        async def send_prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [_with_prefix(prefix.encode(), *header) for header in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_prefixed)

    def _path_below(self, prefix: str, scope: Scope) -> str:
        """Return the path below the prefix.

        The prefix can equal one of the application's own paths (``/notes``). The next segment then decides whether the
        proxy stripped the prefix; for the bare prefix, the ``Accept`` header decides.
        """
        path: str = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path != prefix and not path.startswith(prefix + "/"):
            return path
        remainder = path.removeprefix(prefix) or "/"
        first = remainder.split("/")[1]
        if first:
            return remainder if first in self._first_segments else path
        conflict = prefix.split("/")[1] in self._first_segments
        return path if conflict and "text/html" not in (header_of(scope, b"accept") or "") else remainder


def _with_prefix(prefix: bytes, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name == b"location" and value.startswith(b"/"):
        return name, prefix + value
    if name == b"link" and value.startswith(b"</"):
        return name, b"<" + prefix + value[1:]
    return name, value
