"""WebSocket connections below ASGI, after the handshake.

Each connection uses as little memory as possible, for tens of thousands of clients that rarely send anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import struct
import sys
import termios
import time
from typing import TYPE_CHECKING, Any

from websockets.frames import DATA_OPCODES, Opcode
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.utils import apply_mask

from realtime.core.close_codes import CLOSE_REASONS, CloseCode
from realtime.core.frames import BINARY, CLOSE, PING, PONG, TEXT, framed
from realtime.core.networks import network_of
from realtime.core.token_bucket import TokenBucket
from realtime.core.turns import SLICE_SECONDS, Turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from websockets.frames import Frame

    from realtime.auth.open_connections import OpenConnection
    from realtime.core.frames import FrameBatch
    from realtime.core.transport import ConnectionHandler

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1024 * 1024
ABORT_DELAY_SECONDS = 2.0
CLOSE_TIMEOUT_SECONDS = 10.0
"""Time for the peer to read the remaining bytes after its connection is closed."""
RECONNECT_DELAY_SECONDS = 1.0
"""Delay before closing a connection whose client would repeat its error. Stock Yjs clients reconnect at once, because a
successful handshake resets their backoff."""
MAX_FRAMES_PER_SECOND = 250
"""Maximum rate of unfragmented messages and control frames. In a busy room, a stock Yjs client sends about 100."""
MAX_FRAGMENTS_PER_SECOND = 1000
"""Maximum rate of fragments. A client that exceeds it is delayed instead of disconnected."""
MAX_FRAMES_BURST = 2000
FIRST_SLICE_SECONDS = 0.0005
"""Time to process new data at once. The rest waits for a turn: in one iteration, many connections can have new data."""
PARSER_CHUNK_BYTES = 1024
"""Size of the chunks that are passed to the parser of ``websockets``."""
PROBE_TIMEOUT_SECONDS = 5.0
SERVICE_RESTART = 1012
ABNORMAL_CLOSURE = 1006
INVALID_PAYLOAD = 1007
MASK_BIT = 0x80
UNFRAGMENTED = (TEXT, BINARY, PING, PONG)


def drop(transport: asyncio.Transport) -> None:
    """Abort a connection, and discard unsent data: the kernel would keep it for minutes if the peer does not read."""
    if transport.get_write_buffer_size():
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as duplicate,
        ):
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def close_transport(transport: asyncio.Transport) -> None:
    """Close a connection, and drop it if the peer does not read the remaining bytes in time."""
    transport.close()
    if transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_SECONDS, drop, transport)


def unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """Return the number of bytes that were written and not yet acknowledged by the peer's kernel.

    The size of the transport's buffer alone is not enough to detect progress: the kernel accepts more data only when
    much of its own buffer is free, which takes a long time with a slow peer.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # not every system supports TIOCOUTQ on sockets
            size += int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return size


def _parse_header(data: bytes, start: int) -> tuple[int, int, int] | None:
    """Parse the header of the masked frame at an offset.

    Returns:
        The first byte, the offset of the payload and the size of the payload, or ``None`` if the header is incomplete.
        The size is negative if the parser of ``websockets`` must process the frame: a fragment, a close frame, a frame
        that is too big, or a protocol error.
    """
    if len(data) < start + 2:
        return None
    kind, size, body = data[start], data[start + 1] - MASK_BIT, start + 6
    if size > 125:
        wide = 2 if size == 126 else 8
        body += wide
        if len(data) >= start + 2 + wide:
            size = int.from_bytes(data[start + 2 : start + 2 + wide], "big")
    if kind not in UNFRAGMENTED or size > (125 if kind >= PING else MAX_MESSAGE_BYTES):
        size = -1
    return None if size >= 0 and len(data) < body else (kind, body, size)


