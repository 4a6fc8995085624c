"""The ways into the feed: ``/ws``, ``/events`` and ``/changes``. Each parses, subscribes and writes what comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Header, Query, Request, Response
from pydantic import Field, ValidationError
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.api.routing import SlashRouter, parts_of, problem, viewer_of
from realtime.errors import CLOSE_REASONS, BusUnavailable, CloseCode, NotSignedIn, TooMany, Unavailable
from realtime.feed.asyncapi import asyncapi
from realtime.feed.messages import Auth, Error, PresenceSet, client_message, encode
from realtime.feed.service import Feed, Wanted
from realtime.feed.subscriber import Client, Closed
from realtime.notes.models import describe
from realtime.websocket.asgi_adapter import direct
from realtime.websocket.authenticate import by_frame
from realtime.websocket.closing import WITHIN, close
from realtime.websocket.entry import take_place
from realtime.websocket.handler import Session

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from realtime.auth.connection_limit import Place, Places
    from realtime.auth.permissions import Viewer
    from realtime.core.frames import Frame
    from realtime.eventlog.cursor import Cursor
    from realtime.websocket.connection import Connection

MAX_FRAME = 64 * 1024

router = SlashRouter(tags=["feed"])


class BadFrame(Exception):
    """A client sent what it must not send."""

    def __init__(self, detail: str, code: CloseCode = CloseCode.BAD_FRAME) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code


async def _serve(client: Client, write: Coroutine[Any, Any, None], read: Coroutine[Any, Any, None]) -> BadFrame | None:
    """Writes and reads until one of them ends or the client is to be closed. Returns why to close, if at all."""
    if client.closing.done():  # the server is stopping: not a word before the close
        write.close()
        read.close()
        return BadFrame("", client.closing.result())
    tasks = [asyncio.create_task(write), asyncio.create_task(read)]
    try:
        ends: list[asyncio.Future[Any]] = [*tasks, client.closing]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, BadFrame):
            return failure
        if isinstance(failure, (BusUnavailable, Unavailable)):
            return BadFrame("", CloseCode.RESUME)
        if failure is not None and not isinstance(failure, (WebSocketDisconnect, OSError, Closed)):
            raise failure
    return BadFrame("", client.closing.result()) if client.closing.done() else None


@router.get(
    "/asyncapi.json",
    summary="The description of the feed",
    response_class=JSONResponse,
    responses={200: {"content": {"application/json": {"example": {"asyncapi": "3.0.0"}}}}},
)
async def description() -> Response:
    """AsyncAPI 3: the channel, and every message with its schema and an example."""
    return JSONResponse(asyncapi())


@router.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    """The feed over a WebSocket."""
    parts = parts_of(socket)
    feed, places = parts.feed, parts.places
    await socket.accept()
    try:
        wanted = Wanted.model_validate(dict(socket.query_params)) if socket.scope["query_string"] else Wanted()
    except ValidationError as error:
        await _close(socket, BadFrame(describe(error.errors())))
        return
    try:
        viewer = await by_frame(socket)
    except NotSignedIn as error:
        await _close(socket, BadFrame(error.detail, CloseCode.NOT_SIGNED_IN))
        return
    except Unavailable:
        await _close(socket, BadFrame("", CloseCode.RESUME))
        return
    except WebSocketDisconnect:
        return
    try:
        place = await take_place(socket, viewer)
    except TooMany:
        await _close(socket, BadFrame("", CloseCode.TOO_MANY))
        return
    except Unavailable:
        await _close(socket, BadFrame("", CloseCode.RESUME))
        return
    client = feed.join(wanted, viewer)
    way = direct(socket)
    if way is not None:
        subscriber = Subscriber(way.connection, feed, client, places, place)
        way.hand_over(subscriber)
        await subscriber.follow(wanted.cursor)
        return
    feed.metrics.clients["ws"].inc()
    try:
        ended = await _serve(client, _write(socket, feed, client, wanted), _read(socket, feed, client))
    finally:
        feed.leave(client)
        places.leave(place)
        feed.metrics.clients["ws"].dec()
    if ended is not None:
        await _close(socket, ended)


class Subscriber(Session):
    """A client of the feed whose connection was taken over."""

    __slots__ = ("_client", "_feed", "_place", "_places")
    expected = (BadFrame, BusUnavailable, Unavailable)

    def __init__(self, connection: Connection, feed: Feed, client: Client, places: Places, place: Place | None) -> None:
        super().__init__(connection)
        self._feed = feed
        self._client = client
        self._places = places
        self._place = place
        client.connect(connection)
        client.closing.add_done_callback(lambda closing: self._close(closing.result()))
        feed.metrics.clients["ws"].inc()

    async def follow(self, since: Cursor | None) -> None:
        """Tells the client what it missed; from then on it hears what happens by itself."""
        try:
            await self._feed.follow(self._client, since)
        except (BusUnavailable, Unavailable):
            self._client.close(CloseCode.RESUME)
        except Closed:
            pass
        except BaseException:
            self._client.close(CloseCode.RESUME)
            raise

    def take(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a message."""
        return _obey(self._feed, self._client, message if isinstance(message, str) else None)

    def failed(self, error: Exception) -> None:
        """Closes the connection, and says why."""
        if isinstance(error, BadFrame):
            self._close(error.code, error.detail)
            self._client.close(error.code)
        else:
            self._client.close(CloseCode.RESUME)

    def full(self) -> None:
        """What comes now waits."""
        self._client.full()

    def writable(self) -> None:
        """What waits can be written."""
        self._client.writable()

    def left(self) -> None:
        """Forgets the client."""
        self._client.close(CloseCode.RESUME)
        self._feed.leave(self._client)
        self._places.leave(self._place)
        self._feed.metrics.clients["ws"].dec()

    def _close(self, code: CloseCode, detail: str = "") -> None:
        self.connection.close(code, CLOSE_REASONS[code], encode(Error(detail=detail)) if detail else None)


