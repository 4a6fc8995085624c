"""WebSocket connections below ASGI, from the handshake on.

There is as little of each as it needs, for tens of thousands of clients that mostly listen.
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

MAX_MESSAGE = 1024 * 1024
ABORT_AFTER = 2.0
CLOSE_TIMEOUT = 10.0
"""Seconds that the peer of a connection has to read the last bytes after it is closed."""
RECONNECT_DELAY = 1.0
"""Seconds before closing a connection whose client would repeat its error. Stock Yjs clients reconnect at once, because
a successful handshake resets their backoff."""
FRAMES_PER_SECOND = 250
"""Whole messages and control frames that a client may send. A stock Yjs client in a busy room sends about 100.

As many fragments are read at once; a client that sends more of them waits for its turn.
"""
FRAMES_BURST = 2000
PARSED_BYTES = 4096
"""Bytes that the library's parser is given at a time."""
PROBE_SECONDS = 5.0
GONE_AWAY = 1012
LOST = 1006
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


def close(transport: asyncio.Transport) -> None:
    """Close a connection, and drop it if its peer does not read the last bytes in time."""
    transport.close()
    if transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, drop, transport)


def untaken(transport: asyncio.Transport) -> int:
    """Return how many bytes were written that the peer's system has not confirmed yet.

    The system takes more from a transport only once much of its own buffer is free, which a slow peer may make wait.
    """
    size = transport.get_write_buffer_size()
    peer = transport.get_extra_info("socket")
    if peer is not None:
        with contextlib.suppress(OSError):  # not every system tells it of sockets
            size += int.from_bytes(fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return size


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


class Parser(Protocol):
    """The library's parser, which answers a close in the middle of a fragmented message with 1002.

    RFC 6455, section 5.4, allows control frames there: the answer is the peer's own code.
    """

    def recv_frame(self, frame: Frame) -> None:
        """Accept a close frame within a fragmented message, and drop the unfinished message."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class WebSocketConnection(asyncio.Protocol):
    """A WebSocket, and who listens to it.

    Whole messages are read here. What is rarer – messages in parts, closes, what breaks the rules – is left to the
    library's parser, from then on for all of this connection.
    """

    __slots__ = (
        "_buffer", "_closing", "_connections", "_every", "_fragments", "_frames", "_heard", "_held", "_keepalive",
        "_kind", "_lingers", "_listener", "_lost", "_needed", "_occupant", "_owed", "_parser", "_parts", "_turns",
        "_waits", "full", "transport", "write",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        every: float | None,
        turns: Turns,
        occupant: OpenConnection | None = None,
    ) -> None:
        self.transport = transport
        self._occupant = occupant
        self.write = transport.write
        self._connections = connections
        self._listener: ConnectionHandler
        self._parser: Parser | None = None
        self._buffer: bytearray | None = None
        self._turns = turns
        self._waits = False
        self._held = False
        self._frames: TokenBucket | None = None  # most clients never send any
        self._fragments: TokenBucket | None = None
        self._needed = 0
        self._owed = b""
        self._kind: Opcode = Opcode.TEXT
        self._parts: list[bytes | bytearray | memoryview] | None = None
        self._closing = False
        self._lingers = False
        self._lost = False
        self._heard = True
        self._every = every
        self._keepalive = asyncio.get_running_loop().call_later(every, self._ping) if every else None
        connections.add(self)
        # What is written goes out at once, not at the end of the turn, and is full as soon as something is left of it.
        transport.set_write_buffer_limits(high=0)
        self.full = transport.get_write_buffer_size() > 0  # of answers to requests before; nobody else would say so

    def listen(self, listener: ConnectionHandler, early: Iterable[str | bytes] = ()) -> None:
        """Says who hears what comes from now on, after what came early."""
        self._listener = listener
        if self._lost:
            listener.lost()
            return
        try:
            for message in early:
                self._hand(message)
        except BaseException:
            self.transport.abort()
            raise

    def send(self, packet: FrameBatch, limit: int) -> bool:
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

    @property
    def closing(self) -> bool:
        """Whether a close was sent, or the connection is gone: what the client sends from now on is ignored."""
        return self._closing

    @property
    def reason(self) -> tuple[int, str]:
        """Why it ended: the code and the reason of the peer's close, if there was one."""
        close = None if self._parser is None else self._parser.close_rcvd
        return (LOST, "") if close is None else (close.code, close.reason)

    def close(self, code: int, reason: str, last: bytes | None = None, *, delay: float = 0) -> None:
        """Closes the connection, with a text message before it if there is one to send.

        With a delay in seconds, nothing is read or sent until then.
        """
        if self._closing or self.transport.is_closing():
            return
        message = b"" if last is None else framed(TEXT, last)
        self._end()
        self._send_close(message + framed(CLOSE, code.to_bytes(2, "big") + reason.encode()), delay)

    def _send_close(self, data: bytes, delay: float = 0) -> None:
        if delay:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(delay, self._send_close, data)
        elif not self.transport.is_closing():
            self.write(data)
            self._linger()
            if self._parser is not None and self._parser.parser_exc is not None and self.transport.can_write_eof():
                self.transport.write_eof()  # so that a peer that waits for the end has it

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
        close(self.transport)

    def data_received(self, data: bytes) -> None:
        """Called with what the peer sent."""
        self._heard = True
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data, self._buffer = bytes(self._buffer), None
        if self._waits or (self._fragments is not None and self._fragments.remaining(time.monotonic()) < 0):
            self._continue_later(data)
        else:
            self._process(data)

    def _process(self, data: bytes) -> None:
        if self._parser is None:
            data = self._read(data)
        if data:
            self._parse(data)

    def _read(self, data: bytes) -> bytes:
        """Takes whole messages, keeps the beginning of one, and returns what is for the parser."""
        start = 0
        now = time.monotonic()
        until = now + SLICE_SECONDS
        while start < len(data):
            head = _head(data, start)
            if head is None:
                return self._keep(data[start:], len(data) - start + 1)
            kind, body, size = head
            if size < 0:
                break
            if len(data) < body + size:
                return self._keep(data[start:], body + size - start)
            if start and now > until:
                return self._continue_later(data[start:])
            if not self._count_frame(now):
                return b""
            message = apply_mask(data[body : body + size], data[body - 4 : body])
            start = body + size
            if kind == PING:
                self._answer(framed(PONG, message))
            elif kind != PONG and not self._take(message, text=kind == TEXT):
                return b""
            now = time.monotonic()
        return data[start:]

    def _count_frame(self, now: float) -> bool:
        """Count a frame that arrived, and close the connection if there are too many."""
        if self._frames is None:
            self._frames = TokenBucket(FRAMES_PER_SECOND, FRAMES_BURST, now)
        if self._closing or self._frames.consume(1, now):
            return True
        self.close(CloseCode.TOO_MANY, CLOSE_REASONS[CloseCode.TOO_MANY], delay=RECONNECT_DELAY)
        return False

    def _count_fragment(self, now: float) -> None:
        if self._fragments is None:
            self._fragments = TokenBucket(FRAMES_PER_SECOND, FRAMES_BURST, now)
        self._fragments.consume(1, now)

    def _continue_later(self, data: bytes) -> bytes:
        """Read the rest of what arrived when it is this client's turn, so that others have the event loop first."""
        self._keep(data, 0)
        if not self._waits:
            self._waits = True
            self._pause_or_resume()
            peer = self.transport.get_extra_info("peername")
            self._turns.call_soon(network_of(peer[0]) if isinstance(peer, tuple) else "", self._continue)
        return b""

    def _continue(self) -> None:
        self._waits = False
        if self._buffer is None or self._lost or self.transport.is_closing():
            return
        data, self._buffer = bytes(self._buffer), None
        self._process(data)
        self._pause_or_resume()

    def hold(self, held: bool) -> None:
        """Stop reading, or go on: as long as the listener does not want more messages."""
        self._held = held
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        if self._closing:
            return  # the close decides
        if self._held or self._waits:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

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
        until = time.monotonic() + SLICE_SECONDS
        for start in range(0, len(data), PARSED_BYTES):
            if start and time.monotonic() > until:
                self._continue_later(data[start:])
                return
            self._parse_piece(data[start : start + PARSED_BYTES])

    def _parse_piece(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = Parser(SERVER, state=OPEN, max_size=MAX_MESSAGE, logger=log)
        parser.receive_data(data)
        now = time.monotonic()
        for frame in parser.events_received():
            if frame.opcode is Opcode.CONT or not frame.fin:  # type: ignore[union-attr]  # as below
                self._count_fragment(now)
            elif not self._count_frame(now):
                return
            if frame.opcode in DATA_OPCODES:  # type: ignore[union-attr]  # these are frames: the handshake is over
                self._assemble(frame)
        answer = b"".join(parser.data_to_send())
        if parser.close_expected():
            first = not self._closing
            if first:
                self._end()
            if parser.parser_exc is None:
                if first:
                    self.write(answer)
                close(self.transport)
            elif first:
                too_big = parser.close_sent is not None and parser.close_sent.code == CloseCode.TOO_BIG
                self._send_close(answer, RECONNECT_DELAY if too_big else 0)
            else:
                self._linger()
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
        """Called when the system does not take all that was written: nothing should be added."""
        self.full = True
        self._listener.full()

    def resume_writing(self) -> None:
        """Called when it took the rest."""
        if self._closing:
            return
        self.full = False
        pong, self._owed = self._owed, b""
        if pong:
            self._answer(pong)
        self._listener.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is gone."""
        self._closing = self._lost = True
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._connections.discard(self)
        if self._occupant is not None:
            self._occupant.leave()
        self._listener.lost()

    def probe(self) -> None:
        """Ping the client now, and close the connection if no answer arrives within seconds."""
        loop = asyncio.get_running_loop()
        due = loop.time() + PROBE_SECONDS
        if self._closing or self._keepalive is None or self._keepalive.when() <= due:
            return
        if untaken(self.transport):
            return  # the ping would wait behind that
        self._keepalive.cancel()
        self._heard = False
        self.write(framed(PING, b""))
        self._keepalive = loop.call_at(due, self._ping)

    def _ping(self) -> None:
        """Asks the peer for a sign of life, if the last one was given."""
        if self._closing or self.transport.is_closing():
            return
        if not self._heard and self.transport.is_reading():  # or a pong may be there, unread
            self.close(CloseCode.NO_PONG, CLOSE_REASONS[CloseCode.NO_PONG])
            close(self.transport)
            return
        self._heard = False
        self.write(framed(PING, b""))
        assert self._every is not None
        self._keepalive = asyncio.get_running_loop().call_later(self._every, self._ping)
