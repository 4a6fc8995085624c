"""WebSocket handshakes (RFC 6455, section 4.2), and the ASGI side of a connection until its session takes it over."""

from __future__ import annotations

import asyncio
import binascii
import json
import logging
from base64 import b64decode
from collections import defaultdict, deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import ClientDisconnected
from websockets.utils import accept_key

from realtime.auth.open_connections import OCCUPANT
from realtime.core.frames import BINARY, TEXT, framed
from realtime.core.turns import Turns
from realtime.websocket.asgi_adapter import DIRECT
from realtime.websocket.connection import WebSocketConnection, close
from realtime.websocket.handler import MOST, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from starlette.types import ASGIApp, Message, Scope
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    from uvicorn.server import ServerState

    from realtime.auth.open_connections import OpenConnection
    from realtime.core.transport import ConnectionHandler

    Headers = Sequence[tuple[bytes, bytes]]

log = logging.getLogger(__name__)

LONGEST_TARGET = 8192
VERSION = b"13"
KEY_BYTES = 16
NORMAL, ABNORMAL, FAILED = 1000, 1006, 1011
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
)


class HandshakeRefused(Exception):
    """A request that is no handshake."""

    def __init__(self, detail: str, status: int = HTTPStatus.BAD_REQUEST, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.headers = headers


def accept_of(method: str, version: str, target: bytes, given: Mapping[bytes, list[bytes]]) -> bytes:
    """Validate an opening handshake and return its ``Sec-WebSocket-Accept`` value.

    That it is to be upgraded to a WebSocket is known, as ``Connection`` and ``Upgrade`` say so.
    """
    if method != "GET" or version != "1.1":
        raise HandshakeRefused("A WebSocket is opened with GET, over HTTP/1.1")
    if len(target) > LONGEST_TARGET or not target.isascii():
        raise HandshakeRefused(f"The path must be ASCII, and at most {LONGEST_TARGET} bytes with its query")
    # Java's client sends a length of zero.
    if given.get(b"content-length", [b"0"]) != [b"0"] or b"transfer-encoding" in given:
        raise HandshakeRefused("A handshake has no body")
    if given.get(b"sec-websocket-version") != [VERSION]:
        more = (b"sec-websocket-version", VERSION), (b"upgrade", b"websocket")
        raise HandshakeRefused("Sec-WebSocket-Version must be 13", HTTPStatus.UPGRADE_REQUIRED, more)
    keys = given.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _is_key(keys[0]):
        raise HandshakeRefused("Sec-WebSocket-Key must be 16 bytes in base64, once")
    return accept_key(keys[0].decode()).encode()


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


def last_answer(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    """An HTTP answer as it goes over the wire, after which the connection is closed."""
    lines = [(name.lower(), value) for name, value in headers]
    lines = [line for line in lines if line[0] not in (b"content-length", b"connection")]
    lines += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    return b"".join([STATUS_LINE[status], *(b"%b: %b\r\n" % line for line in lines), b"\r\n", body])


def problem(status: int, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """An error as an HTTP answer, in the form of all others."""
    body = json.dumps({"detail": detail}).encode()
    return last_answer(status, [*headers, (b"content-type", b"application/json")], body)


def upgrade(http: HttpToolsProtocol, release: Callable[[], OpenConnection | None]) -> None:
    """Makes a WebSocket of a connection whose request asks for one, or refuses it and closes the connection.

    Args:
        http: The connection.
        release: Hands over what counts the connection.
    """
    asked, server, config = http.scope, http.server_state, http.config
    given: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for name, value in http.headers:
        given[name].append(value)
    try:
        accept = accept_of(asked["method"], asked["http_version"], http.url, given)
    except HandshakeRefused as refused:
        headers = [*server.default_headers, *refused.headers]
        http.transport.write(problem(refused.status, refused.detail, headers))
        close(http.transport)
        return
    occupant = release()
    turns = asked["state"].get("turns") or Turns()
    handshake = Handshake(http.transport, accept, server, config.ws_ping_interval or None, turns, occupant)
    raw, _, query = http.url.partition(b"?")
    path = raw.decode()
    offers = b",".join(given.get(b"sec-websocket-protocol", ())).decode("latin-1")
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
        "state": asked["state"],
        "extensions": {"websocket.http.response": {}, DIRECT: handshake},
    }
    if occupant is not None:
        scope[OCCUPANT] = occupant
    server.connections.discard(http)
    handshake.begin(http.app, scope)


class Handshake(asyncio.Protocol):
    """A WebSocket that the application may accept, and then use as ASGI has it, or take over.

    Until it is accepted this is the protocol of its transport, from then on the first listener of its connection.
    """

    connection: WebSocketConnection
    """Since it was accepted."""

    def __init__(
        self,
        transport: asyncio.Transport,
        accept: bytes,
        server: ServerState,
        every: float | None,
        turns: Turns,
        occupant: OpenConnection | None,
    ) -> None:
        self.transport = transport
        self._occupant = occupant
        self._accept = accept
        self._server = server
        self._connections: set[Any] = server.connections
        self._every = every
        self._turns = turns
        self._connected = self._answered = self._accepted = self._handed_over = False
        self._denial: Message | None = None
        self._body = b""
        self._early = b""
        self._waiting: deque[str | bytes] = deque()
        self._size = 0
        self._end: Message | None = None
        self._changed = asyncio.Event()

    def begin(self, app: ASGIApp, scope: Scope) -> None:
        """Runs the application."""
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
            if not self._accepted and self._end is None:
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
        """The application is done with it."""
        if self._accepted:
            if not self._handed_over:
                self.connection.close(code, "")
        elif self._end is None:
            self._answer(problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error"))

    # Before it is accepted

    def data_received(self, data: bytes) -> None:
        """Called with what the peer sent: too early (RFC 6455, section 4.1)."""
        self._early += data
        self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is gone."""
        self._connections.discard(self)
        if self._occupant is not None:
            self._occupant.leave()
        self._ended(ABNORMAL, "")

    def shutdown(self) -> None:
        """Called when the server stops."""
        if not self._answered:
            self._answer(problem(HTTPStatus.SERVICE_UNAVAILABLE, "The server is going away, come back"))
        close(self.transport)

    def _switch(self, message: Message) -> None:
        """Answers that it is a WebSocket now."""
        head = [SWITCHING % self._accept]
        if subprotocol := message.get("subprotocol"):
            head.append(b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode())
        head += (b"%b: %b\r\n" % line for line in (*self._server.default_headers, *message.get("headers", ())))
        self._answered = self._accepted = True
        self._connections.discard(self)
        self.connection = WebSocketConnection(
            self.transport, self._connections, self._every, self._turns, self._occupant
        )
        self.connection.listen(self)
        self.transport.set_protocol(self.connection)
        self.connection.write(b"".join(head) + b"\r\n")
        early, self._early = self._early, b""
        if early:
            self.transport.resume_reading()
            self.connection.data_received(early)

    def _answer(self, answer: bytes) -> None:
        """Answers with anything else; that is the end."""
        self._answered = True
        self.transport.write(answer)
        close(self.transport)
        self._ended(ABNORMAL, "")

    # From then on

    def received(self, message: str | bytes) -> None:
        """A message came."""
        self._waiting.append(message)
        self._size += len(message)
        if len(self._waiting) > MOST or self._size > SMALL:
            self.transport.pause_reading()
        self._changed.set()

    def full(self) -> None:
        """Nothing to do: who sends looks."""

    def writable(self) -> None:
        """What waits can be written."""
        self._changed.set()

    def lost(self) -> None:
        """The connection is gone."""
        self._ended(*self.connection.reason)

    def _ended(self, code: int, reason: str) -> None:
        if self._end is None:
            self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._changed.set()

    def take_over(self, listener: ConnectionHandler) -> None:
        """Leaves the connection to a listener, which hears first what nobody received here."""
        self._handed_over = True
        if self._occupant is not None:
            self._occupant.settle()
        self.transport.resume_reading()
        self.connection.listen(listener, self._waiting)

    # For the application

    async def receive(self) -> Message:
        """What comes next."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while not self._waiting:
            if self._end is not None:
                return self._end
            await self._change()
        message = self._waiting.popleft()
        self._size -= len(message)
        if not self._waiting:
            self.transport.resume_reading()
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    async def send(self, message: Message) -> None:
        """Does what the application says. Raises ``ClientDisconnected``."""
        kind = message["type"]
        while self._accepted and self.connection.full and self._end is None:
            await self._change()
        if self._end is not None:
            raise ClientDisconnected
        if self._accepted and kind == "websocket.send":
            text = message.get("text")
            self.connection.write(framed(BINARY, message["bytes"]) if text is None else framed(TEXT, text.encode()))
        elif self._accepted and kind == "websocket.close":
            self.connection.close(message.get("code", NORMAL), message.get("reason") or "")
        elif self._denial is not None and kind == "websocket.http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                headers: Any = [*self._server.default_headers, *self._denial.get("headers", ())]
                self._answer(last_answer(self._denial["status"], headers, self._body))
        elif self._answered or self._denial is not None:
            raise RuntimeError(f"{kind} is not expected now")
        elif kind == "websocket.accept":
            self._switch(message)
        elif kind == "websocket.close":
            self._answer(last_answer(HTTPStatus.FORBIDDEN, self._server.default_headers))
        elif kind == "websocket.http.response.start":
            self._denial = message
        else:
            raise RuntimeError(f"{kind} is not expected before the handshake is answered")

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
