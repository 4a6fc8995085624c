"""Settles the notes of deleted accounts: gives them to somebody, or moves them into the trash.

An account is deleted by one write, after which every worker settles its notes until there are none. So a worker that is
killed leaves nothing undone, and the command line, which has no feed to publish changes on, only has to do that write.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from realtime.auth.permissions import Access, Principal, key_of
from realtime.errors import NoteNotFound, Unavailable

if TYPE_CHECKING:
    from realtime.auth.users import DeletedAccount
    from realtime.notes.service import NoteService
    from realtime.store.database import Store

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0
BATCH = 100
LINGER = timedelta(minutes=1)
"""How long notes of a deleted account are looked for: a request that began before it may still create one."""


class DeletedAccounts:
    """Settles what deleted accounts leave."""

    def __init__(self, store: Store, notes: NoteService) -> None:
        self._store = store
        self._notes = notes

    async def run(self) -> None:
        """Settle the notes of deleted accounts, until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            await self.settle_all()

    async def settle_all(self) -> None:
        """Settle the notes of all deleted accounts. Raises :class:`Unavailable`."""
        for account in await self._store.users.unsettled():
            await self._settle(account)

    async def settle(self, timeout: float) -> None:
        """Settle the notes of all deleted accounts, as far as that is possible in some seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self.settle_all()
        except (TimeoutError, Unavailable) as error:
            log.warning("notes of deleted accounts are settled later", extra={"error": str(error)})

    async def _settle(self, account: DeletedAccount) -> None:
        heir = None if account.heir is None else await self._store.users.get(account.heir)
        heir_name = None if heir is None else heir.name  # who may have been deleted, too
        while owned := await self._store.notes.owned_by(account.name, BATCH):
            for id, access in owned.items():
                try:
                    await self._settle_note(account, id, access, heir_name)
                except NoteNotFound:
                    log.debug("settled by another worker", extra={"note": id})
        if account.date + LINGER < datetime.now(UTC):
            await self._store.users.mark_settled(account.name)

    async def _settle_note(self, account: DeletedAccount, id: int, access: Access, heir: str | None) -> None:
        """Give a note to the heir, to the administrators if it is shared, or move it into the trash. Its link ends."""
        # With the rights of the account, in the name of whoever deleted it.
        principal = Principal(frozenset({key_of(account.name)}), account.by)
        if heir is None and not access.members and not access.public:
            await self._notes.delete(principal, id, None, None)
            return

        async def hand_over(now: Access) -> Access:
            members = {name: role for name, role in now.members.items() if name != heir}
            return replace(now, owner=heir, members=members, link=None)

        await self._notes.share(principal, id, hand_over, None)
        await self._store.revocations.add([("note", id)])
