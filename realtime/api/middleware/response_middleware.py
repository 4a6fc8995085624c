"""Middleware for all responses: security headers, the request log, ``HEAD`` requests, and retries of event streams."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from realtime.api.middleware.connection_limits import is_event_stream

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from realtime.metrics import Metrics

log = logging.getLogger(__name__)

HSTS = (b"strict-transport-security", b"max-age=31536000")
"""Makes browsers use only HTTPS for a year."""
MAX_RETRY_JITTER_SECONDS = 4.0
"""Maximum random delay, so that rejected clients do not all reconnect at once."""


class HeadAnswered(OSError):
    """Raised in the application to stop a streaming response after its ``HEAD`` request was answered.

    It is an ``OSError``, like the error for a disconnected client, because streaming responses stop at that.
    """


class ResponseMiddleware:
    """Middleware that completes, measures and logs responses.

    It adds ``nosniff``, ``no-referrer`` and, to JSON, a restrictive Content-Security-Policy. Bodies, query strings and
    headers are not logged.

    Args:
        app: The application.
        metrics: The metrics of requests.
        cacheable: Whether responses without ``Cache-Control`` may be cached. They must not be on a server with
            accounts, because a response may be meant for one user only.
        cross_origin: Whether pages of other origins may load responses.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, cacheable: bool, cross_origin: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        if not cross_origin:
            self._headers.append((b"cross-origin-resource-policy", b"same-origin"))
        if not cacheable:
            self._headers.append((b"cache-control", b"no-store"))
        self._json_headers = [
            *self._headers,
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. Log it when it ends, or when a handler takes over the connection of a WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, replaced = 500, False

        async def send_response(message: Message) -> None:
            nonlocal status, replaced
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
                if status in (429, 503) and is_event_stream(scope):
                    replaced = True
                    stream = retry_stream(Headers(raw=message["headers"]))
                    message = {**message, "status": 200, "headers": stream.raw_headers}
                    await send(self._completed(message, scope))
                    message = {"type": "http.response.body", "body": stream.body}
                else:
                    message = self._completed(message, scope)
            elif replaced:
                return
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.http.response.start":
                status = message["status"]
            elif kind == "websocket.close":
                status = message.get("code", 1000)
            await send(message)

        try:
            if scope["type"] == "http" and scope["method"] == "HEAD":
                await _respond_to_head(self._app, scope, send_response)
            else:
                await self._app(scope, receive, send_response)
        finally:
            self._log(scope, status, time.perf_counter() - started)

    def _completed(self, start: Message, scope: Scope) -> Message:
        """Return the start of a response with the headers that it lacks."""
        present = dict(start["headers"])
        headers = self._json_headers if present.get(b"content-type") == b"application/json" else self._headers
        missing = [header for header in headers if header[0] not in present]
        if scope["scheme"] == "https":
            missing.append(HSTS)
        return {**start, "headers": [*start["headers"], *missing]}

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope.get("method", "WEBSOCKET")
        if scope["type"] == "http":
            self._metrics.requests.labels(method, str(status)).observe(seconds)
        if log.isEnabledFor(logging.INFO):
            client = scope.get("client")
            fields = {
                "method": method,
                "path": scope["path"],
                "status": status,
                "ms": round(seconds * 1000, 1),
                "client": client[0] if client else None,
            }
            log.info("request", extra=fields)


async def _respond_to_head(app: ASGIApp, scope: Scope, send: Send) -> None:
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
        await app({**scope, "method": "GET"}, receive, send_head)
    except (HeadAnswered, ClientDisconnect):
        if not answered.is_set():
            raise


def retry_stream(rejection: Headers) -> Response:
    """Return a stream of one ``retry:`` field, which replaces a 429 or 503 response of the event stream.

    A browser's ``EventSource`` does not reconnect after any status but 200 (HTML standard, section 9.2.3). The delay is
    random, so that clients do not all reconnect at once.
    """
    seconds = float(rejection.get("retry-after", "1")) + random.random() * MAX_RETRY_JITTER_SECONDS
    kept = {name: value for name, value in rejection.items() if name.startswith(("access-control-", "vary"))}
    headers = {**kept, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(f"retry: {seconds * 1000:.0f}\n\n", 200, headers, "text/event-stream")
