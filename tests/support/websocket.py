"""Helpers for WebSocket tests: an in-memory transport, and a handler that records its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from realtime.core.frames import framed
from tests.faults.raw import CLOSE, FIRST, LAST, MORE, PING, frame

Message = str | bytes


def close_of(code: int, reason: bytes = b"") -> bytes:
    return framed(CLOSE, code.to_bytes(2) + reason)


class Heard:
    """Records the calls of a connection."""

    def __init__(self, then: Callable[[Message], None] = lambda _: None) -> None:
        self.messages: list[Message] = []
        self.calls: list[str] = []
        self._then = then

    def received(self, message: Message) -> None:
        self.messages.append(message)
        self._then(message)

    def full(self) -> None:
        self.calls.append("full")

    def writable(self) -> None:
        self.calls.append("writable")

    def lost(self) -> None:
        self.calls.append("lost")


class Memory(asyncio.Transport):
    """A transport that keeps the written data in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def can_write_eof(self) -> bool:
        return False

    def has(self, end: bytes) -> bool:
        """Return whether the written data ends with these bytes."""
        return self.written.endswith(end)


PARTS = frame(FIRST, "ä".encode()[:1]) + frame(PING, b"p") + frame(MORE) + frame(LAST, "ä".encode()[1:] + b"b")