async def _write(socket: WebSocket, feed: Feed, client: Client, wanted: Wanted) -> None:
    async with contextlib.aclosing(feed.stream(client, wanted.cursor)) as frames:
        async for frame in frames:
            await socket.send_text(frame.text)


async def _read(socket: WebSocket, feed: Feed, client: Client) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        work = _obey(feed, client, message.get("text"))
        if work is not None:
            await work


def _obey(feed: Feed, client: Client, text: str | None) -> Coroutine[Any, Any, None] | None:
    """Does what a client says; what takes its time is returned. Raises :class:`BadFrame`."""
    if text is None:
        raise BadFrame("binary frames are not understood here")
    if len(text) > MAX_FRAME or len(text.encode()) > MAX_FRAME:
        raise BadFrame(f"a frame must be at most {MAX_FRAME} bytes", CloseCode.TOO_BIG)
    try:
        command = client_message.validate_json(text)
    except ValidationError as error:
        raise BadFrame(describe(error.errors())) from error
    if isinstance(command, PresenceSet):
        return _look(feed, client, command)
    if isinstance(command, Auth):
        raise BadFrame(
            "type: this server has no accounts to sign in to"
            if client.viewer.keys is None
            else "type: auth comes first, and once; a connection that came with a cookie or a header needs none"
        )
    return None


async def _look(feed: Feed, client: Client, command: PresenceSet) -> None:
    try:
        await feed.look(client, command.id, command.state)
    except ValueError as error:
        raise BadFrame(str(error)) from error
    except TooMany as error:
        raise BadFrame("", CloseCode.TOO_MANY) from error


async def _close(socket: WebSocket, ended: BadFrame) -> None:
    await close(socket, ended.code, encode(Error(detail=ended.detail)).decode() if ended.detail else None)


class EventStream(Response):
    """The feed as Server-Sent Events: each frame is the data of one event, its cursor the id."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, wanted: Wanted, viewer: Viewer) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        parts = parts_of(request)
        self._request = request
        self._feed = parts.feed
        self._places = parts.places
        self._wanted = wanted
        self._viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the client goes or is to be closed. A browser comes back by itself and resumes."""
        if self._feed.draining:
            refusal = JSONResponse({"detail": "The server is going away, come back"}, 503, {"Retry-After": "1"})
            await refusal(scope, receive, send)
            return
        place = await take_place(self._request, self._viewer)
        client = self._feed.join(self._wanted, self._viewer)
        self._feed.metrics.clients["sse"].inc()
        try:
            await _serve(client, self._write(client, send), self._listen(receive))
        finally:
            self._feed.leave(client)
            self._places.leave(place)
            self._feed.metrics.clients["sse"].dec()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WITHIN):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, client: Client, send: Send) -> None:
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
async def events(request: Request, wanted: Annotated[Wanted, Query()], last_event_id: LastEventId = None) -> Response:
    """The same frames as on `/ws`, each as the data of one event whose id is its cursor.

    If the stream cannot be served now, because the server is stopping or too many connect, it consists of a `retry:`
    field with the delay in milliseconds. A browser's `EventSource` connects again after that delay; after any status
    but 200 it would give up.
    """
    if last_event_id is not None:
        wanted = wanted.model_copy(update={"since": last_event_id})
    return EventStream(request, wanted, viewer_of(request))


class Poll(Wanted):
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
    parts, viewer = parts_of(request), viewer_of(request)
    place = await take_place(request, viewer)
    try:
        answer = await parts.feed.poll(query, viewer, query.limit, query.timeout)
    finally:
        parts.places.leave(place)
    return Response(answer, media_type="application/json", headers={"Cache-Control": "no-store"})
