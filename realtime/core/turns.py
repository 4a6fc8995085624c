"""Fair scheduling of work that blocks the event loop for milliseconds, such as encoding a large document."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager

SLICE_SECONDS = 0.005
"""How long the event loop may be kept from other clients at a time."""


class Turns:
    """Lets callers use the event loop for expensive work, one at a time and each in turn.

    After a turn, the loop belongs to everyone else for as long as the turn took. A caller that always has more work
    to do therefore takes at most half of the loop's time, and delays another caller by one turn at most.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._taken = False
        self._owed = 0.0

    @asynccontextmanager
    async def turn(self, caller: Hashable) -> AsyncGenerator[None]:
        """Wait for a turn, and keep it until the block ends. The block must not await anything slow."""
        turn = self._next(caller)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            raise
        started = time.perf_counter()
        try:
            yield
        finally:
            self._rest(time.perf_counter() - started)

    def call_soon(self, caller: Hashable, work: Callable[[], None]) -> None:
        """Call ``work`` when it is the caller's turn, but not before this method returns."""

        def run(_: asyncio.Future[None]) -> None:
            started = time.perf_counter()
            try:
                work()
            finally:
                self._rest(time.perf_counter() - started)

        self._next(caller).add_done_callback(run)

    def _next(self, caller: Hashable) -> asyncio.Future[None]:
        """Return a future that is done when it is the caller's turn."""
        turn = asyncio.get_running_loop().create_future()
        if self._taken:
            self._waiting.setdefault(caller, deque()).append(turn)
        else:
            self._taken = True
            turn.set_result(None)
        return turn

    def _rest(self, seconds: float) -> None:
        """Leave the loop to everyone else. Short turns are added up: timers are too coarse for them."""
        loop = asyncio.get_running_loop()
        self._owed += seconds
        if self._owed < SLICE_SECONDS:
            loop.call_soon(self._pass_on)
        else:
            loop.call_later(self._owed, self._pass_on)
            self._owed = 0.0

    def _pass_on(self) -> None:
        """Give the turn to the caller that has waited longest, and move that caller to the end of the line."""
        while self._waiting:
            caller = next(iter(self._waiting))
            turns = self._waiting.pop(caller)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._taken = False
