"""Open mode, without accounts, for the people of one machine only: what a server in it refuses to serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from realtime.api.authentication import WITHOUT_MONGODB, first_part
from realtime.api.routing import path_of, refusal
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from realtime.store.users import PeopleStore

log = logging.getLogger(__name__)

CHECK_INTERVAL_SECONDS = 5.0
HAS_ACCOUNTS = (
    "the database has accounts, and without sign-in everyone could read and write all notes: have people sign in"
    " (REALTIME_AUTH=accounts, or --auth accounts), or say that it is meant (REALTIME_OPEN=true, or --open)"
)


class OpenModeCheck:
    """Tells whether the database of a server in open mode has accounts.

    Attributes:
        has_accounts: ``None`` as long as MongoDB has not answered.
    """

    def __init__(self, people: PeopleStore) -> None:
        self._people = people
        self.has_accounts: bool | None = None

    async def look(self) -> None:
        """Ask MongoDB. Raises :class:`Unavailable`."""
        self.has_accounts = self.has_accounts or await self._people.any()

    async def run(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Ask again and again until there are accounts, which may be added later; then call ``stop`` and return."""
        while not self.has_accounts:
            await self.look()
            if not self.has_accounts:
                await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        log.error("nothing is served any more: %s", HAS_ACCOUNTS)
        await stop()

    async def check(self) -> None:
        """Raise :class:`Unavailable` unless the database is known to have no accounts."""
        if self.has_accounts is None:
            await self.look()
        if self.has_accounts:
            raise Unavailable(f"Not served: {HAS_ACCOUNTS}")


class OpenModeGate:
    """Middleware that answers 503 unless the database is known to have no accounts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, if it may be served."""
        if scope["type"] in ("http", "websocket"):
            open_mode: OpenModeCheck = scope["app"].state.parts.open_mode
            if open_mode.has_accounts is not False and first_part(path_of(scope)) not in WITHOUT_MONGODB:
                try:
                    await open_mode.check()
                except Unavailable as error:
                    await refusal(error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)
