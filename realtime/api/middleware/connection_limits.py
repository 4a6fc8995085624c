"""Limits on connections: how many begin per second, and how many one client has."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response

from realtime.api.error_handlers import refusal
from realtime.api.requests import caller_of, path_of, principal_of
from realtime.auth.open_connections import OCCUPANT
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from realtime.auth.open_connections import OpenConnection


MAX_BUCKETS = 10_000
"""Clients whose rate is known at the same time."""
HEALTH = {"/ping", "/healthz", "/readyz"}
"""Paths that are answered as long as there is a connection at all: the process would be restarted otherwise."""
SPREAD = 4.0
"""Random extra delay in seconds, so that refused clients do not all reconnect at once."""


class ConnectLimit:
    """Middleware that limits how many WebSockets and event streams begin per second, and answers 503 to more.

    Clients that all reconnect at once would otherwise delay those that are connected. One user, or one network without
    sign-in, gets a part of the limit only, so that it cannot use up that of the others.

    Args:
        app: The application.
        per_second: WebSockets and event streams that may begin per second.
        per_client: Those of one user or network among them.
        guests: Those of all clients without sign-in among them.
    """

    def __init__(self, app: ASGIApp, per_second: int, per_client: int, guests: int) -> None:
        self._app = app
        self._all = RateBucket(per_second)
        self._guests = RateBucket(guests)
        self._per_client = per_client
        self._clients: dict[str, RateBucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it is within the limits."""
        if (scope["type"] == "websocket" or is_event_stream(scope)) and not self._take(
            caller_of(HTTPConnection(scope))
        ):
            await refusal(Unavailable("Too many connect at once, try again"))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _take(self, client: str) -> bool:
        if len(self._clients) >= MAX_BUCKETS:
            self._clients = {key: bucket for key, bucket in self._clients.items() if not bucket.is_full()}
        bucket = self._clients.get(client)
        if bucket is None:
            bucket = self._clients[client] = RateBucket(self._per_client)
        is_guest = not client.startswith("@")
        return bucket.take() and (not is_guest or self._guests.take()) and self._all.take()


class RateBucket:
    """Allows a number of things per second; unused ones are kept for one second."""

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        self._left = float(per_second)
        self._counted = time.monotonic()

    def take(self) -> bool:
        """Return whether one more is allowed, and count it if so."""
        if self._refill() < 1:
            return False
        self._left -= 1
        return True

    def is_full(self) -> bool:
        """Return whether nothing was taken for a second."""
        return self._refill() >= self._rate

    def _refill(self) -> float:
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._counted) * self._rate)
        self._counted = now
        return self._left


class Admission:
    """Middleware that counts each connection for the client that sends requests on it.

    A client with too many connections, or one without sign-in while the reserve for signed-in users is touched, is
    answered with 503. See :mod:`realtime.auth.open_connections`. Servers other than ``realtime serve`` do not count
    connections.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if there is room for its connection."""
        occupant: OpenConnection | None = scope.get(OCCUPANT)
        if occupant is not None and path_of(scope).rstrip("/") not in HEALTH:
            try:
                occupant.identify(scope, principal_of(HTTPConnection(scope)).name)
            except Unavailable as error:
                answer = refusal(error)
                answer.headers["Connection"] = "close"
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_event_stream(scope: Scope) -> bool:
    """Return whether a request is for the feed as Server-Sent Events."""
    return scope["type"] == "http" and path_of(scope).rstrip("/") == "/events"


class StreamRetry:
    """Middleware that replaces 429 and 503 answers of the event stream by a stream with only a ``retry:`` delay.

    A browser's ``EventSource`` does not reconnect after any status but 200 (HTML standard, section 9.2.3). The delay is
    random, so that clients do not all reconnect at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and replace a refusal that is not final."""
        if not is_event_stream(scope):
            await self._app(scope, receive, send)
            return
        replaced = False

        async def retrying(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] in (429, 503):
                replaced = True
                refused = Headers(raw=message["headers"])
                seconds = float(refused.get("retry-after", "1")) + random.random() * SPREAD
                kept = {name: value for name, value in refused.items() if name.startswith(("access-control-", "vary"))}
                headers = {**kept, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
                stream = Response(f"retry: {seconds * 1000:.0f}\n\n", 200, headers, "text/event-stream")
                await stream(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, retrying)
