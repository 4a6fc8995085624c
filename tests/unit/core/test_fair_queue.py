"""The queue in front of password hashing: bounded, fair between networks, known devices first."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from realtime.auth.passwords import Passwords
from realtime.core.fair_queue import TRUSTED_IN_A_ROW, FairPool, FairQueue, QueueLimits, QueueTicket, Requester
from realtime.errors import TooManyRequests
from tests.support.harness import eventually

MAX_PER_MEMBER, MAX_PER_GROUP, MAX_PER_LANE = QueueLimits()


def add(queue: FairQueue, group: str, member: str = "", *, trusted: bool = False, ready: bool = True) -> QueueTicket:
    """Add a ticket, ready to be served by default."""
    ticket = queue.admit(Requester(group, member or group, trusted))
    ticket.ready = ready
    return ticket


def serve_all(queue: FairQueue) -> list[str]:
    """Serve all tickets, and return their members in that order."""
    served = []
    while (ticket := queue.pop()) is not None:
        served.append(ticket.requester.member)
    return served


class TestFairQueue:
    async def test_groups_are_served_in_turn(self) -> None:
        queue = FairQueue()
        for _ in range(3):
            add(queue, "flood")
        add(queue, "other")
        assert serve_all(queue) == ["flood", "other", "flood", "flood"]

    async def test_members_of_a_group_are_served_in_turn(self) -> None:
        queue = FairQueue()
        for member in ("a", "a", "a", "b"):
            add(queue, "network", member)
        add(queue, "other")
        assert serve_all(queue) == ["a", "other", "b", "a", "a"]

    async def test_new_group_waits_for_at_most_one_ticket_per_group(self) -> None:
        queue = FairQueue()
        for _ in range(10):
            for number in range(100):
                try:
                    add(queue, f"flood-{number}")
                except TooManyRequests:
                    continue
        add(queue, "newcomer")
        assert serve_all(queue).index("newcomer") <= 100

    async def test_member_with_a_full_queue_is_refused(self) -> None:
        queue = FairQueue()
        for _ in range(MAX_PER_MEMBER):
            add(queue, "flood")
        with pytest.raises(TooManyRequests) as refused:
            add(queue, "flood")
        assert refused.value.seconds > 0
        add(queue, "other")

    async def test_full_group_drops_the_newest_ticket_of_its_largest_member(self) -> None:
        queue = FairQueue()
        flood = [add(queue, "network", member) for member in ("a", "b") for _ in range(MAX_PER_GROUP // 2)]
        add(queue, "network", "neighbor")
        dropped = [ticket for ticket in flood if ticket.turn.done()]
        assert dropped == [flood[MAX_PER_GROUP // 2 - 1]]
        with pytest.raises(TooManyRequests):
            await dropped[0].turn
        assert len(serve_all(queue)) == MAX_PER_GROUP

    async def test_full_lane_drops_tickets_of_the_largest_group(self) -> None:
        queue = FairQueue()
        flood = [add(queue, f"flood-{number // 8}") for number in range(MAX_PER_LANE)]
        newcomers = [add(queue, f"newcomer-{number}") for number in range(16)]
        assert sum(ticket.turn.done() for ticket in flood) == len(newcomers)
        assert not any(ticket.turn.done() for ticket in newcomers)
        for ticket in flood:
            assert not ticket.turn.done() or isinstance(ticket.turn.exception(), TooManyRequests)

    async def test_full_lane_of_equal_groups_refuses_a_new_group(self) -> None:
        queue = FairQueue()
        for number in range(MAX_PER_LANE):
            add(queue, f"network-{number}")
        with pytest.raises(TooManyRequests):
            add(queue, "newcomer")
        add(queue, "ann", "device", trusted=True)

    async def test_trusted_tickets_are_served_first_without_blocking_others(self) -> None:
        queue = FairQueue()
        for number in range(2):
            add(queue, "stranger", f"stranger-{number}")
        for number in range(10):
            add(queue, f"user-{number}", trusted=True)
        served = serve_all(queue)
        assert served.index("stranger-0") == TRUSTED_IN_A_ROW
        assert served.index("stranger-1") == 2 * TRUSTED_IN_A_ROW + 1

    async def test_ticket_that_is_not_ready_is_skipped(self) -> None:
        queue = FairQueue()
        delayed = add(queue, "a", ready=False)
        add(queue, "a", "a2")
        add(queue, "b")
        assert serve_all(queue) == ["a2", "b"]
        delayed.ready = True
        assert serve_all(queue) == ["a"]

    async def test_discarded_ticket_is_not_served(self) -> None:
        queue = FairQueue()
        ticket = add(queue, "a")
        queue.discard(ticket)
        queue.discard(ticket)
        assert serve_all(queue) == []


class TestFairPool:
    async def test_functions_do_not_run_concurrently(self) -> None:
        pool, running, peak = FairPool("test"), 0, 0

        def work() -> None:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            threading.Event().wait(0.002)
            running -= 1

        await asyncio.gather(*(pool.run(Requester(f"{number}", ""), work) for number in range(20)))
        await pool.aclose()
        assert peak == 1

    async def test_pool_that_pauses_is_idle_after_a_function_for_as_long_as_it_ran(self) -> None:
        pool, periods = FairPool("test", pauses=True), []

        def work() -> None:
            started, until = time.monotonic(), time.thread_time() + 0.05
            while time.thread_time() < until:
                pass
            periods.append((started, time.monotonic()))

        await asyncio.gather(pool.run(Requester("a", ""), work), pool.run(Requester("b", ""), work))
        await pool.aclose()
        (_, ended), (next_started, _) = periods
        assert next_started - ended >= 0.05

    async def test_failed_function_raises_and_the_next_request_is_served(self) -> None:
        pool = FairPool("test")
        with pytest.raises(ZeroDivisionError):
            await pool.run(Requester("a", "a"), lambda: 1 // 0)
        assert await pool.run(Requester("a", "a"), lambda: 1) == 1
        await pool.aclose()

    async def test_cancelled_requests_do_not_block_the_next_request(self) -> None:
        pool, started, finish = FairPool("test"), threading.Event(), threading.Event()

        def work() -> bool:
            started.set()
            return finish.wait(60)

        requester = Requester("a", "a")
        tasks = [asyncio.create_task(pool.run(requester, work)) for _ in range(3)]
        await eventually(started.is_set)
        started.clear()
        for task in tasks[:2]:
            task.cancel()
        await asyncio.wait(tasks[:2])
        assert not started.is_set(), "the thread still runs the function of the first request"
        finish.set()
        assert await tasks[2]
        await pool.aclose()

    async def test_delayed_request_is_served_and_counts_as_waiting(self) -> None:
        pool = FairPool("test")
        delayed = [
            asyncio.create_task(pool.run(Requester("a", "a"), lambda: "done", delay=60)) for _ in range(MAX_PER_MEMBER)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests):
            await pool.run(Requester("a", "a"), lambda: "done")
        assert await pool.run(Requester("b", "b"), lambda: "done", delay=0.001) == "done"
        for task in delayed:
            task.cancel()
        await asyncio.wait(delayed)
        assert await pool.run(Requester("a", "a"), lambda: "done") == "done"
        await pool.aclose()

    async def test_dropped_request_is_refused_during_its_delay(self) -> None:
        pool = FairPool("test")
        flood = [
            asyncio.create_task(pool.run(Requester("a", f"{number % 2}"), lambda: 1, delay=60))
            for number in range(MAX_PER_GROUP)
        ]
        await asyncio.sleep(0)
        assert await pool.run(Requester("a", "neighbor"), lambda: 1) == 1
        dropped, others = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in dropped] == [TooManyRequests]
        for task in others:
            task.cancel()
        await asyncio.wait(others)
        await pool.aclose()


async def test_passwords_are_hashed_while_all_other_threads_are_busy() -> None:
    """Diffs, merges and imports run in the default pool of the event loop."""
    finish, passwords = threading.Event(), Passwords(8)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    busy = [asyncio.create_task(asyncio.to_thread(partial(finish.wait, 60))) for _ in range(2)]
    await asyncio.sleep(0)
    requester = Requester("a", "a")
    stored = await passwords.hash("correct horse battery staple", [], requester)
    assert await passwords.verify("correct horse battery staple", stored, requester) == (True, None)
    assert not any(task.done() for task in busy)
    finish.set()
    await asyncio.gather(*busy)
    await passwords.aclose()
