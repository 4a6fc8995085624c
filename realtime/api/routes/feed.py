"""The feed over HTTP: ``/events`` (Server-Sent Events), ``/changes`` (long poll) and its description."""

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
from realtime.api.responses import problem
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
    summary="The description of the feed",
    response_class=JSONResponse,
    responses={200: {"content": {"application/json": {"example": {"asyncapi": "3.0.0"}}}}},
)
async def description() -> Response:
    """AsyncAPI 3: the channel, and every message with its schema and an example."""
    return JSONResponse(asyncapi())


LAST_CHUNK_SECONDS = 1.0
"""Time that a client has to take the end of a stream."""


class EventStream(Response):
    """The feed as Server-Sent Events: each frame is the data of one event, its cursor the id."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, wanted: FeedQuery, principal: Principal) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        parts = services_of(request)
        self._request = request
        self._feed = parts.feed
        self._places = parts.places
        self._wanted = wanted
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the client goes or is to be closed. A browser comes back by itself and resumes."""
        if self._feed.draining:
            refusal = JSONResponse({"detail": "The server is going away, come back"}, 503, {"Retry-After": "1"})
            await refusal(scope, receive, send)
            return
        place = await acquire_slot(self._request, self._principal)
        client = self._feed.join(self._wanted, self._principal)
        self._feed.metrics.clients["sse"].inc()
        try:
            await serve(client, self._write(client, send), self._listen(receive))
        finally:
            self._feed.leave(client)
            self._places.release(place)
            self._feed.metrics.clients["sse"].dec()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LAST_CHUNK_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, client: Subscriber, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
        async with contextlib.aclosing(self._feed.stream(client, self._wanted.cursor)) as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": _sse(frame), "more_body": True})

    @staticmethod
    async def _listen(receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


def _sse(frame: Frame) -> bytes:
    id = f"id: {frame.cursor}\n".encode() if frame.cursor else b""
    return id + b"data: " + frame.data + b"\n\n"


REFUSED = problem(
    "The query is not valid: what is wrong and where",
    [{"type": "string_pattern_mismatch", "loc": ["query", "notes"], "msg": "String should match pattern '…'"}],
)
TOO_MANY = problem(
    "The user, or a network without sign-in, has as many connections as may stay open; `Retry-After` tells when to try"
    " again",
    "Too many requests, try again later",
)
GOING_AWAY = problem(
    "The feed is not available, or the server is stopping; `Retry-After` tells when to try again",
    "The server is going away, come back",
)
DELETED = {"type": "note.deleted", "cursor": "c2c16b7c2e32:17", "id": 1, "version": 4}
STREAMED = f"retry: 1000\n\nid: c2c16b7c2e32:17\ndata: {json.dumps(DELETED)}\n\n"
CHANGED = {"cursor": "c2c16b7c2e32:17", "reset": False, "changes": [DELETED]}


LastEventId = Annotated[str | None, Header(max_length=64, description="resumes, as `since` does; a browser sends it")]


@router.get(
    "/events",
    response_class=Response,
    summary="The feed as Server-Sent Events",
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": STREAMED}}},
        422: REFUSED,
    },
)
async def events(
    request: Request, wanted: Annotated[FeedQuery, Query()], last_event_id: LastEventId = None
) -> Response:
    """The same frames as on `/ws`, each as the data of one event whose id is its cursor.

    If the stream cannot be served now, because the server is stopping or too many connect, it consists of a `retry:`
    field with the delay in milliseconds. A browser's `EventSource` connects again after that delay; after any status
    but 200 it would give up.
    """
    if last_event_id is not None:
        wanted = wanted.model_copy(update={"since": last_event_id})
    return EventStream(request, wanted, principal_of(request))


class Poll(FeedQuery):
    """The query of a long poll."""

    limit: Annotated[int, Field(ge=1, le=1000, description="most changes in one answer")] = 100
    timeout: Annotated[float, Field(ge=0, le=60, description="seconds to wait for a change")] = 25.0


CHANGES_SCHEMA = {
    "type": "object",
    "required": ["cursor", "reset", "changes"],
    "properties": {
        "cursor": {"type": "string", "description": "send it as `since` next time"},
        "reset": {"type": "boolean", "description": "history does not reach back: fetch the notes again"},
        "changes": {"type": "array", "items": {"type": "object"}},
    },
}


@router.get(
    "/changes",
    summary="The feed as a long poll",
    responses={
        200: {"content": {"application/json": {"schema": CHANGES_SCHEMA, "example": CHANGED}}},
        422: REFUSED,
        429: TOO_MANY,
        503: GOING_AWAY,
    },
)
async def changes(request: Request, query: Annotated[Poll, Query()]) -> Response:
    """What happened since a cursor, the latest event of each note. Without `since`: the cursor to begin with."""
    parts, principal = services_of(request), principal_of(request)
    place = await acquire_slot(request, principal)
    try:
        answer = await parts.feed.poll(query, principal, query.limit, query.timeout)
    finally:
        parts.places.release(place)
    return Response(answer, media_type="application/json", headers={"Cache-Control": "no-store"})
