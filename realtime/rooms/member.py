"""A client in a room: where it is reached, what it may do, and how much."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from realtime.errors import CloseCode
from realtime.frames import Packet, Progress
from realtime.rooms import protocol

if TYPE_CHECKING:
    from realtime.access import Viewer
    from realtime.frames import Outlet

UPDATES_PER_SECOND = 60
BURST = 180
"""Updates that may come at once, for example from a client that was held up."""
LARGE = 16 * 1024
"""Bytes that count as one update more: reading them takes time."""
STATES_PER_SECOND = 120
"""Messages of who is where: stock clients also send back the news of others, which are told every 30 ms."""
STATES_BURST = 480
LARGE_STATES = 1024
"""Bytes of news that count as one message more: everyone gets them."""


class Refused(Exception):
    """A client went beyond a limit, and is to be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Allowance:
    """So many a second, and at once as many as were left over, up to a burst. Times are in seconds, of any clock."""

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._counted = now

    def take(self, cost: float, now: float) -> None:
        """Takes from what is left. Raises :class:`Refused` when it is not enough."""
        self._left = min(self._burst, self._left + (now - self._counted) * self._per_second) - cost
        self._counted = now
        if self._left < 0:
            raise Refused(CloseCode.TOO_MANY)


class Member:
    """One connection to a room. ``clients`` are those of the awareness protocol that it brought."""

    def __init__(self, outlet: Outlet, viewer: Viewer, *, writes: bool, budget: int, stall: float) -> None:
        self.viewer = viewer
        self.writes = writes
        self.clients: set[int] = set()
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self._outlet = outlet
        self._budget = budget
        self._stall = stall
        self._grace = 0
        now = time.monotonic()
        self._updates = Allowance(UPDATES_PER_SECOND, BURST, now)
        self._states = Allowance(STATES_PER_SECOND, STATES_BURST, now)
        self._told = False
        self._progress = Progress(now)

    @property
    def may_write(self) -> bool:
        """Whether what it sends is taken; of who was asked to go nothing is, for they may have lost the right."""
        return self.writes and not self.closing.done()

    def still_writes(self) -> None:
        """Raises :class:`Refused` for who may write no more: to go as it was asked to, or else to come back."""
        if not self.may_write:
            raise Refused(self.closing.result() if self.closing.done() else CloseCode.RESUME)

    def send(self, packet: Packet, *, expected: bool = False) -> None:
        """Sends messages without waiting. The last one, and an answer (``expected``), may go beyond the budget."""
        if self.closing.done():
            return
        if not self._outlet.send(packet, self._budget + self._grace):
            self.close(CloseCode.TOO_SLOW)
        elif expected:  # not the sum: who asks on and on, and takes nothing, would never be too slow
            self._grace = max(self._grace, len(packet.framed))

    def check(self) -> None:
        """To be called every second: closes a client that takes nothing."""
        buffered = self._outlet.buffered
        if self._progress.stalled(buffered, time.monotonic()) > self._stall:
            self.close(CloseCode.TOO_SLOW)
        if buffered < self._budget:
            self._grace = 0

    def count(self, size: int = 0) -> None:
        """Counts an update; a large one for several. Raises :class:`Refused` when there are too many of them."""
        self._updates.take(1 + size // LARGE, time.monotonic())

    def count_states(self, size: int = 0) -> None:
        """Counts a message of who is where, and what of it is news. Raises as :meth:`count`."""
        self._states.take(1 + size // LARGE_STATES, time.monotonic())

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
