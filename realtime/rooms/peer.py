"""A client in a room: where it is reached, what it may do, and how much."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from realtime.core.close_codes import CloseCode
from realtime.core.frames import FrameBatch
from realtime.core.stall_detector import StallDetector
from realtime.core.token_bucket import TokenBucket
from realtime.rooms import protocol

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.core.transport import MessageSink

UPDATES_PER_SECOND = 60
BURST = 180
"""Updates that may come at once, for example from a client that was held up."""
UPDATE_SECONDS = 0.004
"""Time that counts as one update of a caller's allowance for a note."""
TIMED_UPDATES_PER_SECOND = 25
"""Updates by their time of a caller to a note: a tenth of the event loop."""
TIMED_BURST = 500
"""Updates by their time that may come at once: 2 seconds."""
LARGE = 16 * 1024
"""Bytes that count as one update more: reading them takes time."""
STATES_PER_SECOND = 120
"""Messages of who is where: stock clients also send back the news of others, which are told every 30 ms."""
STATES_BURST = 480
LARGE_STATES = 1024
"""Bytes of news that count as one message more: everyone gets them."""
PROBE_EVERY = 60.0
ANSWER_BYTES_PER_SECOND = 1024 * 1024
"""Answers to the question for missing changes. Clients ask it once after connecting, a few every some seconds."""
ANSWER_BYTES_BURST = 16 * 1024 * 1024


class PeerRefused(Exception):
    """A client went beyond a limit, and is to be closed with this code."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Peer:
    """One connection to a room.

    Attributes:
        caller: The user or network that the connection comes from.
        clients: The awareness clients that the connection speaks for.
    """

    def __init__(
        self, outlet: MessageSink, principal: Principal, *, caller: str, writes: bool, budget: int, stall: float
    ) -> None:
        self.principal = principal
        self.caller = caller
        self.writes = writes
        self.clients: set[int] = set()
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self._outlet = outlet
        self._budget = budget
        self._stall = stall
        self._grace = 0
        now = time.monotonic()
        self._updates = TokenBucket(UPDATES_PER_SECOND, BURST, now)
        self._states = TokenBucket(STATES_PER_SECOND, STATES_BURST, now)
        self._answers = TokenBucket(ANSWER_BYTES_PER_SECOND, ANSWER_BYTES_BURST, now)
        self._told = False
        self._probed = -PROBE_EVERY
        self._progress = StallDetector(now)

    @property
    def may_write(self) -> bool:
        """Whether what it sends is taken; of who was asked to go nothing is, for they may have lost the right."""
        return self.writes and not self.closing.done()

    def require_write_access(self) -> None:
        """Raises :class:`PeerRefused` for who may write no more: to go as it was asked to, or else to come back."""
        if not self.may_write:
            raise PeerRefused(self.closing.result() if self.closing.done() else CloseCode.RESUME)

    def send(self, packet: FrameBatch, *, expected: bool = False) -> None:
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
        if self._progress.seconds_stalled(buffered, time.monotonic()) > self._stall:
            self.close(CloseCode.TOO_SLOW)
        if buffered < self._budget:
            self._grace = 0

    def charge_arrival(self, message: bytes) -> None:
        """Charge for a message when it arrives, whenever it is processed. Raises :class:`PeerRefused`."""
        if protocol.is_awareness(message):
            self.charge_states()
        else:
            self.charge_update(len(message))

    def charge_update(self, size: int = 0) -> None:
        """Charge for an update, by its size in bytes. Raises :class:`PeerRefused` when there were too many."""
        if not self._updates.consume(1 + size // LARGE, time.monotonic()):
            raise PeerRefused(CloseCode.TOO_MANY)

    def charge_states(self, size: int | None = None) -> None:
        """Charge for a message of the awareness protocol, or for the bytes that result from it. Raises as above."""
        if not self._states.consume(1 if size is None else size // LARGE_STATES, time.monotonic()):
            raise PeerRefused(CloseCode.TOO_MANY)

    def check_answers(self) -> None:
        """Raise :class:`PeerRefused` if the client already had more bytes of answers than it may have."""
        if self._answers.remaining(time.monotonic()) <= 0:
            raise PeerRefused(CloseCode.TOO_MANY)

    def charge_answer(self, size: int) -> None:
        """Charge for the bytes of an answer. A single one may be of any size: a text has to be readable."""
        self._answers.consume(size, time.monotonic())

    def probe(self) -> None:
        """Find out soon whether the client is still connected, at most once a minute."""
        now = time.monotonic()
        if now - self._probed > PROBE_EVERY:
            self._probed = now
            self._outlet.probe()

    def reject_too_large(self) -> None:
        """The text has no room for what this client sent. Raises :class:`PeerRefused`."""
        raise PeerRefused(CloseCode.TOO_BIG)

    def notify_read_only(self) -> None:
        """Tells a client that may only read, once, that what it writes reaches nobody."""
        if not self._told:
            self._told = True
            self.send(FrameBatch([protocol.denied("read only")]))

    def close(self, code: CloseCode) -> None:
        """Asks for this client to be closed."""
        if not self.closing.done():
            self.closing.set_result(code)
