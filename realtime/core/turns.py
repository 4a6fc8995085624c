"""Fair scheduling of work that blocks the event loop for milliseconds, such as encoding a large document."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager

SLICE_SECONDS = 0.002
"""The longest time for which one client should block the event loop."""
PAUSE_FACTOR = 3
"""Length of the pause after expensive work, in multiples of the time that the work took."""
MAX_PAUSE_FACTOR = 15
"""Length of the pause after the longest turns. Others wait longer for a long turn, and more often."""


class Turns:
    """Lets callers block the event loop with expensive work, one at a time and in turn.

    After each turn, the event loop is free for three times as long as the turn took, or longer after a turn of more
    than 2 ms, up to fifteen times. Callers with endless work therefore use at most a quarter of its time, and delay
    another caller by at most one turn and its pause.

    Args:
        max_pause_factor: The maximum length of a pause, in multiples of its turn.
    """

    def __init__(self, max_pause_factor: float = MAX_PAUSE_FACTOR) -> None:
        self._max_pause_factor = max_pause_factor
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._busy = False
        self._pending_delay = 0.0

    @asynccontextmanager
    async def turn(self, caller: Hashable) -> AsyncGenerator[None]:
        """Wait for a turn and hold it until the block ends. The block must not await anything slow."""
        turn = self._request_turn(caller)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._start_next()
            raise
        started = time.perf_counter()
        try:
            yield
        finally:
            self._end_turn(time.perf_counter() - started)

    def call_soon(self, caller: Hashable, work: Callable[[], None]) -> None:
        """Call ``work`` when it is the caller's turn, never before this method returns."""

        def run(_: asyncio.Future[None]) -> None:
            started = time.perf_counter()
            try:
                work()
            finally:
                self._end_turn(time.perf_counter() - started)

        self._request_turn(caller).add_done_callback(run)

    def _request_turn(self, caller: Hashable) -> asyncio.Future[None]:
        """Return a future that completes when it is the caller's turn."""
        turn = asyncio.get_running_loop().create_future()
        if self._busy:
            self._waiting.setdefault(caller, deque()).append(turn)
        else:
            self._busy = True
            turn.set_result(None)
        return turn

    def _end_turn(self, seconds: float) -> None:
        """Start the next turn after a delay. Delays of short turns are added up: timers are too coarse for them."""
        loop = asyncio.get_running_loop()
        factor = PAUSE_FACTOR * max(1.0, seconds / SLICE_SECONDS)
        self._pending_delay += min(factor, self._max_pause_factor) * seconds
        if self._pending_delay < SLICE_SECONDS:
            loop.call_soon(self._start_next)
        else:
            loop.call_later(self._pending_delay, self._start_next)
            self._pending_delay = 0.0

    def _start_next(self) -> None:
        """Start the turn of the caller that has waited longest, and move that caller to the end of the line."""
        while self._waiting:
            caller = next(iter(self._waiting))
            turns = self._waiting.pop(caller)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
