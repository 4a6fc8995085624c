"""Middleware that applies connection limits to requests.

:class:`ConnectLimit` limits how many WebSockets and event streams start per second. :class:`Admission` applies the
limits of :mod:`realtime.auth.open_connections` once the client of a TCP connection is known. Connection slots are
acquired later, by the routes (:mod:`realtime.api.connection_slots`).
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response

from realtime.api.error_handlers import response_for
from realtime.api.requests import caller_of, path_of, principal_of
from realtime.auth.open_connections import OPEN_CONNECTION
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from realtime.auth.open_connections import OpenConnection


MAX_BUCKETS = 10_000
"""Maximum number of clients whose rate is tracked."""
HEALTH = {"/ping", "/healthz", "/readyz"}
"""Paths without a limit, because otherwise an orchestrator would restart a busy process."""
MAX_RETRY_JITTER_SECONDS = 4.0
"""Maximum random delay, so that rejected clients do not all reconnect at once."""


class ConnectLimit:
    """Middleware that limits new WebSockets and event streams per second, and rejects others with 503.

    Otherwise, many clients that reconnect at once would delay the connected clients. A single user, or a single network
    without sign-in, can use only part of the limit.

    Args:
        app: The application.
        per_second: The limit for all clients.
        per_client: The limit for one user or network.
        guests: The limit for all clients without sign-in.
    """

    def __init__(self, app: ASGIApp, per_second: int, per_client: int, guests: int) -> None:
        self._app = app
        self._all = RateBucket(per_second)
        self._guests = RateBucket(guests)
        self._per_client = per_client
        self._clients: dict[str, RateBucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it is within the limits, or reject it."""
        if (scope["type"] == "websocket" or is_event_stream(scope)) and not self._acquire(
            caller_of(HTTPConnection(scope))
        ):
            await response_for(Unavailable("Too many clients are connecting. Try again"))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _acquire(self, client: str) -> bool:
        if len(self._clients) >= MAX_BUCKETS:
            self._clients = {key: bucket for key, bucket in self._clients.items() if not bucket.is_full()}
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = RateBucket(self._per_client)
        is_guest = not client.startswith("@")
        return bucket.acquire() and (not is_guest or self._guests.acquire()) and self._all.acquire()


class RateBucket:
    """A token bucket with a capacity of one second."""

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        self._tokens = float(per_second)
        self._refilled = time.monotonic()

    def acquire(self) -> bool:
        """Take a token and return ``True``, or return ``False`` if there is none."""
        if self._refill() < 1:
            return False
        self._tokens -= 1
        return True

    def is_full(self) -> bool:
        """Return whether the bucket is full."""
        return self._refill() >= self._rate

    def _refill(self) -> float:
        now = time.monotonic()
        self._tokens = min(self._rate, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        return self._tokens


class Admission:
    """Middleware that counts each TCP connection for the client that sends requests on it.

    It rejects a client with too many connections with 503. It also rejects a client without sign-in if only the
    connections that are reserved for signed-in users remain. See :mod:`realtime.auth.open_connections`.

    It has no effect with ASGI servers other than ``realtime serve``, which do not count connections.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its client is within the limits, or reject it."""
        open_connection: OpenConnection | None = scope.get(OPEN_CONNECTION)
        if open_connection is not None and path_of(scope).rstrip("/") not in HEALTH:
            try:
                open_connection.identify(scope, principal_of(HTTPConnection(scope)).name)
            except Unavailable as error:
                response = response_for(error)
                response.headers["Connection"] = "close"
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_event_stream(scope: Scope) -> bool:
    """Return whether a request is for the Server-Sent Events of the feed."""
    return scope["type"] == "http" and path_of(scope).rstrip("/") == "/events"


class StreamRetry:
    """Middleware that replaces a 429 or 503 response of the event stream with a stream of one ``retry:`` field.

    A browser's ``EventSource`` does not reconnect after any status but 200 (HTML standard, section 9.2.3). The delay is
    random, so that clients do not all reconnect at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and replace a temporary rejection."""
        if not is_event_stream(scope):
            await self._app(scope, receive, send)
            return
        replaced = False

        async def send_retry(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] in (429, 503):
                replaced = True
                original = Headers(raw=message["headers"])
                seconds = float(original.get("retry-after", "1")) + random.random() * MAX_RETRY_JITTER_SECONDS
                kept = {name: value for name, value in original.items() if name.startswith(("access-control-", "vary"))}
                headers = {**kept, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
                stream = Response(f"retry: {seconds * 1000:.0f}\n\n", 200, headers, "text/event-stream")
                await stream(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, send_retry)
