"""Shares the event loop, and a thread for slow work, fairly among the callers and rooms of a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from realtime.core.close_codes import CloseCode
from realtime.core.fair_queue import Requester
from realtime.errors import TooManyRequests, Unavailable
from realtime.rooms.peer import PeerRefused

if TYPE_CHECKING:
    from realtime.core.fair_queue import FairPool
    from realtime.core.token_bucket import TokenBuckets
    from realtime.core.turns import Turns

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Shares processing time fairly among callers.

    Attributes:
        turns: Turns of the event loop.
        time_budgets: Processing time left for each caller and note, in ``UPDATE_SECONDS``. Reconnecting does not
            refill it.
        pool: The thread for work that would block the event loop for too long.
    """

    turns: Turns
    time_budgets: TokenBuckets
    pool: FairPool

    async def run_for_caller(self, caller: str, work: Callable[[], T]) -> T:
        """Run a function in the thread when it is the caller's turn, and return its result.

        Only one function runs at a time: while it holds Python's global interpreter lock, the event loop has to wait
        for the lock after each system call.

        Raises:
            PeerRefused: Too many functions are waiting.
        """
        try:
            return await self.pool.run(Requester(caller, caller), work)
        except TooManyRequests:
            raise PeerRefused(CloseCode.TOO_MANY) from None

    async def run_for_note(self, note: int, work: Callable[[], T]) -> T:
        """Run a function in the thread on behalf of all clients of a note. Raises :class:`Unavailable`."""
        try:
            return await self.pool.run(Requester(f"note {note}", "note"), work)
        except TooManyRequests:
            raise Unavailable from None
