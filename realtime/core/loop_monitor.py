"""Measures how late the event loop runs, and reports when it was blocked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.05
START_SECONDS = 1.0
"""Time before the first measurement: at its start, before it has clients, a worker collects garbage."""
BLOCKED_SECONDS = 0.1
"""The processor time during which the event loop did not run, above which it counts as blocked."""
BLOCKED = "the event loop was blocked"


async def monitor_loop(observe: Callable[[float], None]) -> None:
    """Pass the lag of the event loop in seconds to ``observe`` 20 times per second, until cancelled.

    The lag can also come from other processes that use the processor. The loop counts as blocked only if this process
    used the processor during the lag.
    """
    await asyncio.sleep(START_SECONDS)
    while True:
        started, used = time.monotonic(), time.process_time()
        await asyncio.sleep(INTERVAL_SECONDS)
        lag = max(0.0, time.monotonic() - started - INTERVAL_SECONDS)
        observe(lag)
        blocked = min(lag, time.process_time() - used - INTERVAL_SECONDS)  # it may have been busy before the lag
        if blocked > BLOCKED_SECONDS:
            log.error(BLOCKED, extra={"seconds": round(blocked, 3)})
