"""A client in a room: where it is reached, what it may do, and how much."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from realtime.errors import CloseCode
from realtime.frames import Packet
from realtime.rooms import protocol

if TYPE_CHECKING:
    from realtime.frames import Outlet

UPDATES_PER_SECOND = 60
BURST = 180
"""Updates that may come at once, for example from a client that was held up."""
LARGE = 16 * 1024
"""Bytes that count as one update more: reading them takes time."""


class Refused(Exception):
    """A client went beyond a limit, and is to be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Member:
    """One connection to a room. ``clients`` are those of the awareness protocol that it brought."""

    def __init__(self, outlet: Outlet, *, writes: bool, budget: int, stall: float) -> None:
        self.writes = writes
        self.clients: set[int] = set()
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self._outlet = outlet
        self._budget = budget
        self._stall = stall
        self._grace = 0
        self._tokens = float(BURST)
        self._counted = time.monotonic()
        self._told = False
        self._buffered = 0
        self._moved = self._counted

    def send(self, packet: Packet, *, expected: bool = False) -> None:
        """Sends messages without waiting. The last one, and an answer (``expected``), may go beyond the budget."""
        if self.closing.done():
            return
        if self._outlet.buffered > self._budget + self._grace:
            self.close(CloseCode.TOO_SLOW)
            return
        self._outlet.send(packet)
        if expected:  # not the sum: who asks on and on, and takes nothing, would never be too slow
            self._grace = max(self._grace, len(packet.framed))

    def check(self) -> None:
        """To be called every second: closes a client that takes nothing."""
        buffered, now = self._outlet.buffered, time.monotonic()
        if buffered == 0 or buffered < self._buffered:
            self._moved = now
        elif now - self._moved > self._stall:
            self.close(CloseCode.TOO_SLOW)
        self._buffered = buffered
        if buffered < self._budget:
            self._grace = 0

    def count(self, size: int = 0) -> None:
        """Counts an update; a large one for several. Raises :class:`Refused` when there are too many of them."""
        now = time.monotonic()
        cost = 1 + size // LARGE
        self._tokens = min(BURST, self._tokens + (now - self._counted) * UPDATES_PER_SECOND) - cost
        self._counted = now
        if self._tokens < 0:
            raise Refused(CloseCode.TOO_MANY)

    def too_big(self) -> None:
        """The text has no room for what this client sent. Raises :class:`Refused`."""
        raise Refused(CloseCode.TOO_BIG)

    def refuse(self) -> None:
        """Tells a client that may only read, once, that what it writes reaches nobody."""
        if not self._told:
            self._told = True
            self.send(Packet([protocol.denied("read only")]))

    def close(self, code: CloseCode) -> None:
        """Asks for this client to be closed."""
        if not self.closing.done():
            self.closing.set_result(code)
