"""The way into a room: ``/sync/{id}``, the y-websocket protocol."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.api.access_records import record_refusal
from realtime.api.connection_slots import take_place
from realtime.api.error_handlers import refusal
from realtime.api.requests import caller_of, viewer_of
from realtime.api.router import SlashRouter
from realtime.api.services import parts_of
from realtime.core.close_codes import CLOSE_REASONS, CloseCode
from realtime.errors import (
    DocumentBroken,
    MalformedUpdate,
    NoteNotFound,
    NotSignedIn,
    QuotaExceeded,
    TooMany,
    Unavailable,
)
from realtime.notes.models import MAX_ID
from realtime.rooms.peer import Member, Refused
from realtime.websocket.asgi_adapter import Queued, direct
from realtime.websocket.authenticate import by_ticket
from realtime.websocket.handler import Session, close, delay_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from realtime.api.services import Parts
    from realtime.auth.connection_limit import Place
    from realtime.rooms.manager import Rooms
    from realtime.rooms.room import Room
    from realtime.websocket.connection import Connection

MAX_REASON = 120
"""Bytes; a close frame has room for 123 (RFC 6455, section 5.5)."""

TEXTUAL = "is text; this protocol is binary"

router = SlashRouter(tags=["sync"])


@router.websocket("/sync/{id}")
async def sync(socket: WebSocket, id: str) -> None:
    """The shared text of a note, for any Yjs client. Who knows the note may tell which: ``?created=``, its date."""
    parts = parts_of(socket)
    viewer = viewer_of(socket)
    try:
        if not re.fullmatch(r"[1-9]\d{0,15}", id) or int(id) > MAX_ID:
            raise NoteNotFound
        viewer = await by_ticket(socket, int(id))
        await parts.rooms.check_visible(int(id), viewer)
        await parts.quotas.check_typing(viewer, int(id))
        place = await take_place(socket, viewer)
    except (NoteNotFound, NotSignedIn, QuotaExceeded, TooMany, Unavailable) as error:
        record_refusal(socket, viewer, error)
        # Before the handshake: stock Yjs clients back off then, but reconnect at once after a close.
        await socket.send_denial_response(refusal(error))
        return
    try:
        await socket.accept()
    except BaseException:  # the client is gone
        parts.places.leave(place)
        raise
    caller = caller_of(socket, viewer)
    way = direct(socket)
    if way is not None:
        member = parts.rooms.member(way.connection, viewer, caller)
        typist = Typist(way.connection, parts, member, place)
        typist.wait_for(typist.join(int(id), socket.query_params.get("created")))
        way.hand_over(typist)
        return
    queued = Queued(socket)
    member = parts.rooms.member(queued, viewer, caller)
    parts.metrics.clients["sync"].inc()
    tasks = [asyncio.create_task(_serve(socket, parts.rooms, int(id), member)), asyncio.create_task(queued.run())]
    try:
        ends: list[asyncio.Future[Any]] = [*tasks, member.closing]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        parts.places.leave(place)
        parts.metrics.clients["sync"].dec()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    failure = None if tasks[0].cancelled() else tasks[0].exception()
    with contextlib.suppress(asyncio.InvalidStateError):
        failure = failure or Refused(member.closing.result())
    if failure is not None and not isinstance(failure, (WebSocketDisconnect, OSError)):
        code, reason = _why(failure)
        await asyncio.sleep(delay_of(code))
        await close(socket, code, reason=reason)


class Typist(Session):
    """A client in a room whose connection was taken over."""

    __slots__ = ("_member", "_parts", "_place", "_room")
    expected = (MalformedUpdate, NoteNotFound, Unavailable, DocumentBroken, Refused)

    def __init__(self, connection: Connection, parts: Parts, member: Member, place: Place | None) -> None:
        super().__init__(connection)
        self._parts = parts
        self._member = member
        self._place = place
        self._room: Room | None = None
        member.closing.add_done_callback(lambda closing: self._close(Refused(closing.result())))
        parts.metrics.clients["sync"].inc()

    async def join(self, id: int, created: str | None) -> None:
        """Lets the client into its room; what it sends meanwhile waits."""
        self._room = await self._parts.rooms.join(id, self._member, created)

    def received(self, message: str | bytes) -> None:
        """Charge for a message, and process it when those before it are done."""
        try:
            if isinstance(message, str):
                raise MalformedUpdate(TEXTUAL)
            self._member.arrived(message)
        except (MalformedUpdate, Refused) as error:
            self.failed(error)
        else:
            super().received(message)

    def take(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a message."""
        assert self._room is not None
        assert isinstance(message, bytes)
        return self._room.take(self._member, message)

    def failed(self, error: Exception) -> None:
        """Closes the connection, and says why."""
        self._close(error)

    def full(self) -> None:
        """Nothing to do: who sends looks at what waits."""

    def writable(self) -> None:
        """Nothing to do."""

    def left(self) -> None:
        """Forgets the client."""
        if self._room is not None:
            self._room.leave(self._member)
        self._parts.places.leave(self._place)
        self._parts.metrics.clients["sync"].dec()

    def _close(self, why: Exception) -> None:
        code, reason = _why(why)
        self.connection.close(code, reason or CLOSE_REASONS[code], delay=delay_of(code))


async def _serve(socket: WebSocket, rooms: Rooms, id: int, member: Member) -> None:
    room: Room = await rooms.join(id, member, socket.query_params.get("created"))
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            if data is None:
                raise MalformedUpdate(TEXTUAL)
            await room.receive(member, data)
    finally:
        room.leave(member)


def _why(failure: BaseException) -> tuple[CloseCode, str | None]:
    """The code to close a connection with, and the reason in words."""
    if isinstance(failure, MalformedUpdate):
        reason = f"bad frame: it {failure.detail}".encode()[:MAX_REASON].decode(errors="ignore")
        return CloseCode.BAD_FRAME, reason
    if isinstance(failure, NoteNotFound):
        return CloseCode.NOTE_GONE, None
    if isinstance(failure, (Unavailable, DocumentBroken)):
        return CloseCode.RESUME, None
    if isinstance(failure, Refused):
        return failure.code, None
    raise failure
