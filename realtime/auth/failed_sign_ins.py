"""Counts failed sign-ins by user, so that users can be told of them: at once in memory, a moment later in MongoDB."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from realtime.auth.users import FailedSignInCount
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from realtime.store.users import UserStore

log = logging.getLogger(__name__)

FLUSH_INTERVAL_SECONDS = 1.0
MAX_PENDING_USERS = 10_000
CLOSE_TIMEOUT_SECONDS = 1.0


class FailedSignInRecorder:
    """The failures that one worker has not stored yet.

    They are stored apart from the answer to a sign-in, so that the time of the answer does not show whether the name
    exists. Those of a second are stored with one command, however many there are.
    """

    def __init__(self, people: UserStore) -> None:
        self._people = people
        self._pending: dict[str, FailedSignInCount] = {}

    def add(self, name: str) -> None:
        """Count a failure for a user."""
        known = self._pending.get(name)
        if known is None and len(self._pending) >= MAX_PENDING_USERS:
            log.warning("a failed sign-in is not counted: too many wait to be stored")
            return
        self._pending[name] = FailedSignInCount(1 if known is None else known.count + 1, datetime.now(UTC))

    async def run(self) -> None:
        """Store the failures every second, until it is cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Store the failures. Raises :class:`Unavailable`, and keeps them for the next time."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            await self._people.add_failed_sign_ins(pending)
        except Unavailable:
            for name, failed in self._pending.items():
                before = pending.get(name)
                pending[name] = FailedSignInCount(failed.count + (before.count if before else 0), failed.last_date)
            self._pending = pending
            raise

    async def aclose(self) -> None:
        """Store the failures, if that is possible at once."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self.flush()
