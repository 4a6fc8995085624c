"""One connection to a room: its access rights, limits and send queue."""

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
UPDATES_BURST = 180
"""Maximum burst of updates, for example from a client whose network was interrupted."""
LARGE_UPDATE_BYTES = 16 * 1024
"""Each multiple of this size in an update counts as one more update, because it takes time to read."""
STATES_PER_SECOND = 120
"""Maximum rate of awareness messages. Stock clients also repeat the changes of others, which arrive every 30 ms."""
STATES_BURST = 480
LARGE_STATES_BYTES = 1024
"""Each multiple of this size in changed states counts as one more message, because all clients receive them."""
PROBE_INTERVAL_SECONDS = 60.0
DIFF_BYTES_PER_SECOND = 1024 * 1024
"""Maximum rate of missing changes to a client. Clients request them after connecting, some also every few seconds."""
DIFF_BYTES_BURST = 16 * 1024 * 1024


class PeerRefused(Exception):
    """Raised to disconnect a client with this close code, for example because it exceeded a limit."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code)
        self.code = code


class Peer:
    """Represents one connection to a room.

    Attributes:
        caller: The user or network that the connection comes from.
        clients: The awareness clients of the connection.
    """

    def __init__(
        self, sink: MessageSink, principal: Principal, *, caller: str, writes: bool, budget: int, stall: float
    ) -> None:
        self.principal = principal
        self.caller = caller
        self.has_write_access = writes
        self.clients: set[int] = set()
        self.closing: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
        self._sink = sink
        self._budget = budget
        self._stall = stall
        self._extra_bytes = 0
        now = time.monotonic()
        self._updates = TokenBucket(UPDATES_PER_SECOND, UPDATES_BURST, now)
        self._states = TokenBucket(STATES_PER_SECOND, STATES_BURST, now)
        self._diffs = TokenBucket(DIFF_BYTES_PER_SECOND, DIFF_BYTES_BURST, now)
        self._notified_read_only = False
        self._probed_at = -PROBE_INTERVAL_SECONDS
        self._progress = StallDetector(now)

    @property
    def may_write(self) -> bool:
        """Whether updates are accepted. They are not once the client is being closed: it may have lost write access."""
        return self.has_write_access and not self.closing.done()

    def require_write_access(self) -> None:
        """Raise :class:`PeerRefused` if updates are not accepted, with the pending close code or ``RESUME``."""
        if not self.may_write:
            raise PeerRefused(self.closing.result() if self.closing.done() else CloseCode.RESUME)

    def send(self, batch: FrameBatch, *, is_reply: bool = False) -> None:
        """Queue messages without waiting. The last batch, and a reply (``is_reply``), may exceed the budget."""
        if self.closing.done():
            return
        if not self._sink.send(batch, self._budget + self._extra_bytes):
            self.close(CloseCode.TOO_SLOW)
        elif is_reply:  # not the sum: repeated requests must not extend the budget indefinitely
            self._extra_bytes = max(self._extra_bytes, len(batch.framed))

    def check_stall(self) -> None:
        """Close the client if it has not read its queued data for too long. Called every second."""
        buffered = self._sink.buffered
        if self._progress.seconds_stalled(buffered, time.monotonic()) > self._stall:
            self.close(CloseCode.TOO_SLOW)
        if buffered < self._budget:
            self._extra_bytes = 0

    def charge_arrival(self, message: bytes) -> None:
        """Charge for a message when it arrives, before it is processed. Raises :class:`PeerRefused`."""
        if protocol.is_awareness(message):
            self.charge_states()
        else:
            self.charge_update(len(message))

    def charge_update(self, size: int = 0) -> None:
        """Charge for an update, by its size in bytes. Raises :class:`PeerRefused` if it sent too many."""
        if not self._updates.consume(1 + size // LARGE_UPDATE_BYTES, time.monotonic()):
            raise PeerRefused(CloseCode.TOO_MANY)

    def charge_states(self, size: int | None = None) -> None:
        """Charge for an awareness message, or for the bytes that result from it. Raises :class:`PeerRefused`."""
        if not self._states.consume(1 if size is None else size // LARGE_STATES_BYTES, time.monotonic()):
            raise PeerRefused(CloseCode.TOO_MANY)

    def check_diff_budget(self) -> None:
        """Raise :class:`PeerRefused` if the client received too many bytes of missing changes."""
        if self._diffs.remaining(time.monotonic()) <= 0:
            raise PeerRefused(CloseCode.TOO_MANY)

    def charge_diff(self, size: int) -> None:
        """Charge for missing changes. A single reply may be of any size, so that every text can be loaded."""
        self._diffs.consume(size, time.monotonic())

    def probe(self) -> None:
        """Send a ping to detect a dead connection, at most once a minute."""
        now = time.monotonic()
        if now - self._probed_at > PROBE_INTERVAL_SECONDS:
            self._probed_at = now
            self._sink.probe()

    def reject_too_large(self) -> None:
        """Raise :class:`PeerRefused` for an update that would make the text too large."""
        raise PeerRefused(CloseCode.TOO_BIG)

    def notify_read_only(self) -> None:
        """Notify a read-only client, once, that its changes are not accepted."""
        if not self._notified_read_only:
            self._notified_read_only = True
            self.send(FrameBatch([protocol.denied("read only")]))

    def close(self, code: CloseCode) -> None:
        """Request that the connection be closed with this code."""
        if not self.closing.done():
            self.closing.set_result(code)
