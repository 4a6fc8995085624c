"""Middleware for the addressing of requests: client address, scheme, host, path prefix, and repeated headers."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from typing import TYPE_CHECKING, Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from realtime.api.requests import FORWARDED_HOST, PROXIED, header_of, headers_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

FORWARDED = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"}
SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
LISTS = {
    b"accept": b", ",
    b"accept-encoding": b", ",
    b"content-encoding": b", ",
    b"cookie": b"; ",
    b"if-match": b", ",
    b"if-none-match": b", ",
    b"x-forwarded-host": b", ",
}
"""List-valued headers that may occur on several lines, with the separator that joins them (section 5.3)."""


class Addressing:
    """Middleware that sets a client's address, and the scheme, host and root path that the client used.

    Requests through trusted proxies get them from the headers of the proxy. Uvicorn's middleware handles
    ``X-Forwarded-For`` and a single ``X-Forwarded-Proto``. This one adds ``X-Forwarded-Host``, and uses the first value
    of the lists that chains of proxies send.

    Under a path prefix, requests get the prefix as their ``root_path``, whether or not the proxy strips it, and
    ``Location`` and ``Link`` headers get it before their paths.

    Args:
        app: The application.
        proxies: The addresses of trusted proxies, as in uvicorn's ``forwarded_allow_ips``.
        root_path: The path prefix, or an empty string.
        first_segments: The first segments of the application's own paths.
    """

    def __init__(self, app: ASGIApp, proxies: str, root_path: str = "", first_segments: Collection[str] = ()) -> None:
        self._app = app
        uvicorns: Any = ProxyHeadersMiddleware  # uvicorn has its own ASGI types
        self._forwarded_for = uvicorns(self._forwarded, proxies)
        self._prefix = root_path
        self._first_segments = frozenset(first_segments)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the address, scheme, host and path that the client used."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scope["headers"] = join_repeated_headers(scope["headers"])
        # Check the headers first, because few requests have them, and looking up an address takes longer.
        if headers_of(scope).keys().isdisjoint(FORWARDED):
            await self._prefixed(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else None
        trusted = address in self._forwarded_for.trusted_hosts
        await (self._forwarded_for if trusted else self._prefixed)(scope, receive, send)

    async def _forwarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROXIED] = True
        host = _first(header_of(scope, b"x-forwarded-host"))
        if host:
            scope[FORWARDED_HOST] = host
        scheme = SCHEMES.get(_first(header_of(scope, b"x-forwarded-proto")).lower())
        if scheme is not None:
            scope["scheme"] = scheme if scope["type"] == "http" else scheme.replace("http", "ws")
        await self._prefixed(scope, receive, send)

    async def _prefixed(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = self._prefix or scope.get("root_path", "")  # the setting, or set by another ASGI server
        if not prefix:
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


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()


def trusted_hosts(proxies: str) -> Container[str]:
    """Return the addresses of the proxies whose headers are trusted."""
    uvicorns: Any = ProxyHeadersMiddleware  # uvicorn has its own ASGI types
    hosts: Container[str] = uvicorns(None, proxies).trusted_hosts
    return hosts


def _with_prefix(prefix: bytes, name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name == b"location" and value.startswith(b"/"):
        return name, prefix + value
    if name == b"link" and value.startswith(b"</"):
        return name, b"<" + prefix + value[1:]
    return name, value


def join_repeated_headers(headers: Sequence[Header]) -> Sequence[Header]:
    """Return the headers with the lines of each list-valued header joined into one."""
    names = [name for name, _ in headers if name in LISTS]
    if len(names) == len(set(names)):
        return headers
    lists = [
        (name, separator.join(value for key, value in headers if key == name))
        for name, separator in LISTS.items()
        if name in names
    ]
    return [*(header for header in headers if header[0] not in LISTS), *lists]
