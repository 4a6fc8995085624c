"""Middleware for parts of HTTP semantics (RFC 9110) that neither uvicorn nor FastAPI implement."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from realtime.api.middleware.origins import SAFE_METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]

LISTS = {
    b"accept": b", ",
    b"accept-encoding": b", ",
    b"cookie": b"; ",
    b"if-match": b", ",
    b"if-none-match": b", ",
    b"x-forwarded-host": b", ",
}
"""List-valued headers that may occur on several lines, with the separator that joins them (section 5.3)."""
ENCODED = "Content-Encoding {} is not supported. Send the body uncompressed"


class HeadAnswered(OSError):
    """Raised in the application to stop a streaming response after its ``HEAD`` request was answered.

    It is an ``OSError``, like the error for a disconnected client, because streaming responses stop at that.
    """


class HttpSemantics:
    """Middleware that handles ``HEAD`` requests, joins repeated header lines, and rejects encoded bodies (415)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on in the form that the routes expect, or reject it."""
        if scope["type"] in ("http", "websocket"):
            scope["headers"] = join_repeated_headers(scope["headers"])
        if scope["type"] == "http":
            if scope["method"] == "HEAD":
                await self._head(scope, send)
                return
            encoding = None if scope["method"] in SAFE_METHODS else _encoding_of(scope["headers"])
            if encoding is not None:
                response = JSONResponse({"detail": ENCODED.format(encoding)}, 415, {"Accept-Encoding": "identity"})
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _head(self, scope: Scope, send: Send) -> None:
        """Respond as to a ``GET`` request, without the body. A streamed body is not generated."""
        answered = asyncio.Event()
        received = False

        async def receive() -> Message:
            nonlocal received
            if received:
                await answered.wait()
                return {"type": "http.disconnect"}
            received = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.set()
            elif message.get("more_body", False):
                raise HeadAnswered

        try:
            await self._app({**scope, "method": "GET"}, receive, send_head)
        except (HeadAnswered, ClientDisconnect):
            if not answered.is_set():
                raise


def join_repeated_headers(headers: Sequence[Header]) -> Sequence[Header]:
    """Return the headers with the lines of each list-valued header joined into one."""
    names = [name for name, _ in headers if name in LISTS]
    if len(names) == len(set(names)):
        return headers
    lists = [(name, separator.join(_lines(headers, name))) for name, separator in LISTS.items() if name in names]
    return [*(header for header in headers if header[0] not in LISTS), *lists]


def _lines(headers: Iterable[Header], header: bytes) -> Iterable[bytes]:
    return (value for name, value in headers if name == header)


def _encoding_of(headers: Iterable[Header]) -> str | None:
    """Return the ``Content-Encoding`` of a body, or ``None`` if it is not encoded."""
    encoding = b", ".join(_lines(headers, b"content-encoding")).decode("latin-1").strip()
    return None if encoding.lower() in ("", "identity") else encoding[:100]
