"""Routes for the feed over HTTP: Server-Sent Events, long polling, and the AsyncAPI document."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Annotated

from fastapi import Header, Query, Request, Response
from pydantic import Field
from starlette.responses import JSONResponse

from realtime.api.connection_slots import acquire_slot
from realtime.api.feed_connection import serve
from realtime.api.requests import principal_of
from realtime.api.responses import InvalidRequest, error_response
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.feed.asyncapi import asyncapi
from realtime.feed.query import FeedQuery
from realtime.feed.subscriber import Subscriber

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from realtime.auth.permissions import Principal
    from realtime.core.frames import Frame


router = SlashRouter(tags=["feed"])


@router.get(
    "/asyncapi.json",
    summary="Read the AsyncAPI description of the feed",
    response_class=JSONResponse,
    responses={200: {"content": {"application/json": {"example": {"asyncapi": "3.0.0"}}}}},
)
async def description() -> Response:
    """Return an AsyncAPI 3 document that describes the channel and every message, with schemas and examples."""
    return JSONResponse(asyncapi())


LAST_CHUNK_TIMEOUT_SECONDS = 1.0
"""Maximum time for sending the end of a stream."""


class EventStream(Response):
    """Streams the feed as Server-Sent Events. The data of each event is a frame, and its id is the frame's cursor."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, query: FeedQuery, principal: Principal) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        services = services_of(request)
        self._request = request
        self._feed = services.feed
        self._connection_slots = services.connection_slots
        self._clients = services.metrics.clients["sse"]
        self._query = query
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client disconnects or the server closes the stream. Browsers reconnect and resume."""
        if self._feed.draining:
            response = JSONResponse({"detail": "The server is stopping. Try again"}, 503, {"Retry-After": "1"})
            await response(scope, receive, send)
            return
        slot = await acquire_slot(self._request, self._principal)
        client = self._feed.join(self._query, self._principal)
        self._clients.inc()
        try:
            await serve(client, self._write(client, send), self._listen(receive))
        finally:
            self._feed.leave(client)
            self._connection_slots.release(slot)
            self._clients.dec()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LAST_CHUNK_TIMEOUT_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, client: Subscriber, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
        async with contextlib.aclosing(self._feed.stream(client, self._query.cursor)) as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": _sse(frame), "more_body": True})

    @staticmethod
    async def _listen(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


def _sse(frame: Frame) -> bytes:
    id = f"id: {frame.cursor}\n".encode() if frame.cursor else b""
    return id + b"data: " + frame.data + b"\n\n"


INVALID_QUERY = error_response(
    "The query is invalid; `detail` is a list of errors with their locations",
    [{"type": "string_pattern_mismatch", "loc": ["query", "notes"], "msg": "String should match pattern '…'"}],
    InvalidRequest,
)
TOO_MANY = error_response(
    "The user, or the network without sign-in, has too many open connections; retry after `Retry-After` seconds",
    "Too many requests. Try again later",
)
FEED_UNAVAILABLE = error_response(
    "The feed is not available, or the server is stopping; retry after `Retry-After` seconds",
    "The server is stopping. Try again",
)
DELETED = {"type": "note.deleted", "cursor": "c2c16b7c2e32:17", "id": 1, "version": 4}
STREAMED = f"retry: 1000\n\nid: c2c16b7c2e32:17\ndata: {json.dumps(DELETED)}\n\n"
CHANGED = {"cursor": "c2c16b7c2e32:17", "reset": False, "changes": [DELETED]}


LastEventId = Annotated[
    str | None, Header(max_length=64, description="cursor to resume from, like `since`; browsers send it")
]


@router.get(
    "/events",
    response_class=Response,
    summary="Stream the feed as Server-Sent Events",
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": STREAMED}}},
        422: INVALID_QUERY,
    },
)
async def events(request: Request, query: Annotated[FeedQuery, Query()], last_event_id: LastEventId = None) -> Response:
    """Stream the same frames as `/ws`, each as the data of one event. The event's id is the cursor of the frame.

    If the server is stopping or too many clients are connecting, the stream contains only a `retry:` field with a delay
    in milliseconds. A browser's `EventSource` reconnects after that delay. It would not reconnect after a status other
    than 200.
    """
    if last_event_id is not None:
        query = query.model_copy(update={"since": last_event_id})
    return EventStream(request, query, principal_of(request))


class Poll(FeedQuery):
    """The query parameters of a long poll."""

    limit: Annotated[int, Field(ge=1, le=1000, description="maximum number of changes in one response")] = 100
    timeout: Annotated[float, Field(ge=0, le=60, description="maximum time to wait for a change, in seconds")] = 25.0


CHANGES_SCHEMA = {
    "type": "object",
    "required": ["cursor", "reset", "changes"],
    "properties": {
        "cursor": {"type": "string", "description": "the cursor to send as `since` with the next request"},
        "reset": {
            "type": "boolean",
            "description": "whether the changes since the cursor are no longer available: fetch the notes again",
        },
        "changes": {"type": "array", "items": {"type": "object"}},
    },
}


@router.get(
    "/changes",
    summary="Poll for changes",
    responses={
        200: {"content": {"application/json": {"schema": CHANGES_SCHEMA, "example": CHANGED}}},
        422: INVALID_QUERY,
        429: TOO_MANY,
        503: FEED_UNAVAILABLE,
    },
)
async def changes(request: Request, query: Annotated[Poll, Query()]) -> Response:
    """Return the latest event of each note that changed since a cursor; without `since`, the current cursor."""
    services, principal = services_of(request), principal_of(request)
    slot = await acquire_slot(request, principal)
    try:
        response = await services.feed.poll(query, principal, query.limit, query.timeout)
    finally:
        services.connection_slots.release(slot)
    return Response(response, media_type="application/json", headers={"Cache-Control": "no-store"})
