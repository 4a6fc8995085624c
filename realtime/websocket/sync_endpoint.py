"""The WebSocket endpoint of rooms, ``/sync/{id}``, which uses the y-websocket protocol."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket

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
from realtime.websocket.asgi_adapter import accepted_socket
from realtime.websocket.authenticate import authenticate_by_ticket
from realtime.websocket.handler import Handler, close_delay

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from realtime.api.services import Services
    from realtime.auth.connection_limit import Slot
    from realtime.core.transport import HandledConnection
    from realtime.rooms.room import Room

MAX_REASON_BYTES = 120
"""Maximum length of a close reason. A close frame has space for 123 bytes (RFC 6455, section 5.5)."""

TEXT_MESSAGE_DETAIL = "must be binary"

router = SlashRouter(tags=["sync"])


@router.websocket("/sync/{id}")
async def sync(socket: WebSocket, id: str) -> None:
    """Serve the shared text of a note to a Yjs client.

    A client that has the note can pass its creation time as ``?created=``: it is rejected if the id now belongs to
    another note.
    """
    services = services_of(socket)
    principal = principal_of(socket)
    try:
        if not re.fullmatch(r"[1-9][0-9]{0,15}", id) or int(id) > MAX_ID:
            raise NoteNotFound
        principal = await authenticate_by_ticket(socket, int(id))
        await services.rooms.check_visible(int(id), principal)
        await services.quotas.check_typing(principal, int(id))
        slot = await acquire_slot(socket, principal)
    except (NoteNotFound, NotSignedIn, QuotaExceeded, TooManyRequests, Unavailable) as error:
        record_refusal(socket, principal, error)
        # Refuse before the handshake: stock Yjs clients then back off, but reconnect at once after a close.
        await socket.send_denial_response(response_for(error))
        return
    try:
        await socket.accept()
    except BaseException:  # the client disconnected
        services.connection_slots.release(slot)
        raise
    caller = caller_of(socket, principal)
    accepted = accepted_socket(socket)
    peer = services.rooms.create_peer(accepted.connection, principal, caller)
    handler = SyncHandler(accepted.connection, services, peer, slot)
    handler.wait_for(handler.join(int(id), socket.query_params.get("created")))  # before any message is processed
    async with accepted.attach(handler):
        pass


class SyncHandler(Handler):
    """Handles a client of a room."""

    __slots__ = ("_peer", "_room", "_services", "_slot")
    expected = (MalformedUpdate, NoteNotFound, Unavailable, DocumentBroken, PeerRefused)

    def __init__(self, connection: HandledConnection, services: Services, peer: Peer, slot: Slot | None) -> None:
        super().__init__(connection)
        self._services = services
        self._peer = peer
        self._slot = slot
        self._room: Room | None = None
        peer.closing.add_done_callback(lambda closing: self._close(PeerRefused(closing.result())))
        services.metrics.clients["sync"].inc()

    async def join(self, id: int, created: str | None) -> None:
        """Join the room. Messages that arrive before this is done are queued."""
        self._room = await self._services.rooms.join(id, self._peer, created)

    def received(self, message: str | bytes) -> None:
        """Count a message toward the client's limits, and process it after the earlier ones."""
        try:
            if isinstance(message, str):
                raise MalformedUpdate(TEXT_MESSAGE_DETAIL)
            self._peer.charge_arrival(message)
        except (MalformedUpdate, PeerRefused) as error:
            self.failed(error)
        else:
            super().received(message)

    def handle(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Process a message of the y-websocket protocol."""
        assert self._room is not None
        assert isinstance(message, bytes)
        return self._room.receive(self._peer, message)

    def failed(self, error: Exception) -> None:
        """Close the connection because of an error."""
        self._close(error)

    def full(self) -> None:
        """Do nothing: the room checks the size of the buffer before it sends."""

    def writable(self) -> None:
        """Do nothing: the room retries periodically."""

    def released(self) -> None:
        """Leave the room and release the connection slot."""
        if self._room is not None:
            self._room.leave(self._peer)
        self._services.connection_slots.release(self._slot)
        self._services.metrics.clients["sync"].dec()

    def _close(self, error: Exception) -> None:
        code, reason = _close_reason(error)
        self.connection.close(code, reason or CLOSE_REASONS[code], delay=close_delay(code))


def _close_reason(failure: BaseException) -> tuple[CloseCode, str | None]:
    """Return the close code for a failure, and the reason if it differs from the default."""
    if isinstance(failure, MalformedUpdate):
        reason = f"bad frame: it {failure.detail}".encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        return CloseCode.BAD_FRAME, reason
    if isinstance(failure, NoteNotFound):
        return CloseCode.NOTE_GONE, None
    if isinstance(failure, (Unavailable, DocumentBroken)):
        return CloseCode.RESUME, None
    if isinstance(failure, PeerRefused):
        return failure.code, None
    raise failure
