"""The threads for work that takes long: comparing and merging texts, reading imports. Each kind has its own.

So a flood of one kind does not hold up another one, and within a kind callers take turns
(:class:`realtime.core.fair_queue.FairQueue`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from realtime.auth.permissions import key_of
from realtime.auth.rate_limit import neighbourhood, wide_network
from realtime.core.fair_queue import FairPool, QueueLimits, Requester

if TYPE_CHECKING:
    from realtime.auth.permissions import Viewer

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


def requester_of(viewer: Viewer, address: str) -> Requester:
    """Return the party that work is done for: a user or an address, in a network."""
    member = neighbourhood(address) if viewer.name is None else key_of(viewer.name)
    return Requester(wide_network(address), member, trusted=viewer.name is not None)


def writer_of(viewer: Viewer, note: int) -> Requester:
    """Return the party that a write is merged for: a user, or everyone who writes to a note without sign-in."""
    name = f"note {note}" if viewer.name is None else key_of(viewer.name)
    return Requester(name, name, trusted=viewer.name is not None)
