"""HTTP connections below ASGI: limits on request heads, and parts of HTTP that uvicorn does not implement.

Uvicorn waits indefinitely for a head that does not end, loses the body of a request that offers an upgrade it does not
support, sends chunked bodies to HTTP/1.0 clients, and accepts HTTP/1.1 requests without a ``Host``.

This module is in the WebSocket package because a WebSocket starts as an HTTP request: this protocol reads the request,
performs the upgrade, and closes connections with the same functions as WebSocket connections.
"""

from __future__ import annotations

import asyncio
import re
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from realtime.auth.open_connections import FULL, OPEN_CONNECTION
from realtime.websocket.connection import ABORT_DELAY_SECONDS, drop, unacknowledged_bytes
from realtime.websocket.handshake import error_response, final_response, upgrade

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from realtime.auth.open_connections import OpenConnection, OpenConnections

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_SECONDS = 10.0
SURPLUS_HEAD_TIMEOUT_SECONDS = 2.0
"""Time for a request head on a connection beyond the limit of its client, or on a refused connection."""
MAX_REFUSED = 64
"""Maximum number of refused connections whose request is read first, so that the response is not lost."""
RETRY_AFTER_SECONDS = 5
"""Delay before a refused client should try again."""
STALL_MARGIN_SECONDS = 2.0
"""Extra time before a slow client is dropped, in which the feed can close its own slow event streams."""
UNREAD_BYTES_PER_SECOND = 4 * 1024
"""Minimum rate at which a slow client must read a response."""
EVENT_STREAM = re.compile(rb"GET [^ ?]*/events/?[? ]")
HEAD, BODY, BETWEEN, AFTER = range(4)
BODY_HEADERS = (b"content-length", b"transfer-encoding")
"""Headers that determine the length of a body."""
ONE_HOST = "An HTTP/1.1 request must have exactly one Host header, with a name or an address and an optional port"
HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
"""The valid values of a ``Host`` header (RFC 3986, section 3.2.2)."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits on request heads, and fixes for the problems listed above."""

    _phase = BETWEEN
    _size = 0
    _deadline: asyncio.TimerHandle | None = None
    _refused = False
    _fault: str | None = None
    """Detail of the 400 response, if the request is invalid."""
    _data = b""
    """The data that the parser is processing."""
    _replaying = False
    """Whether the parser is reading the same request head again."""
    _open_connection: OpenConnection | None = None
    _is_over_limit = False
    """Whether the connection limit is reached. Such a connection gets its response when it sends data."""

    _stall_check: asyncio.TimerHandle | None = None
    _unread = 0
    """Number of unacknowledged bytes at the last check."""

    def __init__(
        self,
        *arguments: Any,
        open_connections: OpenConnections | None = None,
        stall: float = HEAD_TIMEOUT_SECONDS,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._open_connections = open_connections
        self._stall = stall

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Count the connection, and start the timeout for the first request head."""
        super().connection_made(transport)
        timeout = HEAD_TIMEOUT_SECONDS
        if self._open_connections is not None:
            self._open_connection = self._open_connections.enter(self.client[0] if self.client else None, self)
            if self._open_connection is None:
                self._refuse_over_limit(self._open_connections)
                return
            timeout = SURPLUS_HEAD_TIMEOUT_SECONDS if self._open_connection.surplus else HEAD_TIMEOUT_SECONDS
        self._deadline = self.loop.call_later(timeout, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers and stop counting the connection."""
        self._set_deadline(waiting=False)
        self._stop_stall_check()
        if self._open_connection is not None:
            self._open_connection.leave()
        elif self._is_over_limit and self._open_connections is not None:
            self._open_connections.rejected_count -= 1
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start to check whether the client reads at the minimum rate, and stays within its memory limit."""
        super().pause_writing()
        self._unread = unacknowledged_bytes(self.transport)
        if not self._may_hold(self._unread):
            drop(self.transport)
            return
        self._stop_stall_check()
        self._stall_check = self.loop.call_later(self._stall + STALL_MARGIN_SECONDS, self._check_stall)

    def resume_writing(self) -> None:
        """Stop the checks, because the client has read the data."""
        self._stop_stall_check()
        self._may_hold(0)
        super().resume_writing()
        if self.transport.is_closing():
            self._watch_close()

    def _may_hold(self, unread: int) -> bool:
        return self._open_connection is None or self._open_connection.hold(unread)

    def _check_stall(self) -> None:
        """Drop the connection if the client has read too little since the last check."""
        unread = unacknowledged_bytes(self.transport)
        if self._unread - unread < min(self._unread, self._stall * UNREAD_BYTES_PER_SECOND):
            drop(self.transport)
            return
        self._unread = unread
        self._may_hold(unread)
        self._stall_check = self.loop.call_later(self._stall + STALL_MARGIN_SECONDS, self._check_stall)

    def _stop_stall_check(self) -> None:
        if self._stall_check is not None:
            self._stall_check.cancel()
            self._stall_check = None

    def _refuse_over_limit(self, open_connections: OpenConnections) -> None:
        """Respond with 503 because a connection limit is reached, after reading the request if it arrives soon."""
        self._refused = True
        if open_connections.rejected_count >= MAX_REFUSED:
            self.transport.write(no_room(b""))
            self._close()
            return
        self._is_over_limit = True
        open_connections.rejected_count += 1
        self._deadline = self.loop.call_later(SURPLUS_HEAD_TIMEOUT_SECONDS, self._respond_over_limit, b"")

    def _respond_over_limit(self, request: bytes) -> None:
        self._set_deadline(waiting=False)
        if not self.transport.is_closing():
            self.transport.write(no_room(request))
            self._close()

    def close_if_idle(self) -> bool:
        """Close the connection if it is idle after a response, and return whether it was closed.

        A connection with unsent bytes is not idle: its socket would stay open until the peer has read them.
        """
        idle = self._phase == BETWEEN and self.cycle is not None and not self._responding  # type: ignore[redundant-expr]  # none before the first
        if not idle or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return False
        self.transport.close()
        return True

    def on_response_complete(self) -> None:
        """Complete a response, and watch the connection if it is being closed."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_close()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection because no further request arrived in time."""
        self._close()

    def shutdown(self) -> None:
        """Close the connection because the server is stopping."""
        super().shutdown()
        if self.transport.is_closing():
            self._watch_close()

    def _close(self) -> None:
        """Close the connection when the client has read the remaining bytes, at the minimum rate or faster."""
        self.transport.close()
        self._watch_close()

    def _watch_close(self) -> None:
        """Drop a closing connection if the client does not read the remaining bytes at the minimum rate."""
        if self._stall_check is None and self.transport.get_write_buffer_size():
            self._unread = unacknowledged_bytes(self.transport)
            self._stall_check = self.loop.call_later(self._stall + STALL_MARGIN_SECONDS, self._check_stall)

    def release_open_connection(self) -> OpenConnection | None:
        """Return the object that counts the connection, for the protocol that replaces this one."""
        self._stop_stall_check()
        open_connection, self._open_connection = self._open_connection, None
        return open_connection

    def data_received(self, data: bytes) -> None:
        """Parse data, and limit the size and the duration of request heads."""
        if self._is_over_limit:
            self._respond_over_limit(data)
        if self._refused:
            return
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._phase == HEAD:
            self._size += len(data)
            if self._size > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
        # No timeout applies during a response, because reading may be paused. The rest of a body after the response is
        # subject to the timeout, like the next request head.
        self._set_deadline(waiting=self._phase != AFTER and not self._responding)

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]  # none before the first

    def on_message_begin(self) -> None:
        """Start a new request head."""
        self._phase, self._size = HEAD, 0
        super().on_message_begin()
        if self._open_connection is not None:
            scope: Any = self.scope
            scope[OPEN_CONNECTION] = self._open_connection

    def on_headers_complete(self) -> None:
        """Validate the request head and start the application. An exception causes a 400 response."""
        if self._replaying:
            self._phase = BODY
            return
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        if (len(hosts) != 1 and (version == "1.1" or hosts)) or not all(map(HOST.fullmatch, hosts)):
            self._fault = ONE_HOST
            raise ValueError(ONE_HOST)
        if self.url == b"*" and self.parser.get_method() == b"OPTIONS":  # the server itself (RFC 9110, section 7.1)
            self.url = b"/"
        self._phase = BODY
        before = self.cycle
        super().on_headers_complete()
        if version == "1.0" and self.cycle is not before:
            _use_http_1_0(self.cycle)

    def on_message_complete(self) -> None:
        """Complete the request."""
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # the body has not been read yet
        self._phase = BETWEEN
        super().on_message_complete()

    def _get_upgrade(self) -> bytes | None:
        """Return ``b"websocket"`` if the request offers it, in any line of its headers, else ``None``."""
        offers = {
            token.strip().lower() for name, value in self.headers if name == b"upgrade" for token in value.split(b",")
        }
        return b"websocket" if b"websocket" in offers else None

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore the offer of another protocol, as RFC 9110, section 7.8, allows, and read the request's body.

        Called while the parser's exception is handled. The parser treats all bytes after such a request as the other
        protocol. A new parser replaces it, and reads the headers again that determine the end of the body.
        """
        (consumed,) = sys.exc_info()[1].args  # type: ignore[union-attr]  # the offset where the parser stopped
        rest = self._data[consumed:]
        framing = b"".join([b"%b: %b\r\n" % header for header in self.headers if header[0] in BODY_HEADERS])
        request = self.scope, self.headers, self.url, self.expect_100_continue
        self.parser = httptools.HttpRequestParser(self)
        self._replaying = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        self._replaying = False
        self.scope, self.headers, self.url, self.expect_100_continue = request
        if rest:
            self.data_received(rest)

    def send_400_response(self, msg: str) -> None:
        """Respond to an invalid request with 400 and a JSON body, and close the connection."""
        detail, self._fault = self._fault or msg, None
        if not self._responding:  # otherwise it would become part of the current response
            self.transport.write(error_response(HTTPStatus.BAD_REQUEST, detail))
        self._close()

    def handle_websocket_upgrade(self) -> None:
        """Switch the connection to WebSocket. The request head is complete at this point."""
        self._phase = AFTER
        if self._responding:  # the client could not separate the two responses
            self._close()
        else:
            upgrade(self, self.release_open_connection)
            self.parser = None  # type: ignore[assignment]  # breaks the reference cycle, as uvicorn does

    def _set_deadline(self, *, waiting: bool) -> None:
        """Start or stop the timeout for a request head."""
        if not waiting:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Respond to an incomplete request head, and close the connection."""
        self._set_deadline(waiting=False)
        if self.transport.is_closing():
            return
        if self._phase != HEAD or self._responding:  # no request, or another response in progress
            self._close()
            return
        self._refused = True
        self.transport.write(error_response(status, status.description or status.phrase))
        # If the client is still sending, closing now would reset the connection and lose the response.
        self.transport.write_eof()
        self.loop.call_later(ABORT_DELAY_SECONDS, drop, self.transport)


