"""Applies revocations to open connections. Each worker polls the revocations in MongoDB and handles new ones.

Polling requires neither Redis nor synchronized clocks. Each poll reads all stored revocations, so that a revocation is
not missed if it was stored late. In addition, the sessions of open connections are checked periodically, in case a
worker was blocked for longer than revocations are stored, or a session has expired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.store.revocations import Kind, RevocationStore

POLL_INTERVAL_SECONDS = 0.25
CHECK_INTERVAL_SECONDS = 10.0

RevocationSubjects = frozenset[Any]
"""The subjects of revocations of one kind: session ids or note ids."""
Handler = Callable[[RevocationSubjects], Awaitable[None]]


class LiveSessions(NamedTuple):
    """Access to the sessions of open connections.

    Attributes:
        sessions: Returns the ids of the sessions.
        ended: Returns the given sessions that have ended.
    """

    sessions: Callable[[], Set[str]]
    ended: Callable[[Set[str]], Awaitable[Set[str]]]


class _RoleChange(NamedTuple):
    admin: bool
    read_at: float


class Revocations:
    """Polls revocations in one worker, and calls the handler of each kind for new ones."""

    def __init__(self, store: RevocationStore, handlers: Mapping[Kind, Handler], live: LiveSessions) -> None:
        self._store = store
        self._handlers = handlers
        self._live = live
        self._seen: Mapping[str, float] = {}  # the time at which this worker first read each revocation
        self._sessions: Set[Any] = frozenset()
        self._role_changes: Mapping[Any, _RoleChange] = {}

    def ended(self, principal: Principal) -> bool:
        """Return whether a principal is outdated: its session has ended, or its administrator role has changed.

        Check this when a connection opens: its request may have been authenticated before a revocation.
        """
        if principal.session in self._sessions:
            return True
        change = self._role_changes.get(principal.session)
        # A principal that was read after the change may have an even newer role, whose change was not read yet.
        return change is not None and change.admin != principal.admin and principal.read_at < change.read_at

    async def run(self) -> None:
        """Poll revocations, and check the sessions of open connections, until cancelled."""
        checked = time.monotonic()
        while True:
            await self.read()
            if time.monotonic() - checked > CHECK_INTERVAL_SECONDS:
                checked = time.monotonic()
                await self._handlers["session"](frozenset(await self._live.ended(self._live.sessions())))
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def read(self) -> None:
        """Read all revocations, and call the handlers for new ones. Raises :class:`Unavailable`."""
        revocations = await self._store.all()
        now = time.monotonic()
        seen = {id: self._seen.get(id, now) for id in revocations}
        self._sessions = {of for kind, of in revocations.values() if kind == "session"}
        self._role_changes = {
            of: _RoleChange(kind == "promoted", seen[id])
            for id, (kind, of) in revocations.items()
            if kind in ("promoted", "demoted")
        }
        new = [subject for id, subject in revocations.items() if id not in self._seen]
        for kind, handle in self._handlers.items():
            if subjects := frozenset(of for of_kind, of in new if of_kind == kind):
                await handle(subjects)
        self._seen = seen  # set after the handlers, so that the next poll repeats them if one fails
