"""Batches: grouping, sharing of results, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from realtime.store.batcher import GATHER_LOOP_TURNS, MAX_BATCH_ITEMS, MAX_CONCURRENT_CALLS, Batcher


class Late(Exception):
    """The error of these batches."""


class Calls:
    """Records the items of each call, and blocks each call until it is released."""

    def __init__(self) -> None:
        self.items: list[Sequence[str]] = []
        self._ends: list[asyncio.Future[None]] = []

    async def run(self, items: Sequence[str]) -> list[str | Exception]:
        self.items.append(items)
        end = asyncio.get_running_loop().create_future()
        self._ends.append(end)
        await end
        return [KeyError(item) if item.startswith("bad") else item.upper() for item in items]

    async def end(self, error: BaseException | None = None) -> None:
        """Ends the first call that is under way."""
        end = self._ends.pop(0)
        if error is None:
            end.set_result(None)
        else:
            end.set_exception(error)
        await settled()


async def settled() -> None:
    for _ in range(GATHER_LOOP_TURNS + 5):
        await asyncio.sleep(0)


def batches(
    calls: Calls, *, share: bool = False, timeout: float = 10, limit: int = MAX_BATCH_ITEMS
) -> Batcher[str, str]:
    # An item is its key and a number: a1, a2, b1 …
    return Batcher(calls.run, lambda item: item[:-1], share=share, timeout=timeout, error=Late, limit=limit)


async def given(to: Batcher[str, str], *items: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(to.put(item)) for item in items]
    await settled()
    return tasks


async def test_at_rest_nothing_waits_and_under_load_what_came_goes_together() -> None:
    calls = Calls()
    some = batches(calls)
    tasks = [task for item in ("a1", "b1", "c1", "d1", "e1") for task in await given(some, item)]
    assert MAX_CONCURRENT_CALLS == 2
    assert calls.items == [["a1"], ["b1"]]
    await calls.end()
    assert calls.items == [["a1"], ["b1"], ["c1", "d1"]], "both calls under way get as much"
    await calls.end()
    assert calls.items[3:] == [["e1"]]
    await calls.end()
    await calls.end()
    assert [await task for task in tasks] == ["A1", "B1", "C1", "D1", "E1"]
    (last,) = await given(some, "f1")  # and it starts again
    await calls.end()
    assert await last == "F1"


async def test_who_was_answered_is_waited_for_a_moment_while_others_are_under_way() -> None:
    calls = Calls()
    some = batches(calls)
    tasks = await given(some, "a1", "b1", "c1", "d1")
    assert calls.items == [["a1", "b1"], ["c1", "d1"]]

    async def asks_again(answered: asyncio.Task[str], item: str) -> str:
        await answered
        await asyncio.sleep(0)
        return await some.put(item)

    again = [asyncio.create_task(asks_again(task, item)) for task, item in zip(tasks, ("e1", "f1"), strict=False)]
    await calls.end()
    assert calls.items[2:] == [["e1", "f1"]]
    for _ in range(2):
        await calls.end()
    assert [await task for task in (*tasks, *again)] == ["A1", "B1", "C1", "D1", "E1", "F1"]


async def test_no_call_has_a_key_twice_or_too_many_items() -> None:
    calls = Calls()
    some = batches(calls, limit=2)
    tasks = await given(some, "x1", "y1", "a1", "a2", "b1", "c1")
    assert calls.items == [["x1", "y1"], ["a1", "b1"]]
    await calls.end()
    assert calls.items[2] == ["a2", "c1"]
    for _ in range(2):
        await calls.end()
    assert [await task for task in tasks] == ["X1", "Y1", "A1", "A2", "B1", "C1"]


async def test_shared_results_are_of_calls_that_began_after_they_were_asked_for() -> None:
    calls = Calls()
    some = batches(calls, share=True)
    (first,) = await given(some, "a1")
    others = await given(some, "a2", "a3", "b1")
    assert calls.items == [["a1"], ["b1"]]
    await calls.end()
    assert calls.items == [["a1"], ["b1"], ["a2"]]
    assert await first == "A1"
    for _ in range(2):
        await calls.end()
    assert [await task for task in others] == ["A2", "A2", "B1"]


async def test_failure_of_one_is_its_own_and_of_the_call_everyone_s() -> None:
    calls = Calls()
    some = batches(calls)
    tasks = await given(some, "a1", "bad1", "c1", "d1")
    assert calls.items == [["a1", "bad1"], ["c1", "d1"]]
    for _ in range(2):
        await calls.end()
    assert await tasks[0] == "A1"
    with pytest.raises(KeyError, match="bad1"):
        await tasks[1]
    tasks = await given(some, "a1", "b1", "c1", "d1")
    await calls.end(OSError("away"))
    await calls.end()
    assert await tasks[2] == "C1"
    for task in tasks[:2]:
        with pytest.raises(OSError, match="away"):
            await task
    (task,) = await given(some, "a1")
    await calls.end()
    assert await task == "A1"


async def test_who_waits_too_long_or_goes_away_holds_up_nobody() -> None:
    calls = Calls()
    some = batches(calls, timeout=0.05)
    late = [task for item in ("a1", "b1", "c1") for task in await given(some, item)]
    for task in late:
        with pytest.raises(Late):
            await task
    for _ in range(2):
        await calls.end()
    assert calls.items == [["a1"], ["b1"]]  # the third goes nowhere
    some = batches(calls)
    gone, stays = await given(some, "c1", "c2")
    gone.cancel()
    for _ in range(2):
        await calls.end()
    assert await stays == "C2"


async def test_nobody_waits_for_ever_when_the_loop_ends_a_call() -> None:
    calls = Calls()
    some = batches(calls)
    (task,) = await given(some, "a1")
    await calls.end(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await task
    (task,) = await given(some, "b1")
    await calls.end()
    assert await task == "B1"
