"""Counts failed sign-ins per user, to show them to the user. Counts are buffered and stored periodically."""

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
    """Collects the failed sign-ins of one worker until they are stored.

    They are not stored during the sign-in, so that the response time does not reveal whether the name exists. All
    failures within a second are stored with one command.
    """

    def __init__(self, users: UserStore) -> None:
        self._users = users
        self._pending: dict[str, FailedSignInCount] = {}

    def add(self, name: str) -> None:
        """Count a failed sign-in of a user."""
        known = self._pending.get(name)
        if known is None and len(self._pending) >= MAX_PENDING_USERS:
            log.warning("a failed sign-in was not counted: too many are waiting to be stored")
            return
        self._pending[name] = FailedSignInCount(1 if known is None else known.count + 1, datetime.now(UTC))

    async def run(self) -> None:
        """Store the counts every second until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Store the counts. Raises :class:`Unavailable`, and keeps the counts for the next attempt."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            await self._users.add_failed_sign_ins(pending)
        except Unavailable:
            for name, failed in self._pending.items():
                before = pending.get(name)
                pending[name] = FailedSignInCount(failed.count + (before.count if before else 0), failed.last_date)
            self._pending = pending
            raise

    async def aclose(self) -> None:
        """Store the counts, or give up after a timeout."""
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self.flush()
