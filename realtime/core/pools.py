"""The threads for work that takes long: comparing and merging texts, reading imports. Each kind has its own.

So a flood of one kind does not hold up another one, and within a kind callers take turns
(:class:`realtime.core.fair_queue.FairQueue`).
"""

from __future__ import annotations

import asyncio

from realtime.core.fair_queue import FairPool, QueueLimits

MERGES = QueueLimits(member=64, group=256, lane=1024)
"""A write that waits is one that somebody has to send again otherwise."""


class Pools:
    """The threads of one worker.

    Attributes:
        reads: For differences between versions, and the snippets of a search.
        merges: For writes: merges, text operations, and large updates of shared texts.
        imports: For the files of imports.
    """

    def __init__(self) -> None:
        self.reads = FairPool("reads")
        self.merges = FairPool("merges", MERGES)
        self.imports = FairPool("imports")

    async def aclose(self) -> None:
        """Stop the threads, after what they do now."""
        await asyncio.gather(self.reads.aclose(), self.merges.aclose(), self.imports.aclose())
