"""The way into a room: ``/sync/{id}``, the y-websocket protocol."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.errors import CloseCode, DocumentBroken, MalformedUpdate, NoteNotFound, NotSignedIn, TooMany, Unavailable
from realtime.models import MAX_ID
from realtime.rooms.member import Member, Refused
from realtime.routing import SlashRouter, parts_of
from realtime.sockets.closing import close
from realtime.sockets.outlets import Queued, outlet
from realtime.sockets.signin import by_ticket

if TYPE_CHECKING:
    from realtime.rooms import Rooms
    from realtime.rooms.room import Room

MAX_REASON = 120
"""Bytes; a close frame has room for 123 (RFC 6455, section 5.5)."""

router = SlashRouter(tags=["sync"])


@router.websocket("/sync/{id}")
async def sync(socket: WebSocket, id: str) -> None:
    """The shared text of a note, for any Yjs client. Who knows the note may tell which: ``?created=``, its date."""
    parts = parts_of(socket)
    await socket.accept()
    if not re.fullmatch(r"[1-9]\d{0,15}", id) or int(id) > MAX_ID:
        await close(socket, CloseCode.NOTE_GONE)
        return
    try:
        viewer = await by_ticket(socket, int(id))
        place = await parts.places.take(viewer)
    except NotSignedIn:
        await close(socket, CloseCode.NOT_SIGNED_IN)
        return
    except TooMany:
        await close(socket, CloseCode.TOO_MANY)
        return
    except Unavailable:
        await close(socket, CloseCode.RESUME)
        return
    way = outlet(socket)
    member = parts.rooms.member(way, viewer)
    parts.metrics.clients.labels("sync").inc()
    tasks = [asyncio.create_task(_serve(socket, parts.rooms, int(id), member))]
    if isinstance(way, Queued):
        tasks.append(asyncio.create_task(way.run()))
    try:
        ends: list[asyncio.Future[Any]] = [*tasks, member.closing]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        parts.places.leave(place)
        parts.metrics.clients.labels("sync").dec()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    code, reason = _why(member, tasks[0])
    if code is not None:
        await close(socket, code, reason=reason)


async def _serve(socket: WebSocket, rooms: Rooms, id: int, member: Member) -> None:
    room: Room = await rooms.join(id, member, socket.query_params.get("created"))
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            if data is None:
                raise MalformedUpdate("is text; this protocol is binary")
            await room.receive(member, data)
    finally:
        room.leave(member)


def _why(member: Member, served: asyncio.Task[None]) -> tuple[CloseCode | None, str | None]:
    """Why a connection ends: the code to close it with, if the client is still there, and the reason in words."""
    failure = None if served.cancelled() else served.exception()
    if isinstance(failure, MalformedUpdate):
        reason = f"bad frame: it {failure.detail}".encode()[:MAX_REASON].decode(errors="ignore")
        return CloseCode.BAD_FRAME, reason
    if isinstance(failure, NoteNotFound):
        return CloseCode.NOTE_GONE, None
    if isinstance(failure, (Unavailable, DocumentBroken)):
        return CloseCode.RESUME, None
    if isinstance(failure, Refused):
        return failure.code, None
    if failure is not None and not isinstance(failure, (WebSocketDisconnect, OSError)):
        raise failure
    with contextlib.suppress(asyncio.InvalidStateError):
        return member.closing.result(), None
    return None, None
