"""Background tasks that cannot die quietly: each has an owner, is run again when it fails, and says so in the log."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


async def keep_running(name: str, run: Callable[[], Awaitable[None]], stopping: asyncio.Event | None = None) -> None:
    """Runs ``run`` until it returns; when it raises, runs it again after a pause that grows while it keeps failing.

    Not once it is ``stopping``: a library may make an error of its own of a cancellation.
    """
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE
    while True:
        started = loop.time()
        try:
            await run()
        except Exception as error:  # the one place where a task's failure is heard, whatever it is
            if stopping is not None and stopping.is_set():
                return
            if loop.time() - started > 10 * LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.warning("%s failed, runs again", name, extra={"error": str(error) or repr(error), "pause": pause})
            log.debug("%s failed", name, exc_info=True)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            return


@asynccontextmanager
async def running(tasks: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Keeps the named tasks running while the block lasts, then cancels them and waits for their end."""
    stopping = asyncio.Event()
    running = [asyncio.create_task(keep_running(name, run, stopping), name=name) for name, run in tasks.items()]
    try:
        yield
    finally:
        stopping.set()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
