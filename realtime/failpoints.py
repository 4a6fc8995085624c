"""Named points at which a fault test can make the process die, fail or wait. Off unless the settings name one."""

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

SLEEP = 30.0


class FailPointError(Exception):
    """The fault that ``raise`` makes."""


class FailPoints:
    """At most one armed point: ``<point>:<action>`` acts at every hit, ``<point>:<action>:<n>`` at the n-th only."""

    def __init__(self, spec: str = "") -> None:
        self._point, self._action, self._at = self._parse(spec) if spec else ("", "", None)
        self._hits = 0

    @staticmethod
    def _parse(spec: str) -> tuple[str, str, int | None]:
        point, _, rest = spec.partition(":")
        action, *nth = rest.split(":")
        if (
            point not in get_args(Point)
            or action not in get_args(Action)
            or len(nth) > 1
            or not "".join(nth or "1").isdigit()
        ):
            raise ValueError(
                f"failpoint {spec!r}: write <point>:<action>[:<n>], with a point of {', '.join(get_args(Point))}"
                f" and an action of {', '.join(get_args(Action))}"
            )
        return point, action, int(nth[0]) if nth else None

    async def hit(self, point: Point) -> None:
        """Acts if this point is armed."""
        if point != self._point:
            return
        self._hits += 1
        if self._at not in (None, self._hits):
            return
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "raise":
            raise FailPointError(point)
        else:
            await asyncio.sleep(SLEEP)


OFF = FailPoints()
