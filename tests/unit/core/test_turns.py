"""Fair scheduling of expensive work: callers take turns, with pauses in between."""

from __future__ import annotations

import asyncio
import time

import pytest

from realtime.core.turns import SLICE_SECONDS, Turns


async def work(turns: Turns, caller: str, done: list[str], seconds: float = 0.0) -> None:
    async with turns.turn(caller):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        done.append(caller)


async def test_caller_with_many_requests_does_not_delay_other_callers() -> None:
    turns, done = Turns(), list[str]()
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(work(turns, "hostile", done))
        group.create_task(work(turns, "ann", done))
        group.create_task(work(turns, "ben", done))
    assert done == ["hostile", "hostile", "ann", "ben", "hostile", "hostile", "hostile"]


async def test_event_loop_runs_other_tasks_between_turns() -> None:
    turns, done = Turns(), list[str]()
    jobs = [asyncio.create_task(work(turns, "hostile", done, 2 * SLICE_SECONDS)) for _ in range(5)]
    others = 0
    while not all(job.done() for job in jobs):
        before = len(done)
        await asyncio.sleep(0)
        assert len(done) - before <= 1
        others += 1
    assert others > 50  # the loop was free for as long as the turns took


async def test_cancelled_callers_do_not_block_other_callers() -> None:
    turns, done = Turns(), list[str]()
    async with turns.turn("first"):
        waiting = [asyncio.create_task(work(turns, name, done)) for name in ("ann", "ben", "cid")]
        await asyncio.sleep(0)
        waiting[0].cancel()
    await asyncio.sleep(0)
    waiting[1].cancel()  # it may already have its turn
    await asyncio.wait(waiting)
    assert waiting[2].exception() is None
    assert done[-1] == "cid"
    async with asyncio.timeout(5):
        await work(turns, "next", done)


async def test_failed_work_ends_its_turn() -> None:
    turns, done = Turns(), list[str]()
    with pytest.raises(ZeroDivisionError):
        async with turns.turn("ann"):
            raise ZeroDivisionError
    async with asyncio.timeout(5):
        await work(turns, "ben", done)
