"""Runs background tasks, logs their failures, and restarts them when they fail."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 2.0


async def keep_running(name: str, run: Callable[[], Awaitable[None]], stopping: asyncio.Event | None = None) -> None:
    """Run a coroutine function until it returns. Restart it with exponential backoff when it raises.

    Args:
        name: The name of the task in the log.
        run: The coroutine function.
        stopping: Once set, an exception ends the task: a library may turn a cancellation into its own exception.
    """
    loop = asyncio.get_running_loop()
    delay = FIRST_DELAY_SECONDS
    while True:
        started = loop.time()
        try:
            await run()
        except Exception as error:  # any failure is logged here, and the task is restarted
            if stopping is not None and stopping.is_set():
                return
            if loop.time() - started > 10 * MAX_DELAY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            log.warning("%s failed, restarting", name, extra={"error": str(error) or repr(error), "pause": delay})
            log.debug("%s failed", name, exc_info=True)
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(2 * delay, MAX_DELAY_SECONDS)
        else:
            return


@asynccontextmanager
async def running(tasks: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Keep the named tasks running until the block ends, then cancel them and wait for them."""
    stopping = asyncio.Event()
    started = [asyncio.create_task(keep_running(name, run, stopping), name=name) for name, run in tasks.items()]
    try:
        yield
    finally:
        stopping.set()
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)
