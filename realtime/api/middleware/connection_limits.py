"""Checks that apply connection limits to requests.

:class:`ConnectLimit` limits how many WebSockets and event streams start per second. :func:`check_open_connections`
applies the limits of :mod:`realtime.auth.open_connections` once the client of a TCP connection is known. Connection
slots are acquired later, by the routes (:mod:`realtime.api.connection_slots`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from realtime.api.error_handlers import response_for
from realtime.api.requests import HEALTH_SEGMENTS, caller_of, first_segment, path_of, principal_of
from realtime.auth.open_connections import OPEN_CONNECTION
from realtime.core.token_bucket import TokenBucket, TokenBuckets
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope

    from realtime.auth.open_connections import OpenConnection


class ConnectLimit:
    """Limits new WebSockets and event streams per second, and rejects others with 503.

    Otherwise, many clients that reconnect at once would delay the connected clients. A single user, or a single network
    without sign-in, can use only part of the limit.

    Args:
        per_second: The limit for all clients.
        per_client: The limit for one user or network.
        guests: The limit for all clients without sign-in.
    """

    def __init__(self, per_second: int, per_client: int, guests: int) -> None:
        now = time.monotonic()
        self._all = TokenBucket(per_second, per_second, now)
        self._guests = TokenBucket(guests, guests, now)
        self._clients = TokenBuckets(per_client, per_client)

    async def __call__(self, scope: Scope) -> Response | None:
        """Return the response that rejects a request, or ``None``."""
        if scope["type"] != "websocket" and not is_event_stream(scope):
            return None
        if self._acquire(caller_of(HTTPConnection(scope))):
            return None
        return response_for(Unavailable("Too many clients are connecting. Try again"))

    def _acquire(self, client: str) -> bool:
        now = time.monotonic()
        shared = (self._all,) if client.startswith("@") else (self._all, self._guests)
        if self._clients.remaining(client, now) < 1 or any(bucket.remaining(now) < 1 for bucket in shared):
            return False
        self._clients.consume(client, 1, now)
        for bucket in shared:
            bucket.consume(1, now)
        return True


async def check_open_connections(scope: Scope) -> Response | None:
    """Count the TCP connection of a request for its client, or reject the request with 503.

    It rejects a client with too many connections. It also rejects a client without sign-in if only the connections that
    are reserved for signed-in users remain. See :mod:`realtime.auth.open_connections`.

    It has no effect with ASGI servers other than ``realtime serve``, which do not count connections.
    """
    open_connection: OpenConnection | None = scope.get(OPEN_CONNECTION)
    if open_connection is not None and first_segment(path_of(scope)) not in HEALTH_SEGMENTS:
        try:
            open_connection.identify(scope, principal_of(HTTPConnection(scope)).name)
        except Unavailable as error:
            response = response_for(error)
            response.headers["Connection"] = "close"
            return response
    return None


def is_event_stream(scope: Scope) -> bool:
    """Return whether a request is for the Server-Sent Events of the feed."""
    return scope["type"] == "http" and path_of(scope).rstrip("/") == "/events"
