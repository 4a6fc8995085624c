"""Settles the notes of deleted accounts: transfers them to another owner, or moves them to the trash.

An account is deleted by a single write. Afterwards, all workers settle the notes of the account until none are left.
If a worker is killed, others continue. The command line, which cannot publish changes, performs only the single write.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
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
BATCH_NOTES = 100
SETTLING_PERIOD = timedelta(minutes=1)
"""The time after a deletion during which workers look for more notes: earlier requests can still create some."""


@dataclass(frozen=True, slots=True)
class _Transfer:
    """Transfers a note to another owner, and removes its link."""

    owner: str | None

    def apply(self, current: Access) -> Access:
        """Return the access rights under the new owner."""
        members = {name: role for name, role in current.members.items() if name != self.owner}
        return replace(current, owner=self.owner, members=members, link=None)


class DeletedAccounts:
    """Settles the notes of deleted accounts, in the background and on request."""

    def __init__(self, store: Store, notes: NoteService) -> None:
        self._store = store
        self._notes = notes

    async def run(self) -> None:
        """Settle the notes of deleted accounts periodically, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            await self.settle_all()

    async def settle_all(self) -> None:
        """Settle the notes of all deleted accounts, or raise :class:`Unavailable`."""
        for account in await self._store.users.unsettled():
            await self._settle(account)

    async def settle(self, timeout: float) -> None:
        """Settle the notes of deleted accounts for at most ``timeout`` seconds. The others are settled later."""
        try:
            async with asyncio.timeout(timeout):
                await self.settle_all()
        except (TimeoutError, Unavailable) as error:
            log.warning("cannot settle all notes of deleted accounts yet, retrying later", extra={"error": str(error)})

    async def _settle(self, account: DeletedAccount) -> None:
        heir = None if account.heir is None else await self._store.users.get(account.heir)
        heir_name = None if heir is None else heir.name  # the heir may have been deleted, too
        while owned := await self._store.notes.owned_by(account.name, BATCH_NOTES):
            for id, access in owned.items():
                try:
                    await self._settle_note(account, id, access, heir_name)
                except NoteNotFound:
                    log.debug("note was settled by another worker", extra={"note": id})
        if account.date + SETTLING_PERIOD < datetime.now(UTC):
            await self._store.users.mark_settled(account.name)

    async def _settle_note(self, account: DeletedAccount, id: int, access: Access, heir: str | None) -> None:
        """Transfer a note to the heir.

        Without an heir, transfer a shared note to the administrators, and move any other note to the trash.
        """
        # The write has the rights of the deleted account, and is attributed to the user who deleted it.
        principal = Principal(frozenset({key_of(account.name)}), account.by)
        if heir is None and not access.members and not access.public:
            await self._notes.delete(principal, id)
            return
        await self._notes.share(principal, id, _Transfer(heir))
        await self._store.revocations.add([("note", id)])
