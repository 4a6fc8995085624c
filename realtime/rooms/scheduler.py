"""Shares processing time fairly among the callers and rooms of a worker.

Callers and rooms take turns on the event loop, in a thread, and in a process for slow work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from realtime.core.close_codes import CloseCode
from realtime.core.fair_queue import Requester
from realtime.core.helper_process import HelperLost
from realtime.core.token_bucket import TokenBuckets
from realtime.errors import TooManyRequests, Unavailable
from realtime.rooms.peer import PeerRefused

if TYPE_CHECKING:
    from realtime.core.fair_queue import FairPool
    from realtime.core.turns import Turns

T = TypeVar("T")


LONG_UPDATE_SECONDS = 0.004
"""Processing time above which an update noticeably delays other clients."""
LONG_UPDATE_FACTOR = 5000
"""The charge for a long update is this factor times the square of its processing time in seconds. An update of 4 ms is
charged 80 ms."""
TIME_SHARE = 0.05
"""Maximum processing time for one caller and note, as a share of the event loop's time."""
TIME_BURST_SECONDS = 1.0
"""Maximum burst of processing time for one caller and note."""


class Scheduler:
    """Shares processing time fairly among callers.

    Args:
        turns: Lets callers block the event loop, one at a time and in turn.
        pool: The thread and the process for work that would block the event loop for too long.
    """

    def __init__(self, turns: Turns, pool: FairPool) -> None:
        self.turns = turns
        self._pool = pool
        self._allowances = TokenBuckets(TIME_SHARE, TIME_BURST_SECONDS)  # reconnecting does not refill them

    def check_allowance(self, caller: str, note: int) -> None:
        """Raise :class:`PeerRefused` if a caller has used up its allowance of processing time for a note."""
        if self._allowances.remaining((caller, note), time.monotonic()) < 0:
            raise PeerRefused(CloseCode.TOO_MANY)

    def charge(self, caller: str, note: int, seconds: float) -> None:
        """Charge a caller for processing time."""
        self._allowances.consume((caller, note), seconds, time.monotonic())

    def charge_update(self, caller: str, note: int, seconds: float, *, in_turn: bool) -> bool:
        """Charge a caller for an update that took a long time or needed a turn. Return whether it took a long time.

        A longer update delays more clients, and delays each of them for longer. The charge therefore grows with the
        square of the processing time.

        Args:
            caller: The caller.
            note: The id of the note.
            seconds: The processing time.
            in_turn: Whether the update could be expected to take a long time, and therefore had to wait for a turn.
        """
        is_long = seconds > LONG_UPDATE_SECONDS
        if is_long or in_turn:
            self.charge(caller, note, seconds**2 * LONG_UPDATE_FACTOR if is_long else seconds)
        return is_long

    async def run_in_process_for_caller(self, caller: str, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in another process when it is the caller's turn, and return its result.

        Raises:
            PeerRefused: Too many calls are waiting, or the process ended repeatedly.
        """
        try:
            return await self._pool.run_in_process(Requester(caller, caller), function, *arguments)
        except (TooManyRequests, HelperLost):  # close code 4029 keeps clients from reconnecting at once
            raise PeerRefused(CloseCode.TOO_MANY) from None

    async def run_in_process_for_note(self, note: int, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in another process on behalf of all clients of a note. Raises :class:`Unavailable`."""
        try:
            return await self._pool.run_in_process(_requester(note), function, *arguments)
        except (TooManyRequests, HelperLost):
            raise Unavailable("The server cannot process the text right now. Try again") from None

    async def run_in_thread_for_note(self, note: int, work: Callable[[], T]) -> T:
        """Run a function in a thread on behalf of all clients of a note. Raises :class:`Unavailable`.

        The event loop releases Python's global interpreter lock for each system call. While the function holds the
        lock, the event loop has to wait to get it back.
        """
        try:
            return await self._pool.run(_requester(note), work)
        except TooManyRequests:
            raise Unavailable from None


def _requester(note: int) -> Requester:
    return Requester(f"note {note}", "note")