class Parser(Protocol):
    """The parser of ``websockets``, with a fix for close frames within fragmented messages.

    RFC 6455, section 5.4, allows control frames there. The library replies with 1002, this class with the peer's code.
    """

    def recv_frame(self, frame: Frame) -> None:
        """Accept a close frame within a fragmented message, and drop the unfinished message."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class WebSocketConnection(asyncio.Protocol):
    """A WebSocket connection that passes messages to a handler.

    Unfragmented messages, pings, and pongs are parsed here. The first fragment, close frame, or protocol error switches
    the connection to the parser of the ``websockets`` library.

    Args:
        transport: The transport, after the handshake.
        connections: Set of the server's connections, which the instance adds itself to.
        ping_interval: Seconds between two pings; ``None`` to send none.
        turns: Schedules the processing of large amounts of data.
        open_connection: Counts this connection toward the limits of the server; ``None`` if there are none.
    """

    __slots__ = (
        "_alive", "_awaiting_turn", "_buffer", "_closing", "_connections", "_fragments", "_frames", "_handler", "_held",
        "_keepalive", "_lingering", "_lost", "_message_kind", "_message_parts", "_needed", "_open_connection",
        "_parser", "_pending_pong", "_ping_interval", "_turns", "full", "transport", "write",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        ping_interval: float | None,
        turns: Turns,
        open_connection: OpenConnection | None = None,
    ) -> None:
        self.transport = transport
        self._open_connection = open_connection
        self.write = transport.write
        self._connections = connections
        self._handler: ConnectionHandler
        self._parser: Parser | None = None
        self._buffer: bytearray | None = None
        self._turns = turns
        self._awaiting_turn = False
        self._held = False
        self._frames: TokenBucket | None = None  # created on demand: most clients never send a frame
        self._fragments: TokenBucket | None = None
        self._needed = 0
        self._pending_pong = b""
        self._message_kind: Opcode = Opcode.TEXT
        self._message_parts: list[bytes | bytearray | memoryview] | None = None
        self._closing = False
        self._lingering = False
        self._lost = False
        self._alive = True
        self._ping_interval = ping_interval
        self._keepalive = asyncio.get_running_loop().call_later(ping_interval, self._ping) if ping_interval else None
        connections.add(self)
        # The transport is full as soon as the kernel does not accept all the data of a write.
        transport.set_write_buffer_limits(high=0)
        self.full = (
            transport.get_write_buffer_size() > 0
        )  # responses to earlier HTTP requests; no callback follows for them

    def set_handler(self, handler: ConnectionHandler, early: Iterable[str | bytes] = ()) -> None:
        """Set the handler for messages and events, and pass it messages that were received earlier."""
        self._handler = handler
        if self._lost:
            handler.lost()
            return
        try:
            for message in early:
                self._deliver(message)
        except BaseException:
            self.transport.abort()
            raise

    def send(self, batch: FrameBatch, limit: int) -> bool:
        """Write a batch of messages. Return false and write nothing if more than ``limit`` bytes are buffered.

        The batch is discarded if the connection is closing.
        """
        if self.transport.get_write_buffer_size() > limit:
            return False
        if not self._closing and not self.transport.is_closing():
            self.write(batch.framed)
        return True

    @property
    def buffered(self) -> int:
        """Number of bytes in the transport's write buffer."""
        return self.transport.get_write_buffer_size()

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent or the connection is lost. Messages from the client are then ignored."""
        return self._closing

    @property
    def reason(self) -> tuple[int, str]:
        """The code and the reason of the peer's close frame, or 1006 if there was none."""
        close = None if self._parser is None else self._parser.close_rcvd
        return (ABNORMAL_CLOSURE, "") if close is None else (close.code, close.reason)

    def close(self, code: int, reason: str, last: bytes | None = None, *, delay: float = 0) -> None:
        """Close the connection.

        Args:
            code: Close code.
            reason: Reason, at most 123 bytes.
            last: Text message to send before the close frame.
            delay: Seconds to wait before sending. Nothing is read or sent in the meantime.
        """
        if self._closing or self.transport.is_closing():
            return
        message = b"" if last is None else framed(TEXT, last)
        self._start_closing()
        self._send_close(message + framed(CLOSE, code.to_bytes(2, "big") + reason.encode()), delay)

    def _send_close(self, data: bytes, delay: float = 0) -> None:
        if delay:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(delay, self._send_close, data)
        elif not self.transport.is_closing():
            self.write(data)
            self._linger()
            if self._parser is not None and self._parser.parser_exc is not None and self.transport.can_write_eof():
                self.transport.write_eof()  # for peers that wait for the end of the stream

    def _start_closing(self) -> None:
        """Mark the connection as closing, so that nothing is sent after the close frame."""
        self._closing = True
        self.pause_writing()

    def _linger(self) -> None:
        """Read for a short time: if the peer is still sending, closing now would lose the close frame."""
        if not self._lingering:
            self._lingering = True
            self.transport.resume_reading()
            # Abort if the peer does not read or does not reply with a close frame.
            asyncio.get_running_loop().call_later(ABORT_DELAY_SECONDS, drop, self.transport)

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection because the server is stopping."""
        self.close(SERVICE_RESTART, "")
        close_transport(self.transport)

    def data_received(self, data: bytes) -> None:
        """Process data from the peer."""
        self._alive = True
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data, self._buffer, self._needed = bytes(self._buffer), None, 0
        elif self._needed:  # the rest of a frame that is skipped
            data, self._needed = data[self._needed :], max(0, self._needed - len(data))
        if self._awaiting_turn or (self._fragments is not None and self._fragments.remaining(time.monotonic()) < 0):
            self._continue_later(data)
        else:
            self._process(data, time.monotonic() + FIRST_SLICE_SECONDS)

    def _process(self, data: bytes, until: float) -> None:
        """Process data until a time, and the rest of it later."""
        if self._parser is None:
            data = self._read_messages(data, until)
        if data:
            self._parse(data, until)

    def _read_messages(self, data: bytes, until: float) -> bytes:
        """Deliver complete messages, buffer an incomplete one, and return the data for the library's parser."""
        start = 0
        now = time.monotonic()
        while start < len(data):
            header = _parse_header(data, start)
            if header is None:
                return self._keep(data[start:], len(data) - start + 1)
            kind, body, size = header
            if size < 0:
                break
            if len(data) < body + size and not self._closing:
                return self._keep(data[start:], body + size - start)
            if start and now > until:
                return self._continue_later(data[start:])
            if not self._count_frame(now):
                return b""
            if self._closing:  # skip the frame: only a close frame matters now
                start = body + size
                self._needed = max(0, start - len(data))
                now = time.monotonic()
                continue
            message = apply_mask(data[body : body + size], data[body - 4 : body])
            start = body + size
            if kind == PING:
                self._send_pong(framed(PONG, message))
            elif kind != PONG and not self._deliver_message(message, text=kind == TEXT):
                return b""
            now = time.monotonic()
        return data[start:]

    def _count_frame(self, now: float) -> bool:
        """Count a received frame, and close the connection if there are too many. Return false if it was closed."""
        if self._frames is None:
            self._frames = TokenBucket(MAX_FRAMES_PER_SECOND, MAX_FRAMES_BURST, now)
        if self._closing or self._frames.consume(1, now):
            return True
        self.close(CloseCode.TOO_MANY, CLOSE_REASONS[CloseCode.TOO_MANY], delay=RECONNECT_DELAY_SECONDS)
        return False

    def _count_fragment(self, now: float) -> None:
        if self._fragments is None:
            self._fragments = TokenBucket(MAX_FRAGMENTS_PER_SECOND, MAX_FRAMES_BURST, now)
        self._fragments.consume(1, now)

    def _continue_later(self, data: bytes) -> bytes:
        """Process the remaining data when it is this client's turn, so that other clients can use the event loop."""
        self._keep(data, 0)
        if not self._awaiting_turn:
            self._awaiting_turn = True
            self._pause_or_resume()
            debt = 0.0 if self._fragments is None else -self._fragments.remaining(time.monotonic())
            if debt > 0:
                asyncio.get_running_loop().call_later(debt / MAX_FRAGMENTS_PER_SECOND, self._request_turn)
            else:
                self._request_turn()
        return b""

    def _request_turn(self) -> None:
        peer = self.transport.get_extra_info("peername")
        self._turns.call_soon(network_of(peer[0]) if isinstance(peer, tuple) else "", self._continue)

    def _continue(self) -> None:
        self._awaiting_turn = False
        if self._buffer is None or self._lost or self.transport.is_closing():
            return
        data, self._buffer, self._needed = bytes(self._buffer), None, 0
        try:
            self._process(data, time.monotonic() + SLICE_SECONDS)
        except BaseException:  # as the event loop does after an error in data_received
            self.transport.abort()
            raise
        self._pause_or_resume()

    def set_held(self, held: bool) -> None:
        """Pause or resume reading on behalf of the handler."""
        self._held = held
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        if self._closing and not self._lingering:
            return  # _send_close controls reading now
        if (self._held and not self._closing) or self._awaiting_turn:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _keep(self, data: bytes, needed: int) -> bytes:
        self._buffer, self._needed = bytearray(data), needed
        return b""

    def _deliver_message(self, message: bytes, *, text: bool) -> bool:
        """Deliver a message. Close the connection and return false if a text message is not valid UTF-8."""
        try:
            decoded = message.decode() if text else message
        except UnicodeDecodeError:
            self.close(INVALID_PAYLOAD, "")
            return False
        self._deliver(decoded)
        return True

    def _deliver(self, message: str | bytes) -> None:
        if not self._closing:
            self._handler.received(message)

    def _send_pong(self, pong: bytes) -> None:
        """Reply to a ping. While the transport is full, store only the last pong (RFC 6455, section 5.5.3)."""
        if self.full:
            self._pending_pong = pong
        elif not self._closing:
            self.write(pong)

    def _parse(self, data: bytes, until: float) -> None:
        for start in range(0, len(data), PARSER_CHUNK_BYTES):
            if self._parser is not None and self._parser.parser_exc is not None:
                return  # discard what follows a protocol error
            if start and time.monotonic() > until:
                self._continue_later(data[start:])
                return
            self._parse_piece(data[start : start + PARSER_CHUNK_BYTES])

    def _parse_piece(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = Parser(SERVER, state=OPEN, max_size=MAX_MESSAGE_BYTES, logger=log)
        parser.receive_data(data)
        now = time.monotonic()
        for frame in parser.events_received():
            if frame.opcode is Opcode.CONT or not frame.fin:  # type: ignore[union-attr]  # see below
                self._count_fragment(now)
            elif not self._count_frame(now):
                return
            if frame.opcode in DATA_OPCODES:  # type: ignore[union-attr]  # no requests: the handshake is done
                self._assemble(frame)
        reply = b"".join(parser.data_to_send())
        if parser.close_expected():
            self._close_after(parser, reply)
        elif reply:
            self._send_pong(reply)

    def _close_after(self, parser: Parser, reply: bytes) -> None:
        """Close the connection after the peer's close frame or a protocol error."""
        first = not self._closing
        if first:
            self._start_closing()
        if parser.parser_exc is None:
            if first:
                self.write(reply)
            close_transport(self.transport)
        elif first:
            too_big = parser.close_sent is not None and parser.close_sent.code == CloseCode.TOO_BIG
            self._send_close(reply, RECONNECT_DELAY_SECONDS if too_big else 0)
        else:
            self._linger()

    def _assemble(self, frame: Any) -> None:
        if frame.opcode is not Opcode.CONT:
            self._message_kind, self._message_parts = frame.opcode, []
        if self._message_parts is not None:
            self._message_parts.append(frame.data)
            if frame.fin:
                message, self._message_parts = b"".join(self._message_parts), None
                self._deliver_message(message, text=self._message_kind is Opcode.TEXT)

    def pause_writing(self) -> None:
        """Notify the handler that the transport is full."""
        self.full = True
        self._handler.full()

    def resume_writing(self) -> None:
        """Notify the handler that the transport accepts data again."""
        if self._closing:
            return
        self.full = False
        pong, self._pending_pong = self._pending_pong, b""
        if pong:
            self._send_pong(pong)
        self._handler.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection and notify the handler."""
        self._closing = self._lost = True
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._connections.discard(self)
        if self._open_connection is not None:
            self._open_connection.leave()
        self._handler.lost()

    def probe(self) -> None:
        """Ping the client now. Close the connection if nothing arrives within :data:`PROBE_TIMEOUT_SECONDS`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PROBE_TIMEOUT_SECONDS
        if self._closing or self._keepalive is None or self._keepalive.when() <= deadline:
            return
        if unacknowledged_bytes(self.transport):
            return  # the ping would be queued behind this data
        self._keepalive.cancel()
        self._alive = False
        self.write(framed(PING, b""))
        self._keepalive = loop.call_at(deadline, self._ping)

    def _ping(self) -> None:
        """Ping the client, or close the connection if nothing has arrived since the last ping."""
        if self._closing or self.transport.is_closing():
            return
        if not self._alive and self.transport.is_reading():  # while reading is paused, a pong may be unread
            self.close(CloseCode.NO_PONG, CLOSE_REASONS[CloseCode.NO_PONG])
            close_transport(self.transport)
            return
        self._alive = False
        self.write(framed(PING, b""))
        assert self._ping_interval is not None
        self._keepalive = asyncio.get_running_loop().call_later(self._ping_interval, self._ping)
