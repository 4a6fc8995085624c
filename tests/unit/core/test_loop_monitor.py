"""The lag of the event loop, and the error when the process itself blocked it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from realtime.core.loop_monitor import BLOCKED, BLOCKED_SECONDS, monitor_loop
from tests.support.harness import eventually


@pytest.fixture
async def lags(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[float]]:
    """Return the lags that a monitor measures during the test."""
    monkeypatch.setattr("realtime.core.loop_monitor.START_SECONDS", 0.0)
    measured: list[float] = []
    task = asyncio.create_task(monitor_loop(measured.append))
    await eventually(lambda: measured)
    measured.clear()
    yield measured
    task.cancel()


async def test_blocked_loop_is_measured_and_logged(lags: list[float], caplog: pytest.LogCaptureFixture) -> None:
    until = time.process_time() + 4 * BLOCKED_SECONDS
    while time.process_time() < until:
        pass
    await eventually(lambda: lags)
    assert lags[0] > BLOCKED_SECONDS
    assert [record.message for record in caplog.records] == [BLOCKED]


async def test_loop_that_waits_for_others_is_measured_and_not_logged(
    lags: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    time.sleep(3 * BLOCKED_SECONDS)  # noqa: ASYNC251  # blocks the loop, as another process would
    await eventually(lambda: lags)
    assert lags[0] > BLOCKED_SECONDS
    assert caplog.records == []
