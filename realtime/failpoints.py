"""Failpoints: named points at which a fault test can kill the process, raise an error or wait. Off by default."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Literal, get_args

Point = Literal[
    "before_write",
    "after_write_before_publish",
    "after_publish_before_clear",
    "after_archive_before_clear",
    "after_write_before_settle",
    "after_genesis_before_lineage",
    "after_journal_before_spread",
    "after_snapshot_before_rows",
    "after_compaction",
]
Action = Literal["kill", "raise", "sleep"]

SLEEP_SECONDS = 30.0


class FailPointError(Exception):
    """Raised at a failpoint with the action ``raise``."""


class FailPoints:
    """Holds at most one armed failpoint: ``<point>:<action>`` for every hit, or ``<point>:<action>:<n>`` for the n-th.

    Raises:
        ValueError: The specification is invalid.
    """

    def __init__(self, spec: str = "") -> None:
        self._point, self._action, self._nth = self._parse(spec) if spec else ("", "", None)
        self._hits = 0

    @staticmethod
    def _parse(spec: str) -> tuple[str, str, int | None]:
        point, _, remainder = spec.partition(":")
        action, *nth = remainder.split(":")
        if (
            point not in get_args(Point)
            or action not in get_args(Action)
            or len(nth) > 1
            or not "".join(nth or "1").isdigit()
        ):
            raise ValueError(
                f"failpoint {spec!r}: expected <point>:<action>[:<n>], with a point of {', '.join(get_args(Point))}"
                f" and an action of {', '.join(get_args(Action))}"
            )
        return point, action, int(nth[0]) if nth else None

    async def hit(self, point: Point) -> None:
        """Run the action if this point is armed."""
        if point != self._point:
            return
        self._hits += 1
        if self._nth not in (None, self._hits):
            return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "raise":
            raise FailPointError(point)
        else:
            await asyncio.sleep(SLEEP_SECONDS)


OFF = FailPoints()
