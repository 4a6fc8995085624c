"""Checks that the database of a server without accounts does not contain accounts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from realtime.auth.startup_checks import HAS_ACCOUNTS
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from realtime.store.users import UserStore


log = logging.getLogger(__name__)


CHECK_INTERVAL_SECONDS = 5.0


class OpenModeCheck:
    """Watches whether the database of a server in open mode contains accounts.

    Attributes:
        has_accounts: Whether the database contains accounts; ``None`` until MongoDB has responded.
    """

    def __init__(self, users: UserStore) -> None:
        self._users = users
        self.has_accounts: bool | None = None

    async def read(self) -> None:
        """Read from MongoDB whether there are accounts. Raises :class:`Unavailable`."""
        self.has_accounts = self.has_accounts or await self._users.any()

    async def run(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Poll until there are accounts, which can be added at any time; then call ``stop`` and return."""
        while not self.has_accounts:
            await self.read()
            if not self.has_accounts:
                await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        log.error("the notes are no longer served: %s", HAS_ACCOUNTS)
        await stop()

    async def check(self) -> None:
        """Raise :class:`Unavailable` unless the database is known to have no accounts."""
        if self.has_accounts is None:
            await self.read()
        if self.has_accounts:
            raise Unavailable(f"Not served: {HAS_ACCOUNTS}")
