"""The thread and the process for slow work on shared texts: one function at a time, and a limit of waiting ones."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator

import pytest

from realtime.core.close_codes import CloseCode
from realtime.core.fair_queue import FairPool, QueueLimits
from realtime.core.turns import Turns
from realtime.errors import Unavailable
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


@pytest.fixture
async def busy(scheduler: Scheduler) -> AsyncIterator[threading.Event]:
    """Occupy the thread until the event is set."""
    started, finish = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        return finish.wait(10)

    running = asyncio.create_task(scheduler.run_in_thread_for_note(1, work))
    assert await asyncio.to_thread(started.wait, 10)
    yield finish
    finish.set()
    assert await running


async def test_caller_with_too_much_waiting_work_is_refused(scheduler: Scheduler, busy: threading.Event) -> None:
    waiting = asyncio.create_task(scheduler.run_in_process_for_caller("ann", len, "ab"))
    await asyncio.sleep(0)
    with pytest.raises(PeerRefused) as refused:
        await scheduler.run_in_process_for_caller("ann", len, "ab")
    assert refused.value.code is CloseCode.TOO_MANY
    other = asyncio.create_task(scheduler.run_in_process_for_caller("ben", len, "abc"))
    busy.set()
    assert await waiting == 2
    assert await other == 3


async def test_caller_whose_work_ends_the_process_is_disconnected(scheduler: Scheduler) -> None:
    with pytest.raises(PeerRefused) as refused:
        await scheduler.run_in_process_for_caller("ann", os._exit, 1)
    assert refused.value.code is CloseCode.TOO_MANY
    with pytest.raises(Unavailable):
        await scheduler.run_in_process_for_note(1, os._exit, 1)
    assert await scheduler.run_in_process_for_caller("ben", len, "ab") == 2


def test_update_that_took_long_is_charged_by_the_square_of_its_time(scheduler: Scheduler) -> None:
    assert not scheduler.charge_update("ann", 1, 0.003, in_turn=False)
    assert not scheduler.charge_update("ann", 1, 0.003, in_turn=True)
    assert scheduler.charge_update("ann", 1, 0.014, in_turn=False)
    scheduler.check_allowance("ann", 1)
    assert scheduler.charge_update("ann", 1, 0.014, in_turn=False)
    with pytest.raises(PeerRefused) as refused:
        scheduler.check_allowance("ann", 1)
    assert refused.value.code is CloseCode.TOO_MANY
    scheduler.check_allowance("ann", 2)
    scheduler.check_allowance("ben", 1)


async def test_recount_corrects_the_estimate(scheduler: Scheduler) -> None:
    writer, reader = TextDocument(client=5), TextDocument()
    for number in range(50):
        reader.apply(writer.edit([(number, number, "x")]))
    await recount(reader, reader.since(), scheduler, 1, "ann")
    assert reader.piece_count == 1


async def test_recount_keeps_the_growth_during_the_count(scheduler: Scheduler, busy: threading.Event) -> None:
    writer, reader = TextDocument(client=5), TextDocument()
    for number in range(50):
        reader.apply(writer.edit([(number, number, "x")]))
    counting = asyncio.create_task(recount(reader, reader.since(), scheduler, 1, "ann"))
    await asyncio.sleep(0)
    before = reader.piece_count
    reader.apply(writer.edit([(50, 50, "x")]))
    growth = reader.piece_count - before
    busy.set()
    await counting
    assert growth > 0
    assert reader.piece_count == 1 + growth
