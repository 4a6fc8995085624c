"""ASGI middleware around all routes: how many requests are let in and how large, and how they are answered."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from realtime.api.middleware.origins import SAFE_METHODS
from realtime.api.routing import caller_of, header_of, parts_of, path_of, refusal, viewer_of
from realtime.auth.authorization import check_author
from realtime.auth.open_connections import OCCUPANT
from realtime.errors import RealtimeError, TooMany, Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from realtime.auth.open_connections import Occupant
    from realtime.auth.rate_limit import Rule
    from realtime.metrics import Metrics

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""Seconds that a body may be waited for. What arrives refills them, at the rate below."""
BYTES_PER_SECOND = 1024
LARGE_BYTES_PER_SECOND = 8 * 1024
"""The same for large bodies, which are stored while they arrive."""
HSTS = (b"strict-transport-security", b"max-age=31536000")
"""Has a browser that came over https once use nothing else for a year."""
MAX_BUCKETS = 10_000
"""Clients whose rate is known at the same time."""
HEALTH = {"/ping", "/healthz", "/readyz"}
"""Paths that are answered as long as there is a connection at all: the process would be restarted otherwise."""
SPREAD = 4.0
"""Random extra delay in seconds, so that refused clients do not all reconnect at once."""


class BodyLimit:
    """Refuses request bodies over a size with 413: by their announced length, and counted as they arrive.

    A body that arrives too slowly is refused with 408. ``others`` are paths with a size of their own. Bodies for them
    are not read from clients that may not create notes, and only one at a time from each caller.
    """

    def __init__(self, app: ASGIApp, most: int, others: Mapping[str, int]) -> None:
        self._app = app
        self._most = most
        self._others = others
        self._callers: set[str] = set()
        """Those that are sending a large body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on with its body counted, and timed while the program waits for it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = path_of(scope).rstrip("/")
        if path not in self._others or scope["method"] in SAFE_METHODS:
            await self._limited(scope, receive, send, self._most, BYTES_PER_SECOND)
            return
        connection = HTTPConnection(scope)
        caller = caller_of(connection)
        try:
            check_author(viewer_of(connection))
            if caller in self._callers:
                raise TooMany(1.0, "Another import of yours is running, try again when it is done")
        except RealtimeError as error:
            await refusal(error)(scope, receive, send)
            return
        self._callers.add(caller)
        try:
            await self._limited(scope, receive, send, self._others[path], LARGE_BYTES_PER_SECOND)
        finally:
            self._callers.discard(caller)

    async def _limited(self, scope: Scope, receive: Receive, send: Send, most: int, rate: float) -> None:
        large = HTTPException(413, f"The body must be at most {most} bytes")
        late = HTTPException(408, "The body came too slowly")
        announced = header_of(scope, b"content-length") or "0"
        if announced.isdigit() and int(announced) > most:
            await JSONResponse({"detail": large.detail}, 413)(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        size, patience, whole = 0, PATIENCE_SECONDS, False

        async def counted() -> Message:
            nonlocal size, patience, whole
            if whole:  # what comes now is that the client went away, whenever it does
                return await receive()
            started = clock()
            try:
                async with asyncio.timeout_at(started + patience):
                    message = await receive()
            except TimeoutError:
                raise late from None
            arrived = len(message.get("body", b""))
            patience = min(PATIENCE_SECONDS, patience - (clock() - started) + arrived / rate)
            size += arrived
            whole = not message.get("more_body", False)
            if size > most:
                raise large
            return message

        await self._app(scope, counted, send)


class SafeHeaders:
    """Has browsers take an answer for what it says it is, and tell nobody of it; a page has a policy of its own.

    Where there are accounts, nothing is ``kept`` that does not say so itself: it may be for one person only. Pages of
    other origins can load answers only if there are ``others`` that may.
    """

    def __init__(self, app: ASGIApp, *, kept: bool, others: bool) -> None:
        self._app = app
        self._all = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
        if not others:
            self._all.append((b"cross-origin-resource-policy", b"same-origin"))
        if not kept:
            self._all.append((b"cache-control", b"no-store"))
        self._json = [*self._all, (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, and adds what its answer lacks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = dict(message["headers"])
                wanted = self._json if given.get(b"content-type") == b"application/json" else self._all
                lacking = [header for header in wanted if header[0] not in given]
                if scope["scheme"] == "https":
                    lacking.append(HSTS)
                message = {**message, "headers": [*message["headers"], *lacking]}
            await send(message)

        await self._app(scope, receive, safely)


class AcceptLimit:
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
        self._all = Bucket(per_second)
        self._guests = Bucket(guests)
        self._per_client = per_client
        self._clients: dict[str, Bucket] = {}

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
            bucket = self._clients[client] = Bucket(self._per_client)
        is_guest = not client.startswith("@")
        return bucket.take() and (not is_guest or self._guests.take()) and self._all.take()


class Bucket:
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
        occupant: Occupant | None = scope.get(OCCUPANT)
        if occupant is not None and path_of(scope).rstrip("/") not in HEALTH:
            try:
                occupant.identify(scope, viewer_of(HTTPConnection(scope)).name)
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


class WriteLimit:
    """Refuses writes of whoever sends too many (429): a user, or an address if nobody is signed in."""

    def __init__(self, app: ASGIApp, rule: Rule) -> None:
        self._app = app
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is within the limit."""
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            limits = parts_of(HTTPConnection(scope)).limits
            assert limits is not None
            try:
                await limits.take(self._rule, caller_of(HTTPConnection(scope)))
            except TooMany as error:
                await refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class RequestLog:
    """Measures and logs. No bodies, no queries, no headers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Measures and logs a request when it ends; a WebSocket when it closes, or is taken over by its session."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        method = scope.get("method", "WEBSOCKET")
        status = 500

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.close":
                status = message.get("code", 1000)
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            seconds = time.perf_counter() - started
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
