"""Threads, and processes, for slow work, such as comparing and merging texts, and reading imports.

Each kind of work has its own thread, so that many requests of one kind do not delay another. Callers of one kind take
turns (:class:`realtime.core.fair_queue.FairQueue`).
"""

from __future__ import annotations

import asyncio

from realtime.core.fair_queue import FairPool, QueueLimits

MERGE_LIMITS = QueueLimits(member=64, group=256, lane=1024)
"""Larger than the default, because a client has to repeat a write that is refused."""


class Pools:
    """The threads of one worker.

    Attributes:
        reads: For differences between versions, and for the snippets of search results.
        merges: For the merges and text operations of writes.
        texts: For the documents of shared texts: loading, large updates and state vectors, and edits by REST writes.
        imports: For reading the files of imports.
        exports: For the archives of exports.
    """

    def __init__(self) -> None:
        self.reads = FairPool("reads")
        self.merges = FairPool("merges", MERGE_LIMITS)
        self.texts = FairPool("texts", MERGE_LIMITS, pauses=True)
        self.imports = FairPool("imports")
        self.exports = FairPool("exports", MERGE_LIMITS)

    async def aclose(self) -> None:
        """Stop the threads after the functions that are running."""
        await asyncio.gather(
            *(pool.aclose() for pool in (self.reads, self.merges, self.texts, self.imports, self.exports))
        )
