"""Shares the event loop, and a thread for slow work, fairly among the callers and rooms of a worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from realtime.core.close_codes import CloseCode
from realtime.core.fair_queue import Requester
from realtime.core.token_bucket import TokenBuckets
from realtime.errors import TooManyRequests, Unavailable
from realtime.rooms.peer import PeerRefused

if TYPE_CHECKING:
    from realtime.core.fair_queue import FairPool
    from realtime.core.turns import Turns

T = TypeVar("T")


LONG_UPDATE_SECONDS = 0.004
"""Processing time above which an update noticeably delays other clients."""
LONG_UPDATE_FACTOR = 20
"""The factor by which the processing time of a long update is multiplied when the caller is charged for it."""
TIME_SHARE = 0.1
"""Maximum processing time for one caller and note, as a share of the event loop's time."""
TIME_BURST_SECONDS = 2.0
"""Maximum burst of processing time for one caller and note."""


class Scheduler:
    """Shares processing time fairly among callers.

    Args:
        turns: Lets callers block the event loop, one at a time and in turn.
        pool: The thread for work that would block the event loop for too long.
    """

    def __init__(self, turns: Turns, pool: FairPool) -> None:
        self.turns = turns
        self._pool = pool
        self._budgets = TokenBuckets(TIME_SHARE, TIME_BURST_SECONDS)  # reconnecting does not refill them

    def check_budget(self, caller: str, note: int) -> None:
        """Raise :class:`PeerRefused` if a caller has used up its processing time for a note."""
        if self._budgets.remaining((caller, note), time.monotonic()) < 0:
            raise PeerRefused(CloseCode.TOO_MANY)

    def charge(self, caller: str, note: int, seconds: float) -> None:
        """Charge a caller for processing time."""
        self._budgets.consume((caller, note), seconds, time.monotonic())

    def charge_update(self, caller: str, note: int, seconds: float, *, in_turn: bool) -> bool:
        """Charge a caller for an update that took a long time or needed a turn. Return whether it took a long time.

        Other clients had to wait for a long update, so its time is multiplied by :data:`LONG_UPDATE_FACTOR`.
        """
        is_long = seconds > LONG_UPDATE_SECONDS
        if is_long or in_turn:
            self.charge(caller, note, seconds * (LONG_UPDATE_FACTOR if is_long else 1))
        return is_long

    async def run_for_caller(self, caller: str, work: Callable[[], T]) -> T:
        """Run a function in the thread when it is the caller's turn, and return its result.

        Functions run one at a time. While one of them holds Python's global interpreter lock, the event loop, which
        releases the lock for each system call, has to wait to get it back.

        Raises:
            PeerRefused: Too many functions are waiting.
        """
        try:
            return await self._pool.run(Requester(caller, caller), work)
        except TooManyRequests:
            raise PeerRefused(CloseCode.TOO_MANY) from None

    async def run_for_note(self, note: int, work: Callable[[], T]) -> T:
        """Run a function in the thread on behalf of all clients of a note. Raises :class:`Unavailable`."""
        try:
            return await self._pool.run(Requester(f"note {note}", "note"), work)
        except TooManyRequests:
            raise Unavailable from None
