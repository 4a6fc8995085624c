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


async def keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Runs ``run`` until it returns; when it raises, runs it again after a pause that grows while it keeps failing."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this is not None
    pause = FIRST_PAUSE
    while True:
        started = loop.time()
        try:
            # In a task of its own: until Python 3.13, a TaskGroup that ends for another reason forgets a cancellation.
            await asyncio.ensure_future(run())
        except Exception as error:  # the one place where a task's failure is heard, whatever it is
            if this.cancelling():
                raise asyncio.CancelledError from error
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
    running = [asyncio.create_task(keep_running(name, run), name=name) for name, run in tasks.items()]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
