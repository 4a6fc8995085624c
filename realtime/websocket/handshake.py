"""WebSocket handshakes (RFC 6455, section 4.2), and the ASGI interface of a connection until it is taken over."""

from __future__ import annotations

import asyncio
import binascii
import json
import logging
from base64 import b64decode
from collections import defaultdict, deque
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import ClientDisconnected
from websockets.utils import accept_key

from realtime.auth.open_connections import OPEN_CONNECTION
from realtime.core.frames import BINARY, TEXT, framed
from realtime.core.turns import Turns
from realtime.websocket.asgi_adapter import DIRECT_EXTENSION
from realtime.websocket.connection import WebSocketConnection, close_transport
from realtime.websocket.handler import MAX_WAITING_BYTES, MAX_WAITING_MESSAGES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

    from starlette.types import ASGIApp, Message, Scope
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    from realtime.auth.open_connections import OpenConnection
    from realtime.core.transport import ConnectionHandler

    Headers = Sequence[tuple[bytes, bytes]]

log = logging.getLogger(__name__)

MAX_TARGET_BYTES = 8192
PROTOCOL_VERSION = b"13"
KEY_BYTES = 16
NORMAL, ABNORMAL, FAILED = 1000, 1006, 1011
SWITCHING_PROTOCOLS = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
)


