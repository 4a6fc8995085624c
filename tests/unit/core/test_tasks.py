"""Background tasks: they are restarted after errors, and end with their owner."""

from __future__ import annotations

import asyncio
import logging

import pytest

from realtime.core.tasks import keep_running, running
from tests.support.harness import eventually


class FlakyTask:
    """A task that fails a number of times and then runs indefinitely."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.runs = 0
        self.working = False

    async def __call__(self) -> None:
        """Fail the given number of times, then wait until cancelled."""
        self.runs += 1
        if self.runs <= self.failures:
            raise OSError(f"failure {self.runs}")
        self.working = True
        try:
            await asyncio.Event().wait()
        finally:
            self.working = False


async def test_failed_task_is_restarted_and_each_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    task = FlakyTask(failures=3)
    with caplog.at_level(logging.WARNING, "realtime.core.tasks"):
        async with running({"flaky": task}):
            await eventually(lambda: task.working)
    assert task.runs == 4
    assert [record.__dict__["error"] for record in caplog.records] == ["failure 1", "failure 2", "failure 3"]
    assert {record.getMessage() for record in caplog.records} == {"flaky failed, restarting"}


async def test_keep_running_returns_when_the_task_returns() -> None:
    async def once() -> None:
        calls.append(1)

    calls: list[int] = []
    await keep_running("once", once)
    assert calls == [1]


async def test_tasks_are_cancelled_and_awaited_when_the_block_ends() -> None:
    tasks = [FlakyTask(failures=0), FlakyTask(failures=0)]
    async with running({str(number): task for number, task in enumerate(tasks)}):
        await eventually(lambda: all(task.working for task in tasks))
    assert not any(task.working for task in tasks)


async def test_task_is_cancelled_when_the_block_fails() -> None:
    task = FlakyTask(failures=0)
    with pytest.raises(RuntimeError, match="the block"):
        async with running({"task": task}):
            await eventually(lambda: task.working)
            raise RuntimeError("the block")
    assert not task.working


async def test_task_is_cancelled_during_the_delay_after_a_failure() -> None:
    task = FlakyTask(failures=10**6)
    async with running({"hopeless": task}):
        await eventually(lambda: task.runs > 1)
    assert "hopeless" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_task_that_raises_on_cancellation_ends() -> None:
    """A library may replace the cancellation with its own error."""
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("the connection was lost") from None

    async with asyncio.timeout(20), running({"task": work}):
        await started.wait()
