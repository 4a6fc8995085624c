"""Fail points: syntax and effects."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from realtime.failpoints import FailPointError, FailPoints


@pytest.mark.parametrize(
    "spec",
    [
        "nonsense",
        "nowhere:kill",
        "before_write",
        "before_write:",
        "before_write:explode",
        "before_write:kill:soon",
        "before_write:kill:",
        "before_write:kill:-1",
        "before_write:kill:1:2",
    ],
)
def test_invalid_spec_is_rejected_with_the_expected_syntax(spec: str) -> None:
    with pytest.raises(
        ValueError, match=r"expected <point>:<action>\[:<n>\], with a point of before_write, "
    ) as refused:
        FailPoints(spec)
    assert repr(spec) in str(refused.value)


async def test_fail_points_are_off_by_default() -> None:
    points = FailPoints()
    await points.hit("before_write")
    await points.hit("after_write_before_publish")


async def test_armed_point_acts_at_every_hit_and_others_do_not() -> None:
    points = FailPoints("before_write:raise")
    await points.hit("after_publish_before_clear")
    for _ in range(2):
        with pytest.raises(FailPointError, match="before_write"):
            await points.hit("before_write")


async def test_counted_point_acts_only_at_the_nth_hit() -> None:
    points = FailPoints("before_write:raise:2")
    await points.hit("before_write")
    with pytest.raises(FailPointError):
        await points.hit("before_write")
    await points.hit("before_write")


async def test_sleep_action_blocks_the_caller() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await FailPoints("before_write:sleep").hit("before_write")


def test_kill_action_ends_the_process_without_cleanup() -> None:
    program = """
import asyncio
from realtime.failpoints import FailPoints
try:
    asyncio.run(FailPoints("before_write:kill").hit("before_write"))
finally:
    print("cleaned up")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
