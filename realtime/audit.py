"""What people do with notes, kept for the admins: noted at once, and stored a moment later, many at a time.

That who wrote a version is known for good does not hang on it: the history tells.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from realtime.errors import Unavailable
from realtime.people import Deed, Entry

if TYPE_CHECKING:
    from realtime.store.audit import Audit

log = logging.getLogger(__name__)

INTERVAL = 0.2
MOST_WAITING = 100_000
AT_ONCE = 1000
CLOSE_TIMEOUT = 1.0

DEEDS: dict[str, Deed] = {
    "create": "note.create",
    "import": "note.create",
    "update": "note.change",
    "edit": "note.change",
    "type": "note.change",
    "restore": "note.change",
    "delete": "note.delete",
    "undelete": "note.restore",
    "purge": "note.purge",
    "share": "note.share",
}
"""What each write of a note is called here."""


class NoteAudit:
    """The entries of one worker that are still to be stored."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._waiting: deque[Entry] = deque(maxlen=MOST_WAITING)

    def add(self, action: str, who: str | None, note: int) -> None:
        """Notes that somebody did something with a note; ``None`` is somebody with a link."""
        self._waiting.append(Entry("", datetime.now(UTC), who, DEEDS[action], str(note), None, ok=True))

    async def run(self) -> None:
        """Stores what is noted, for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.flush()

    async def flush(self) -> None:
        """Stores what is noted so far. Raises :class:`Unavailable`, with what is not stored still noted."""
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            try:
                await self._audit.add_many(some)
            except Unavailable:
                self._waiting.extendleft(reversed(some))
                raise

    async def aclose(self) -> None:
        """Stores what is noted, if that can be done at once."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.flush()