def no_room(request: bytes) -> bytes:
    """Return the response when a connection limit is reached: 503, or an event stream that delays the next attempt.

    A browser's ``EventSource`` does not reconnect after any status but 200.
    """
    if EVENT_STREAM.match(request):
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        return final_response(HTTPStatus.OK, headers, b"retry: %d\n\n" % (RETRY_AFTER_SECONDS * 1000))
    return error_response(HTTPStatus.SERVICE_UNAVAILABLE, FULL, [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)])


def _use_http_1_0(cycle: RequestResponseCycle) -> None:
    """Respond to an HTTP/1.0 client without ``100 Continue`` and without chunked encoding.

    A body of unknown length ends where the connection ends (RFC 9112, section 6.3).
    """
    send: Callable[[Any], Awaitable[None]] = cycle.send
    cycle.waiting_for_100_continue = False
    unbounded = False

    async def unchunked(message: Any) -> None:
        nonlocal unbounded
        if message["type"] == "http.response.start":
            unbounded = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if unbounded:
                cycle.chunked_encoding = False
        elif unbounded:
            cycle.expected_content_length = len(message.get("body", b""))  # uvicorn counts down to zero
        await send(message)

    cycle.send = unchunked  # type: ignore[method-assign]  # uvicorn has no hook for this
