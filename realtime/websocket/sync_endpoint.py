"""The way into a room: ``/sync/{id}``, the y-websocket protocol."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.api.access_records import record_refusal
from realtime.api.connection_slots import acquire_slot
from realtime.api.error_handlers import response_for
from realtime.api.requests import caller_of, principal_of
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.core.close_codes import CLOSE_REASONS, CloseCode
from realtime.errors import (
    DocumentBroken,
    MalformedUpdate,
    NoteNotFound,
    NotSignedIn,
    QuotaExceeded,
    TooManyRequests,
    Unavailable,
)
from realtime.notes.models import MAX_ID
from realtime.rooms.peer import Peer, PeerRefused
from realtime.websocket.asgi_adapter import AsgiAdapter, direct
from realtime.websocket.authenticate import by_ticket
from realtime.websocket.handler import Handler, close, delay_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from realtime.api.services import Services
    from realtime.auth.connection_limit import Slot
    from realtime.rooms.manager import Rooms
    from realtime.rooms.room import Room
    from realtime.websocket.connection import WebSocketConnection

MAX_REASON = 120
"""Bytes; a close frame has room for 123 (RFC 6455, section 5.5)."""

TEXTUAL = "is text; this protocol is binary"

router = SlashRouter(tags=["sync"])


@router.websocket("/sync/{id}")
async def sync(socket: WebSocket, id: str) -> None:
    """The shared text of a note, for any Yjs client. Who knows the note may tell which: ``?created=``, its date."""
    parts = services_of(socket)
    principal = principal_of(socket)
    try:
        if not re.fullmatch(r"[1-9]\d{0,15}", id) or int(id) > MAX_ID:
            raise NoteNotFound
        principal = await by_ticket(socket, int(id))
        await parts.rooms.check_visible(int(id), principal)
        await parts.quotas.check_typing(principal, int(id))
        place = await acquire_slot(socket, principal)
    except (NoteNotFound, NotSignedIn, QuotaExceeded, TooManyRequests, Unavailable) as error:
        record_refusal(socket, principal, error)
        # Before the handshake: stock Yjs clients back off then, but reconnect at once after a close.
        await socket.send_denial_response(response_for(error))
        return
    try:
        await socket.accept()
    except BaseException:  # the client is gone
        parts.connection_slots.release(place)
        raise
    caller = caller_of(socket, principal)
    way = direct(socket)
    if way is not None:
        member = parts.rooms.member(way.connection, principal, caller)
        typist = SyncHandler(way.connection, parts, member, place)
        typist.wait_for(typist.join(int(id), socket.query_params.get("created")))
        way.take_over(typist)
        return
    queued = AsgiAdapter(socket)
    member = parts.rooms.member(queued, principal, caller)
    parts.metrics.clients["sync"].inc()
    tasks = [asyncio.create_task(_serve(socket, parts.rooms, int(id), member)), asyncio.create_task(queued.run())]
    try:
        ends: list[asyncio.Future[Any]] = [*tasks, member.closing]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        parts.connection_slots.release(place)
        parts.metrics.clients["sync"].dec()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    failure = None if tasks[0].cancelled() else tasks[0].exception()
    with contextlib.suppress(asyncio.InvalidStateError):
        failure = failure or PeerRefused(member.closing.result())
    if failure is not None and not isinstance(failure, (WebSocketDisconnect, OSError)):
        code, reason = _why(failure)
        await asyncio.sleep(delay_of(code))
        await close(socket, code, reason=reason)


class SyncHandler(Handler):
    """A client in a room whose connection was taken over."""

    __slots__ = ("_member", "_parts", "_place", "_room")
    expected = (MalformedUpdate, NoteNotFound, Unavailable, DocumentBroken, PeerRefused)

    def __init__(self, connection: WebSocketConnection, parts: Services, member: Peer, place: Slot | None) -> None:
        super().__init__(connection)
        self._parts = parts
        self._member = member
        self._place = place
        self._room: Room | None = None
        member.closing.add_done_callback(lambda closing: self._close(PeerRefused(closing.result())))
        parts.metrics.clients["sync"].inc()

    async def join(self, id: int, created: str | None) -> None:
        """Lets the client into its room; what it sends meanwhile waits."""
        self._room = await self._parts.rooms.join(id, self._member, created)

    def received(self, message: str | bytes) -> None:
        """Charge for a message, and process it when those before it are done."""
        try:
            if isinstance(message, str):
                raise MalformedUpdate(TEXTUAL)
            self._member.charge_arrival(message)
        except (MalformedUpdate, PeerRefused) as error:
            self.failed(error)
        else:
            super().received(message)

    def handle(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Takes a message."""
        assert self._room is not None
        assert isinstance(message, bytes)
        return self._room.receive_now(self._member, message)

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
        self._parts.connection_slots.release(self._place)
        self._parts.metrics.clients["sync"].dec()

    def _close(self, why: Exception) -> None:
        code, reason = _why(why)
        self.connection.close(code, reason or CLOSE_REASONS[code], delay=delay_of(code))


async def _serve(socket: WebSocket, rooms: Rooms, id: int, member: Peer) -> None:
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
    if isinstance(failure, PeerRefused):
        return failure.code, None
    raise failure
