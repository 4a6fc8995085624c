"""Divides the time of the event loop, and a thread for slow work, between the callers and rooms of a worker."""

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
    """The means to divide time between callers.

    Attributes:
        turns: Turns of the event loop.
        time_budgets: Time for updates by caller and note, in ``UPDATE_SECONDS``. Reconnecting does not refill it.
        pool: The thread for work that would block the event loop for too long.
    """

    turns: Turns
    time_budgets: TokenBuckets
    pool: FairPool

    async def run_in_thread(self, caller: str, work: Callable[[], T]) -> T:
        """Run a function when it is the caller's turn, and return its result.

        Only one runs at a time: it delays the event loop at each system call, as long as it holds Python's global lock.

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
