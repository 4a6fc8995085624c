"""The WebSocket endpoint of the feed, ``/ws``."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.api.connection_slots import acquire_slot
from realtime.api.feed_connection import FeedClosed
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.core.close_codes import CLOSE_REASONS, CloseCode
from realtime.errors import BusUnavailable, NotSignedIn, TooManyRequests, Unavailable
from realtime.feed.codec import encode
from realtime.feed.messages import Auth, Error, PresenceSet, client_message
from realtime.feed.query import FeedQuery
from realtime.feed.service import Feed
from realtime.feed.subscriber import Subscriber, SubscriberClosed
from realtime.notes.validation import describe
from realtime.websocket.asgi_adapter import accepted_socket
from realtime.websocket.authenticate import authenticate_by_frame
from realtime.websocket.handler import Handler, close

if TYPE_CHECKING:
    from realtime.api.services import Services
    from realtime.auth.connection_limit import Slot
    from realtime.core.transport import HandledConnection
    from realtime.eventlog.cursor import Cursor


MAX_FRAME_BYTES = 64 * 1024


router = SlashRouter(tags=["feed"])


@router.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    """Serve the feed to a WebSocket client."""
    services = services_of(socket)
    await socket.accept()
    try:
        query = FeedQuery.model_validate(dict(socket.query_params)) if socket.scope["query_string"] else FeedQuery()
    except ValidationError as error:
        await _close(socket, FeedClosed(describe(error.errors())))
        return
    try:
        principal = await authenticate_by_frame(socket)
    except NotSignedIn as error:
        await _close(socket, FeedClosed(error.detail, CloseCode.NOT_SIGNED_IN))
        return
    except Unavailable:
        await _close(socket, FeedClosed("", CloseCode.RESUME))
        return
    except WebSocketDisconnect:
        return
    try:
        slot = await acquire_slot(socket, principal)
    except TooManyRequests:
        await _close(socket, FeedClosed("", CloseCode.TOO_MANY))
        return
    except Unavailable:
        await _close(socket, FeedClosed("", CloseCode.RESUME))
        return
    client = services.feed.join(query, principal)
    accepted = accepted_socket(socket)
    handler = FeedHandler(accepted.connection, services, client, slot)
    async with accepted.attach(handler):
        await handler.start_direct_delivery(query.cursor)


class FeedHandler(Handler):
    """Handles a client of the feed."""

    __slots__ = ("_client", "_services", "_slot")
    expected = (FeedClosed, BusUnavailable, Unavailable)

    def __init__(
        self,
        connection: HandledConnection,
        services: Services,
        client: Subscriber,
        slot: Slot | None,
    ) -> None:
        super().__init__(connection)
        self._services = services
        self._client = client
        self._slot = slot
        client.connect(connection)
        client.closing.add_done_callback(lambda closing: self._close(closing.result()))
        services.metrics.clients["ws"].inc()

    async def start_direct_delivery(self, since: Cursor | None) -> None:
        """Send the missed events, and start the delivery of later ones."""
        try:
            await self._services.feed.start_direct_delivery(self._client, since)
        except (BusUnavailable, Unavailable):
            self._client.close(CloseCode.RESUME)
        except SubscriberClosed:
            pass
        except BaseException:
            self._client.close(CloseCode.RESUME)
            raise

    def handle(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Process a command."""
        return _handle_command(self._services.feed, self._client, message if isinstance(message, str) else None)

    def failed(self, error: Exception) -> None:
        """Close the connection because of an error. Send the details of a bad frame first."""
        if isinstance(error, FeedClosed):
            self._close(error.code, error.detail)
            self._client.close(error.code)
        else:
            self._client.close(CloseCode.RESUME)

    def full(self) -> None:
        """Queue later frames."""
        self._client.pause()

    def writable(self) -> None:
        """Write the queued frames."""
        self._client.resume()

    def released(self) -> None:
        """Unregister the client and release its connection slot."""
        self._client.close(CloseCode.RESUME)
        self._services.feed.leave(self._client)
        self._services.connection_slots.release(self._slot)
        self._services.metrics.clients["ws"].dec()

    def _close(self, code: CloseCode, detail: str = "") -> None:
        self.connection.close(code, CLOSE_REASONS[code], encode(Error(detail=detail)) if detail else None)


def _handle_command(feed: Feed, client: Subscriber, text: str | None) -> Coroutine[Any, Any, None] | None:
    """Process a command. Return a coroutine to await, or ``None`` if it is done.

    Raises:
        FeedClosed: The frame is invalid.
    """
    if text is None:
        raise FeedClosed("binary frames are not supported")
    if len(text) > MAX_FRAME_BYTES or len(text.encode()) > MAX_FRAME_BYTES:
        raise FeedClosed(f"a frame must be at most {MAX_FRAME_BYTES} bytes", CloseCode.TOO_BIG)
    try:
        command = client_message.validate_json(text)
    except ValidationError as error:
        raise FeedClosed(describe(error.errors())) from error
    if isinstance(command, PresenceSet):
        return _set_presence(feed, client, command)
    if isinstance(command, Auth):
        raise FeedClosed(
            "type: this server has no accounts to sign in to"
            if client.principal.keys is None
            else "type: auth is allowed only as the first frame, and only without a session cookie or header"
        )
    return None


async def _set_presence(feed: Feed, client: Subscriber, command: PresenceSet) -> None:
    try:
        await feed.set_presence(client, command.id, command.state)
    except ValueError as error:
        raise FeedClosed(str(error)) from error
    except TooManyRequests as error:
        raise FeedClosed("", CloseCode.TOO_MANY) from error


async def _close(socket: WebSocket, ended: FeedClosed) -> None:
    await close(socket, ended.code, encode(Error(detail=ended.detail)).decode() if ended.detail else None)
