"""WebSocket connections below ASGI.

uvicorn's protocol makes the handshake and runs the application, which finds out who came and for what. Then it may take
the connection over: what is left of it is as little as it needs, for tens of thousands of clients that mostly listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import DATA_OPCODES, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as Parser
from websockets.utils import apply_mask

from realtime.errors import CLOSE_REASONS, CloseCode
from realtime.frames import BINARY, CLOSE, PING, PONG, TEXT, framed
from realtime.sockets.outlets import DIRECT

if TYPE_CHECKING:
    from websockets.http11 import Request

    from realtime.frames import Listener, Packet

log = logging.getLogger(__name__)

MAX_MESSAGE = 1024 * 1024
AHEAD = 16
"""Messages of a client that may wait for the application while more are read."""
SMALL = 4096
"""Bytes up to which a message may be one of these."""
ABORT_AFTER = 2.0
GONE_AWAY = 1012
INVALID_TEXT = 1007
MASKED = 0x80
WHOLE = (TEXT, BINARY, PING, PONG)


def drop(transport: asyncio.Transport) -> None:
    """Ends a connection, even if its peer takes nothing any more: the system would hold what waits for minutes."""
    if transport.get_write_buffer_size():
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as same,
        ):
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _head(data: bytes, start: int) -> tuple[int, int, int] | None:
    """Of the masked frame that begins there: its first byte, where its message begins, and the size of that.

    ``None`` if not all of this is there yet. The size is negative as soon as it shows that this is no whole message, or
    one that breaks the rules.
    """
    if len(data) < start + 2:
        return None
    kind, size, body = data[start], data[start + 1] - MASKED, start + 6
    if size > 125:
        wide = 2 if size == 126 else 8
        body += wide
        if len(data) >= start + 2 + wide:
            size = int.from_bytes(data[start + 2 : start + 2 + wide], "big")
    if kind not in WHOLE or size > (125 if kind >= PING else MAX_MESSAGE):
        size = -1
    return None if size >= 0 and len(data) < body else (kind, body, size)


def _whole(data: bytes) -> bool:
    """Whether this is frames with whole messages, and nothing more."""
    start = 0
    while start < len(data):
        head = _head(data, start)
        if head is None or head[2] < 0:
            return False
        start = head[1] + head[2]
    return start == len(data)


class Connection(asyncio.Protocol):
    """A WebSocket that was taken over.

    Whole messages are read here. What is rarer – messages in parts, closes, what breaks the rules – is left to the
    library's parser, from then on for all of this connection.
    """

    __slots__ = (
        "_buffer", "_closing", "_connections", "_early", "_every", "_heard", "_keepalive", "_kind", "_lingers",
        "_listener", "_needed", "_owed", "_parser", "_parts", "full", "transport", "write",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, connections: set[Any], every: float | None) -> None:
        self.transport = transport
        self.write = transport.write
        self.full = False
        self._connections = connections
        self._listener: Listener
        self._early: list[str | bytes] | None = None
        self._parser: Parser | None = None
        self._buffer: bytearray | None = None
        self._needed = 0
        self._owed = b""
        self._kind: Opcode = Opcode.TEXT
        self._parts: list[bytes | bytearray | memoryview] | None = None
        self._closing = False
        self._lingers = False
        self._heard = True
        self._every = every
        self._keepalive = asyncio.get_running_loop().call_later(every, self._ping) if every else None

    def take_over(self, protocol: WebSocketProtocol) -> None:
        """Goes on where uvicorn's protocol is."""
        self.full = not protocol.writable.is_set()
        if not protocol.between_messages:
            self._parser = protocol.conn
            if protocol.frames:
                self._parts = list(protocol.frames)
                self._kind = Opcode.TEXT if protocol.curr_msg_data_type == "text" else Opcode.BINARY
        self._early = []
        while not protocol.queue.empty():
            message: Any = protocol.queue.get_nowait()
            if message["type"] == "websocket.receive":
                self._early.append(message["text"] if "text" in message else message["bytes"])
        self._closing = protocol.disconnected
        if not self._closing:
            self._connections.discard(protocol)
            self._connections.add(self)
            self.transport.set_protocol(self)
            self.transport.resume_reading()

    def listen(self, listener: Listener) -> None:
        """Says who hears what comes. To be called at once."""
        self._listener = listener
        early, self._early = self._early, None
        if self._closing:
            listener.lost()
            return
        try:
            for message in early or ():
                self._hand(message)
        except BaseException:
            self.transport.abort()
            raise

    def send(self, packet: Packet, limit: int) -> bool:
        """Writes messages, unless more than ``limit`` bytes wait; a client that is gone gets none."""
        if self.transport.get_write_buffer_size() > limit:
            return False
        if not self._closing and not self.transport.is_closing():
            self.write(packet.framed)
        return True

    @property
    def buffered(self) -> int:
        """Bytes that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    def close(self, code: int, reason: str, last: bytes | None = None) -> None:
        """Closes the connection, with a text message before it if there is one to send."""
        if self._closing or self.transport.is_closing():
            return
        if last is not None:
            self.write(framed(TEXT, last))
        self.write(framed(CLOSE, code.to_bytes(2, "big") + reason.encode()))
        self._end()
        self._linger()

    def _end(self) -> None:
        """A close was written: nothing follows it."""
        self._closing = True
        self.pause_writing()

    def _linger(self) -> None:
        """Reads on for a moment: closed while the peer still sends, the system would take the close back from it."""
        if not self._lingers:
            self._lingers = True
            self.transport.resume_reading()
            # A peer that takes nothing, or does not confirm, is not waited for.
            asyncio.get_running_loop().call_later(ABORT_AFTER, drop, self.transport)

    def shutdown(self) -> None:
        """Called when the server stops."""
        self.close(GONE_AWAY, "")
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Called with what the peer sent."""
        self._heard = True
        if self._parser is None:
            if self._buffer is not None:
                self._buffer += data
                if len(self._buffer) < self._needed:
                    return
                data, self._buffer = bytes(self._buffer), None
            data = self._read(data)
        if data:
            self._parse(data)

    def _read(self, data: bytes) -> bytes:
        """Takes whole messages, keeps the beginning of one, and returns what is for the parser."""
        start = 0
        while start < len(data):
            head = _head(data, start)
            if head is None:
                return self._keep(data[start:], len(data) - start + 1)
            kind, body, size = head
            if size < 0:
                break
            if len(data) < body + size:
                return self._keep(data[start:], body + size - start)
            message = apply_mask(data[body : body + size], data[body - 4 : body])
            start = body + size
            if kind == PING:
                self._answer(framed(PONG, message))
            elif kind != PONG and not self._take(message, text=kind == TEXT):
                return b""
        return data[start:]

    def _keep(self, data: bytes, needed: int) -> bytes:
        self._buffer, self._needed = bytearray(data), needed
        return b""

    def _take(self, message: bytes, *, text: bool) -> bool:
        """Hands a message on. False if it is no text: that is the end."""
        try:
            taken = message.decode() if text else message
        except UnicodeDecodeError:
            self.close(INVALID_TEXT, "")
            return False
        self._hand(taken)
        return True

    def _hand(self, message: str | bytes) -> None:
        if not self._closing:
            self._listener.received(message)

    def _answer(self, pong: bytes) -> None:
        """Answers a ping; while nothing should be written only the last one, and later (RFC 6455, section 5.5.3)."""
        if self.full:
            self._owed = pong
        elif not self._closing:
            self.write(pong)

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = Parser(SERVER, state=OPEN, max_size=MAX_MESSAGE, logger=log)
        parser.receive_data(data)
        for frame in parser.events_received():
            if frame.opcode in DATA_OPCODES:  # type: ignore[union-attr]  # these are frames: the handshake is over
                self._assemble(frame)
        answer = b"".join(parser.data_to_send())
        if parser.close_expected():
            if not self._closing:
                self.write(answer)
                self._end()
            if parser.parser_exc is None:
                self.transport.close()
            else:
                self._linger()
                if self.transport.can_write_eof():
                    self.transport.write_eof()  # so that a peer that waits for the end has it
        elif answer:
            self._answer(answer)

    def _assemble(self, frame: Any) -> None:
        if frame.opcode is not Opcode.CONT:
            self._kind, self._parts = frame.opcode, []
        if self._parts is not None:
            self._parts.append(frame.data)
            if frame.fin:
                message, self._parts = b"".join(self._parts), None
                self._take(message, text=self._kind is Opcode.TEXT)

    def pause_writing(self) -> None:
        """Called when so much waits that nothing should be written."""
        self.full = True
        self._listener.full()

    def resume_writing(self) -> None:
        """Called when there is room again."""
        if self._closing:
            return
        self.full = False
        pong, self._owed = self._owed, b""
        if pong:
            self._answer(pong)
        self._listener.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is gone."""
        self._closing = True
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._connections.discard(self)
        self._listener.lost()

    def _ping(self) -> None:
        """Asks the peer for a sign of life, if the last one was given."""
        if self._closing or self.transport.is_closing():
            return
        if not self._heard and self.transport.is_reading():  # or a pong may be there, unread
            self.close(CloseCode.NO_PONG, CLOSE_REASONS[CloseCode.NO_PONG])
            self.transport.close()
            return
        self._heard = False
        self.write(framed(PING, b""))
        assert self._every is not None
        self._keepalive = asyncio.get_running_loop().call_later(self._every, self._ping)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, with this program's close code for a missing pong, and a way to take a connection over."""

    _handshake_complete = False
    _handed_over = False
    between_messages = True
    """Whether the parser has no part of a message, as far as is known."""

    @property
    def handshake_complete(self) -> bool:
        """Whether the handshake was answered. A refusal is an answer, too, which uvicorn would call an error."""
        return self._handshake_complete or self.close_sent

    @handshake_complete.setter
    def handshake_complete(self, complete: bool) -> None:
        self._handshake_complete = complete

    async def run_asgi(self) -> None:
        """Runs the application, and closes the connection after it unless it was taken over."""
        try:
            await self.app(self.scope, self.receive, self.send)
            if not self.handshake_complete:
                log.error("the application did not answer the handshake")
                self.send_500_response()
        except ClientDisconnected:
            pass
        except BaseException:
            log.exception("a WebSocket failed")
            self.send_500_response()
        if not self._handed_over and self.close_timer is None:
            self.transport.close()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Called when the application is done with the connection; the peer gets a moment to confirm its end."""
        super().on_task_complete(task)
        if not self._handed_over:
            self.loop.call_later(ABORT_AFTER, drop, self.transport)

    def handle_connect(self, event: Request) -> None:
        """Called with the handshake; tells the application how to take the connection over."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.scope["extensions"][DIRECT] = self.hand_over  # type: ignore[assignment]  # an extension of ours

    def hand_over(self) -> Connection:
        """Leaves the connection to whoever calls, and then listens to it. What was not received yet comes first."""
        self._handed_over = True
        self.stop_keepalive()
        connection = Connection(self.transport, self.connections, self.ping_interval)
        connection.take_over(self)
        return connection

    def data_received(self, data: bytes) -> None:
        """Called with what the peer sent. A handshake that cannot be read is answered, too."""
        self.between_messages = self.between_messages and (not self.handshake_initiated or _whole(data))
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Called with a whole message. While few and small ones wait, reading is not paused and resumed around each."""
        if self.queue.qsize() < AHEAD and sum(map(len, self.frames)) <= SMALL:
            paused, self.read_paused = self.read_paused, True
            super().send_receive_event_to_app()
            self.read_paused = paused
        else:
            super().send_receive_event_to_app()

    def keepalive_timeout(self) -> None:
        """Called when a ping was not answered in time."""
        self.pong_timer = None
        self.pending_ping_payload = None
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.send_close(CloseCode.NO_PONG, CLOSE_REASONS[CloseCode.NO_PONG])
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
