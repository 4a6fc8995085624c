"""The thread for slow work on shared texts: one function at a time, and a limit of waiting ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from realtime.core.close_codes import CloseCode
from realtime.core.fair_queue import FairPool, QueueLimits
from realtime.core.turns import Turns
from realtime.rooms.crdt import TextDocument
from realtime.rooms.loader import recount
from realtime.rooms.peer import PeerRefused
from realtime.rooms.scheduler import Scheduler


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    """Return a scheduler whose thread accepts two functions of a caller."""
    pool = FairPool("test", QueueLimits(member=1))
    yield Scheduler(Turns(), pool)
    await pool.aclose()


async def test_caller_with_too_much_waiting_work_is_refused(scheduler: Scheduler) -> None:
    started, finish = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        return finish.wait(10)

    running = asyncio.create_task(scheduler.run_for_caller("ann", work))
    assert await asyncio.to_thread(started.wait, 10)
    waiting = asyncio.create_task(scheduler.run_for_caller("ann", work))
    await asyncio.sleep(0)
    with pytest.raises(PeerRefused) as refused:
        await scheduler.run_for_caller("ann", work)
    assert refused.value.code is CloseCode.TOO_MANY
    other = asyncio.create_task(scheduler.run_for_caller("ben", work))
    finish.set()
    assert all(await asyncio.gather(running, waiting, other))


def test_update_that_took_long_is_charged_several_times(scheduler: Scheduler) -> None:
    assert not scheduler.charge_update("ann", 1, 0.003, in_turn=False)
    assert not scheduler.charge_update("ann", 1, 0.003, in_turn=True)
    for _ in range(7):
        assert scheduler.charge_update("ann", 1, 0.014, in_turn=False)
    scheduler.check_budget("ann", 1)
    assert scheduler.charge_update("ann", 1, 0.014, in_turn=False)
    with pytest.raises(PeerRefused) as refused:
        scheduler.check_budget("ann", 1)
    assert refused.value.code is CloseCode.TOO_MANY
    scheduler.check_budget("ann", 2)
    scheduler.check_budget("ben", 1)


async def test_recount_corrects_the_estimate(scheduler: Scheduler) -> None:
    writer, reader = TextDocument(client=5), TextDocument()
    for number in range(50):
        reader.apply(writer.edit([(number, number, "x")]))
    await recount(reader, reader.since(), scheduler, "ann")
    assert reader.piece_count == 1


async def test_recount_keeps_the_growth_during_the_count(scheduler: Scheduler) -> None:
    writer, reader = TextDocument(client=5), TextDocument()
    for number in range(50):
        reader.apply(writer.edit([(number, number, "x")]))
    finish = threading.Event()
    blocking = asyncio.create_task(scheduler.run_for_caller("ben", lambda: finish.wait(10)))
    counting = asyncio.create_task(recount(reader, reader.since(), scheduler, "ann"))
    await asyncio.sleep(0)
    before = reader.piece_count
    reader.apply(writer.edit([(50, 50, "x")]))
    growth = reader.piece_count - before
    finish.set()
    await asyncio.gather(blocking, counting)
    assert growth > 0
    assert reader.piece_count == 1 + growth
