"""Rights that end while something is open: every worker reads which, again and again, and tells whoever it concerns.

It takes no Redis and no clock. All that are kept are read each time, so that none can be overlooked for having come
late; and what is open is compared with what holds, now and then, in case a worker was held up for longer than they are
kept, or a session has expired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal
    from realtime.store.revocations import Kind, RevocationStore

INTERVAL = 0.25
COMPARE_EVERY = 10.0

EndedSubjects = frozenset[Any]
"""Subjects of one kind: the ids of sessions, or those of notes."""
Handler = Callable[[EndedSubjects], Awaitable[None]]


class LiveSessions(NamedTuple):
    """What is open: the sessions that it is open for, and which of some have ended."""

    sessions: Callable[[], Set[str]]
    ended: Callable[[Set[str]], Awaitable[Set[str]]]


class Revocations:
    """The revocations as one worker hears of them. A handler gets those of its kind that are news."""

    def __init__(self, store: RevocationStore, handlers: Mapping[Kind, Handler], open: LiveSessions) -> None:
        self._store = store
        self._handlers = handlers
        self._open = open
        self._seen: Set[str] = frozenset()
        self._sessions: Set[Any] = frozenset()
        self._admins: Mapping[Any, bool] = {}

    def ended(self, principal: Principal) -> bool:
        """Whether the rights of a viewer ended lately: of one who was known before that, and comes in after it.

        So it is for a viewer who was read before its user became an administrator, or ceased to be one.
        """
        return (
            principal.session in self._sessions
            or self._admins.get(principal.session, principal.admin) != principal.admin
        )

    async def run(self) -> None:
        """Hears of what ended, for ever."""
        compared = time.monotonic()
        while True:
            await self.read()
            if time.monotonic() - compared > COMPARE_EVERY:
                compared = time.monotonic()
                await self._handlers["session"](frozenset(await self._open.ended(self._open.sessions())))
            await asyncio.sleep(INTERVAL)

    async def read(self) -> None:
        """Reads what ended, and hands on what is news. Raises :class:`Unavailable`."""
        kept = await self._store.all()
        self._sessions = {of for kind, of in kept.values() if kind == "session"}
        self._admins = {of: kind == "promoted" for kind, of in kept.values() if kind in ("promoted", "demoted")}
        news = [subject for id, subject in kept.items() if id not in self._seen]
        for kind, handle in self._handlers.items():
            if subjects := frozenset(of for of_kind, of in news if of_kind == kind):
                await handle(subjects)
        self._seen = kept.keys()  # now, so that what could not be handled comes again
