"""Calls that go to MongoDB together: what comes while others are under way is the next command.

A command costs the driver and the server more than what a small document in it does; and at rest nothing waits.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

UNDER_WAY = 2
"""Calls: while MongoDB does what one asks for, the answers of the other are worked up."""
MOST = 64
TURNS = 6
"""Of the loop, under load, before what waits is taken: who was answered a moment ago may ask for the next."""


class Batcher(Generic[T, R]):
    """Calls of ``run``, each with what waits: at most so many items, and none twice.

    Items of a key may ``share`` a result: then only one is worked on at a time, and those that came meanwhile get the
    next. ``run`` returns a result for each item, in their order; one that is an exception is raised to whoever gave it.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        key: Callable[[T], Hashable],
        *,
        share: bool,
        timeout: float,
        error: type[Exception],
        most: int = MOST,
        under_way: int = UNDER_WAY,
    ) -> None:
        self._run = run
        self._key = key
        self._share = share
        self._timeout = timeout
        self._error = error
        self._most = most
        self._most_under_way = under_way
        self._waiting: dict[Hashable, list[tuple[T, asyncio.Future[R]]]] = {}
        self._busy: set[Hashable] = set()
        self._under_way = 0
        self._items_under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, item: T) -> R:
        """The result for an item. Raises ``error`` if there is none in time: it may be worked on all the same."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(self._key(item), []).append((item, done))
        if self._under_way < self._most_under_way:
            self._under_way += 1
            # In a context of its own: what holds for whoever came first holds for nobody else.
            task = asyncio.create_task(self._work(), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(self._timeout):
                return await done
        except TimeoutError:
            raise self._error from None

    async def _work(self) -> None:
        try:
            if self._items_under_way:
                await self._gather()
            while batch := self._next():
                if self._share:
                    self._busy |= batch.keys()
                self._items_under_way += len(batch)
                try:
                    await self._answer(list(batch.values()))
                finally:
                    self._busy -= batch.keys()
                    self._items_under_way -= len(batch)
                await self._gather()
        finally:
            self._under_way -= 1

    @staticmethod
    async def _gather() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def _answer(self, batch: Sequence[tuple[T, Sequence[asyncio.Future[R]]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except BaseException as error:
            if not isinstance(error, Exception):
                for _, waiting in batch:
                    for done in waiting:
                        done.cancel()
                raise
            results = [error] * len(batch)
        for (_, waiting), result in zip(batch, results, strict=True):
            for done in waiting:
                if done.done():  # nobody waits for it any more
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    def _next(self) -> dict[Hashable, tuple[T, list[asyncio.Future[R]]]]:
        """Takes what goes next; what nobody waits for any more goes nowhere.

        A call gets its share of what waits and is under way: if one took all, none would be under way beside it.
        """
        most = min(self._most, -(-(len(self._waiting) + self._items_under_way) // self._most_under_way))
        batch: dict[Hashable, tuple[T, list[asyncio.Future[R]]]] = {}
        left = {}
        for key, some in self._waiting.items():
            waiting = [one for one in some if not one[1].done()]
            if waiting and key not in self._busy and len(batch) < most:
                many = len(waiting) if self._share else 1
                batch[key] = waiting[0][0], [done for _, done in waiting[:many]]
                waiting = waiting[many:]
            if waiting:
                left[key] = waiting
        self._waiting = left
        return batch
