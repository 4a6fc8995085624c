"""HTTP connections below ASGI: how large the head of a request may be, and how long it may take to come."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from realtime.connections import ABORT_AFTER, drop
from realtime.handshakes import problem, upgrade

MOST = 64 * 1024
WITHIN = 10.0
HEAD, BODY, BETWEEN, AFTER = range(4)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which waits for ever for a head that does not end, however much of it there is already."""

    _at = BETWEEN
    _size = 0
    _deadline: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Called with a new connection."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(WITHIN, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is gone."""
        self._hurry(waiting=False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called with what the peer sent."""
        if self._refused:
            return
        super().data_received(data)
        if self._at == HEAD:
            self._size += len(data)
            if self._size > MOST:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
        # While a request is answered, reading may be paused here: the next one is not late then. A body that is still
        # coming when its request is answered is waited for only to come to the next one.
        self._hurry(waiting=self._at != AFTER and not self._answering)

    @property
    def _answering(self) -> bool:
        # There is none before the first request.
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def on_message_begin(self) -> None:
        """Called where a head begins."""
        self._at, self._size = HEAD, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called where it ends."""
        self._at = BODY
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called where the request ends."""
        self._at = BETWEEN
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Called when the connection is to be a WebSocket; what is read of its request already is enough for that."""
        self._at = AFTER
        if self._answering:  # nobody could tell the two answers apart
            self.transport.close()
        else:
            upgrade(self)
            self.parser = None  # type: ignore[assignment]  # as uvicorn ends with it: each knows the other

    def _hurry(self, *, waiting: bool) -> None:
        """Whether a head is being waited for: then it is not for ever."""
        if not waiting:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(WITHIN, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answers what is no request yet, and closes the connection."""
        self._hurry(waiting=False)
        if self.transport.is_closing():
            return
        if self._at != HEAD or self._answering:  # there is nothing to answer, or something else
            self.transport.close()
            return
        self._refused = True
        self.transport.write(problem(status, status.description or status.phrase))
        # What the peer still sends is read for a moment: the system would take the answer back for it.
        self.transport.write_eof()
        self.loop.call_later(ABORT_AFTER, drop, self.transport)