class HandshakeRefused(Exception):
    """Raised for a request that is not a valid handshake. Holds the response."""

    def __init__(self, detail: str, status: int = HTTPStatus.BAD_REQUEST, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.headers = headers


def accept_value(method: str, version: str, target: bytes, headers: Mapping[bytes, list[bytes]]) -> bytes:
    """Validate an opening handshake and return its ``Sec-WebSocket-Accept`` value.

    The caller has checked the headers ``Connection`` and ``Upgrade``.

    Args:
        method: Request method.
        version: HTTP version, such as ``"1.1"``.
        target: Request target: the path with the query.
        headers: Values of each header, by its lower-case name.

    Raises:
        HandshakeRefused: The handshake is invalid.
    """
    if method != "GET" or version != "1.1":
        raise HandshakeRefused("A WebSocket handshake must be a GET request over HTTP/1.1")
    if len(target) > MAX_TARGET_BYTES or not target.isascii():
        raise HandshakeRefused(f"The path and query must be ASCII and at most {MAX_TARGET_BYTES} bytes")
    # Java's client sends ``Content-Length: 0``.
    if headers.get(b"content-length", [b"0"]) != [b"0"] or b"transfer-encoding" in headers:
        raise HandshakeRefused("A WebSocket handshake must not have a body")
    if headers.get(b"sec-websocket-version") != [PROTOCOL_VERSION]:
        extra = (b"sec-websocket-version", PROTOCOL_VERSION), (b"upgrade", b"websocket")
        raise HandshakeRefused("Sec-WebSocket-Version must be 13", HTTPStatus.UPGRADE_REQUIRED, extra)
    keys = headers.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _is_key(keys[0]):
        raise HandshakeRefused("Exactly one Sec-WebSocket-Key header is required, with 16 bytes in base64")
    return accept_key(keys[0].decode()).encode()


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


def final_response(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    """Encode an HTTP response after which the connection is closed."""
    lines = [(name.lower(), value) for name, value in headers]
    lines = [line for line in lines if line[0] not in (b"content-length", b"connection")]
    lines += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    return b"".join([STATUS_LINE[status], *(b"%b: %b\r\n" % line for line in lines), b"\r\n", body])


def error_response(status: int, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """Encode an HTTP error response, with the JSON body that all errors of the API have."""
    body = json.dumps({"detail": detail}).encode()
    return final_response(status, [*headers, (b"content-type", b"application/json")], body)


def upgrade(http: HttpToolsProtocol, release: Callable[[], OpenConnection | None]) -> None:
    """Switch an HTTP connection to WebSocket, or reject an invalid handshake and close the connection.

    Args:
        http: The HTTP connection, after it received the handshake.
        release: Releases and returns the object that counts the connection.
    """
    request, server, config = http.scope, http.server_state, http.config
    headers: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for name, value in http.headers:
        headers[name].append(value)
    try:
        accept = accept_value(request["method"], request["http_version"], http.url, headers)
    except HandshakeRefused as refused:
        response_headers = [*server.default_headers, *refused.headers]
        http.transport.write(error_response(refused.status, refused.detail, response_headers))
        close_transport(http.transport)
        return
    open_connection = release()
    turns = request["state"].get("turns") or Turns()
    handshake = Handshake(http.transport, accept, server, config.ws_ping_interval or None, turns, open_connection)
    raw, _, query = http.url.partition(b"?")
    path = raw.decode()
    offers = b",".join(headers.get(b"sec-websocket-protocol", ())).decode("latin-1")
    scope: dict[str, Any] = {
        "type": "websocket",
        "asgi": {"version": http.asgi_version, "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if http.scheme == "https" else "ws",
        "server": http.server,
        "client": http.client,
        "root_path": http.root_path,
        "path": http.root_path + (unquote(path) if "%" in path else path),
        "raw_path": http.root_path.encode() + raw,
        "query_string": query,
        "headers": http.headers,
        "subprotocols": [offer.strip() for offer in offers.split(",")] if offers else [],
        "state": request["state"],
        "extensions": {"websocket.http.response": {}, DIRECT_EXTENSION: handshake},
    }
    if open_connection is not None:
        scope[OPEN_CONNECTION] = open_connection
    server.connections.discard(http)
    handshake.begin(http.app, scope)


class Handshake(asyncio.Protocol):
    """A WebSocket handshake that the application accepts or denies.

    After accepting it, the application uses the connection through ASGI, or takes it over. Until then this object is
    the protocol of the transport; afterwards it is the first handler of the connection.
    """

    connection: WebSocketConnection
    """The connection, once the handshake is accepted."""

    def __init__(
        self,
        transport: asyncio.Transport,
        accept: bytes,
        server: ServerState,
        ping_interval: float | None,
        turns: Turns,
        open_connection: OpenConnection | None,
    ) -> None:
        self.transport = transport
        self._open_connection = open_connection
        self._accept_value = accept
        self._server = server
        self._connections: set[Any] = server.connections
        self._ping_interval = ping_interval
        self._turns = turns
        self._connected = self._responded = self._accepted = self._handed_over = False
        self._denial: Message | None = None
        self._body = b""
        self._early = b""
        self._waiting: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._disconnect: Message | None = None
        self._changed = asyncio.Event()

    def begin(self, app: ASGIApp, scope: Scope) -> None:
        """Start a task that runs the application."""
        self._connections.add(self)
        self.transport.set_protocol(self)
        task = asyncio.get_running_loop().create_task(self._run(app, scope))
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        code = FAILED
        try:
            await app(scope, self.receive, self.send)
            code = NORMAL
            if not self._accepted and self._disconnect is None:
                log.error("the application did not answer the handshake")
        except ClientDisconnected:
            pass
        except asyncio.CancelledError:
            raise
        except BaseException:
            log.exception("a WebSocket failed")
        finally:
            self._finish(code)

    def _finish(self, code: int) -> None:
        """Close the connection after the application returned, unless a handler took it over."""
        if self._accepted:
            if not self._handed_over:
                self.connection.close(code, "")
        elif self._disconnect is None:
            self._respond(error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error"))

    # Protocol of the transport, until the handshake is accepted

    def data_received(self, data: bytes) -> None:
        """Buffer data that the client must not send yet (RFC 6455, section 4.1)."""
        self._early += data
        self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the application that the client disconnected."""
        self._connections.discard(self)
        if self._open_connection is not None:
            self._open_connection.leave()
        self._set_disconnected(ABNORMAL, "")

    def shutdown(self) -> None:
        """Respond with 503 and close the connection, because the server is stopping."""
        if not self._responded:
            self._respond(error_response(HTTPStatus.SERVICE_UNAVAILABLE, "The server is shutting down, reconnect"))
        close_transport(self.transport)

    def _accept_handshake(self, message: Message) -> None:
        """Send the 101 response and start the WebSocket connection."""
        head = [SWITCHING_PROTOCOLS % self._accept_value]
        if subprotocol := message.get("subprotocol"):
            head.append(b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode())
        head += (b"%b: %b\r\n" % line for line in (*self._server.default_headers, *message.get("headers", ())))
        self._responded = self._accepted = True
        self._connections.discard(self)
        self.connection = WebSocketConnection(
            self.transport, self._connections, self._ping_interval, self._turns, self._open_connection
        )
        self.connection.set_handler(self)
        self.transport.set_protocol(self.connection)
        self.connection.write(b"".join(head) + b"\r\n")
        early, self._early = self._early, b""
        if early:
            self.transport.resume_reading()
            self.connection.data_received(early)

    def _respond(self, response: bytes) -> None:
        """Send a response other than 101 and close the connection."""
        self._responded = True
        self.transport.write(response)
        close_transport(self.transport)
        self._set_disconnected(ABNORMAL, "")

    # Handler of the connection, once the handshake is accepted

    def received(self, message: str | bytes) -> None:
        """Queue a message for the application."""
        self._waiting.append(message)
        self._waiting_bytes += len(message)
        if len(self._waiting) > MAX_WAITING_MESSAGES or self._waiting_bytes > MAX_WAITING_BYTES:
            self.transport.pause_reading()
        self._changed.set()

    def full(self) -> None:
        """Do nothing: :meth:`send` checks whether the connection is full."""

    def writable(self) -> None:
        """Let :meth:`send` continue."""
        self._changed.set()

    def lost(self) -> None:
        """Notify the application that the client disconnected."""
        self._set_disconnected(*self.connection.reason)

    def _set_disconnected(self, code: int, reason: str) -> None:
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._changed.set()

    def take_over(self, handler: ConnectionHandler) -> None:
        """Pass the connection to a handler, together with messages that the application has not received."""
        self._handed_over = True
        if self._open_connection is not None:
            self._open_connection.settle()
        self.transport.resume_reading()
        self.connection.set_handler(handler, self._waiting)

    @asynccontextmanager
    async def attach(self, handler: ConnectionHandler) -> AsyncGenerator[None]:
        """Pass the connection to a handler. It stays open after the application returns."""
        self.take_over(handler)
        yield

    # ASGI interface

    async def receive(self) -> Message:
        """Return the next ASGI event."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while not self._waiting:
            if self._disconnect is not None:
                return self._disconnect
            await self._wait_for_change()
        message = self._waiting.popleft()
        self._waiting_bytes -= len(message)
        if not self._waiting:
            self.transport.resume_reading()
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    async def send(self, message: Message) -> None:
        """Process an ASGI message from the application.

        Raises:
            ClientDisconnected: The connection is closed.
            RuntimeError: The message is not allowed in this state.
        """
        while self._accepted and self.connection.full and self._disconnect is None:
            await self._wait_for_change()
        if self._disconnect is not None:
            raise ClientDisconnected
        kind = message["type"]
        if self._accepted and kind == "websocket.send":
            text = message.get("text")
            self.connection.write(framed(BINARY, message["bytes"]) if text is None else framed(TEXT, text.encode()))
        elif self._accepted and kind == "websocket.close":
            self.connection.close(message.get("code", NORMAL), message.get("reason") or "")
        else:
            self._respond_to_handshake(message)

    def _respond_to_handshake(self, message: Message) -> None:
        kind = message["type"]
        if self._denial is not None and kind == "websocket.http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                headers: Any = [*self._server.default_headers, *self._denial.get("headers", ())]
                self._respond(final_response(self._denial["status"], headers, self._body))
        elif self._responded or self._denial is not None:
            raise RuntimeError(f"{kind} is not expected now")
        elif kind == "websocket.accept":
            self._accept_handshake(message)
        elif kind == "websocket.close":
            self._respond(final_response(HTTPStatus.FORBIDDEN, self._server.default_headers))
        elif kind == "websocket.http.response.start":
            self._denial = message
        else:
            raise RuntimeError(f"{kind} is not expected before the handshake is answered")

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
