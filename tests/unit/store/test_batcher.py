"""Batches: grouping, sharing of results, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from realtime.store.batcher import GATHER_LOOP_TURNS, MAX_BATCH_ITEMS, MAX_CONCURRENT_CALLS, Batcher


class BatchTimeout(Exception):
    """Raised by these batchers on a timeout."""


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
        """End the first running call."""
        end = self._ends.pop(0)
        if error is None:
            end.set_result(None)
        else:
            end.set_exception(error)
        await settled()


async def settled() -> None:
    for _ in range(GATHER_LOOP_TURNS + 5):
        await asyncio.sleep(0)


class KeyedBatcher(Batcher[str, str]):
    """A batcher whose items consist of a key and a number: a1, a2, b1 …."""

    def key_of(self, item: str) -> str:
        """Return the key of an item."""
        return item[:-1]


def make_batcher(
    calls: Calls, *, share: bool = False, timeout: float = 10, limit: int = MAX_BATCH_ITEMS
) -> Batcher[str, str]:
    return KeyedBatcher(calls.run, share=share, timeout=timeout, error=BatchTimeout, limit=limit)


async def put_all(to: Batcher[str, str], *items: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(to.put(item)) for item in items]
    await settled()
    return tasks


async def test_idle_batcher_calls_at_once_and_loaded_one_groups_items() -> None:
    calls = Calls()
    batcher = make_batcher(calls)
    tasks = [task for item in ("a1", "b1", "c1", "d1", "e1") for task in await put_all(batcher, item)]
    assert MAX_CONCURRENT_CALLS == 2
    assert calls.items == [["a1"], ["b1"]]
    await calls.end()
    assert calls.items == [["a1"], ["b1"], ["c1", "d1"]], "both running calls get an equal share"
    await calls.end()
    assert calls.items[3:] == [["e1"]]
    await calls.end()
    await calls.end()
    assert [await task for task in tasks] == ["A1", "B1", "C1", "D1", "E1"]
    (last,) = await put_all(batcher, "f1")  # the batcher can be used again
    await calls.end()
    assert await last == "F1"


async def test_batcher_waits_briefly_for_callers_that_were_just_answered() -> None:
    calls = Calls()
    batcher = make_batcher(calls)
    tasks = await put_all(batcher, "a1", "b1", "c1", "d1")
    assert calls.items == [["a1", "b1"], ["c1", "d1"]]

    async def asks_again(answered: asyncio.Task[str], item: str) -> str:
        await answered
        await asyncio.sleep(0)
        return await batcher.put(item)

    again = [asyncio.create_task(asks_again(task, item)) for task, item in zip(tasks, ("e1", "f1"), strict=False)]
    await calls.end()
    assert calls.items[2:] == [["e1", "f1"]]
    for _ in range(2):
        await calls.end()
    assert [await task for task in (*tasks, *again)] == ["A1", "B1", "C1", "D1", "E1", "F1"]


async def test_call_has_unique_keys_and_a_limited_number_of_items() -> None:
    calls = Calls()
    batcher = make_batcher(calls, limit=2)
    tasks = await put_all(batcher, "x1", "y1", "a1", "a2", "b1", "c1")
    assert calls.items == [["x1", "y1"], ["a1", "b1"]]
    await calls.end()
    assert calls.items[2] == ["a2", "c1"]
    for _ in range(2):
        await calls.end()
    assert [await task for task in tasks] == ["X1", "Y1", "A1", "A2", "B1", "C1"]


async def test_shared_results_come_from_calls_started_after_the_request() -> None:
    calls = Calls()
    batcher = make_batcher(calls, share=True)
    (first,) = await put_all(batcher, "a1")
    others = await put_all(batcher, "a2", "a3", "b1")
    assert calls.items == [["a1"], ["b1"]]
    await calls.end()
    assert calls.items == [["a1"], ["b1"], ["a2"]]
    assert await first == "A1"
    for _ in range(2):
        await calls.end()
    assert [await task for task in others] == ["A2", "A2", "B1"]


async def test_failed_item_fails_alone_and_failed_call_fails_all_items() -> None:
    calls = Calls()
    batcher = make_batcher(calls)
    tasks = await put_all(batcher, "a1", "bad1", "c1", "d1")
    assert calls.items == [["a1", "bad1"], ["c1", "d1"]]
    for _ in range(2):
        await calls.end()
    assert await tasks[0] == "A1"
    with pytest.raises(KeyError, match="bad1"):
        await tasks[1]
    tasks = await put_all(batcher, "a1", "b1", "c1", "d1")
    await calls.end(OSError("away"))
    await calls.end()
    assert await tasks[2] == "C1"
    for task in tasks[:2]:
        with pytest.raises(OSError, match="away"):
            await task
    (task,) = await put_all(batcher, "a1")
    await calls.end()
    assert await task == "A1"


async def test_timed_out_or_cancelled_items_do_not_delay_others() -> None:
    calls = Calls()
    batcher = make_batcher(calls, timeout=0.05)
    late = [task for item in ("a1", "b1", "c1") for task in await put_all(batcher, item)]
    for task in late:
        with pytest.raises(BatchTimeout):
            await task
    for _ in range(2):
        await calls.end()
    assert calls.items == [["a1"], ["b1"]]  # the third item is in no call
    batcher = make_batcher(calls)
    gone, stays = await put_all(batcher, "c1", "c2")
    gone.cancel()
    for _ in range(2):
        await calls.end()
    assert await stays == "C2"


async def test_cancelled_call_cancels_its_waiting_items() -> None:
    calls = Calls()
    batcher = make_batcher(calls)
    (task,) = await put_all(batcher, "a1")
    await calls.end(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await task
    (task,) = await put_all(batcher, "b1")
    await calls.end()
    assert await task == "B1"
