"""Who somebody is, by what they came with: a session's secret, an API token, a signed token."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from realtime.auth.permissions import ANONYMOUS, EVERYONE, UNOWNED, Principal, key_of, link_key
from realtime.auth.tokens import LINK, digest, read_jwt
from realtime.errors import ConfirmationNeeded, Forbidden, NotSignedIn, Unavailable

if TYPE_CHECKING:
    from realtime.auth.users import Kind, Session, User
    from realtime.store.database import Store

log = logging.getLogger(__name__)

TOKEN = "rt_"
"""What API tokens begin with, so that people and scanners of leaked secrets know one."""
KINDS: tuple[Kind, ...] = ("session", "token")
REMEMBERED = 0.5
"""Seconds for which what was read is believed."""
MOST_REMEMBERED = 10_000
IDLE = timedelta(days=14)
"""Without being used a session ends."""
CONFIRMED = timedelta(minutes=10)
"""How long after proving the password a session may do what needs a confirmation."""
NOTED = timedelta(minutes=1)
"""How often at most it is noted that a session is used."""


class Authenticator:
    """The viewers of one worker. What was read is remembered for :data:`REMEMBERED`, or until it is forgotten."""

    def __init__(self, store: Store, secret: str) -> None:
        self._store = store
        self._secret = secret
        self._known: dict[str, tuple[float, Principal]] = {}

    async def key(self) -> str:
        """What is signed with: the secret that is set, else the one that all workers share."""
        if not self._secret:
            self._secret = await self._store.people.secret()
        return self._secret

    async def of_secret(self, secret: str, address: str | None) -> Principal | None:
        """Who has a session, by its secret; ``None`` if there is none, or not any more. Raises :class:`Unavailable`."""
        principal = await self.of_session(digest(secret), address)
        return None if principal is None or principal.token else principal

    async def of_token(self, token: str, address: str | None) -> Principal | None:
        """Who sent an API token, a signed one, or that of a link; ``None`` if it is none, or not any more.

        Raises :class:`Unavailable`.
        """
        if token.startswith(LINK):
            return with_links(ANONYMOUS, [token])
        if token.startswith(TOKEN):
            principal = await self.of_session(digest(token), address)
            return principal if principal is not None and principal.token else None
        try:
            claims = read_jwt(await self.key(), token)
        except ValueError:
            return None
        principal = await self.of_session(claims.session, address)
        return None if principal is None or principal.token or principal.name != claims.name else principal

    async def of_session(self, id: str, address: str | None = None) -> Principal | None:
        """Whose rights a session or token gives, by its id. Raises :class:`Unavailable`."""
        started = time.monotonic()
        until, principal = self._known.get(id, (0.0, None))
        if started < until:
            return principal
        for session, person in await self._store.sessions.valid([id]):
            principal = _principal(session, person)
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            # From before it was read: whatever ended since then counts at most this much later.
            self._known[id] = (started + REMEMBERED, principal)
            if session.used_date is None or session.used_date + NOTED < datetime.now(UTC):
                await self._use([id], address)
            return principal
        self._known.pop(id, None)
        return None

    async def check(self, principal: Principal) -> None:
        """Raises :class:`NotSignedIn` if the session or token of a viewer has ended, :class:`Unavailable`."""
        if principal.session is not None and await self.of_session(principal.session) is None:
            raise NotSignedIn

    async def check_confirmed(self, principal: Principal) -> None:
        """Check that the user proved the password in this session lately.

        Raises:
            NotSignedIn: The session has ended.
            Forbidden: An API token was sent, which has no password to confirm.
            ConfirmationNeeded: The last proof is more than :data:`CONFIRMED` ago.
            Unavailable: The database did not answer.
        """
        if principal.token:
            raise Forbidden("API tokens cannot do this. Sign in with your password")
        held = await self._store.sessions.valid([principal.session] if principal.session else [])
        if not held:
            raise NotSignedIn
        proven = held[0][0].proven_date
        if proven is None or proven + CONFIRMED < datetime.now(UTC):
            raise ConfirmationNeeded

    async def end(self, user: str, kind: Kind | None = None, *, id: str | None = None, but: str | None = None) -> int:
        """End sessions and API tokens of a user, on every worker, and return how many.

        Args:
            user: The user.
            kind: End only sessions, or only tokens.
            id: End only this one.
            but: End all but this one.

        Raises:
            OutcomeUnknown: The database did not confirm it in time.
        """
        ended = await self._store.sessions.end(user, kind, id, but)
        self.forget(ended)
        await self._store.revocations.add(("session", session) for session in ended)
        return len(ended)

    async def change_role(self, user: str, *, admin: bool) -> None:
        """Let every worker know whether a user is an administrator from now on. Raises :class:`Unavailable`."""
        sessions = [one.id for kind in KINDS for one in await self._store.sessions.of(user, kind)]
        self.forget(sessions)
        await self._store.revocations.add(("promoted" if admin else "demoted", session) for session in sessions)

    def forget(self, sessions: Iterable[str]) -> None:
        """Forgets what is remembered of sessions that ended."""
        for id in sessions:
            self._known.pop(id, None)

    async def ended(self, sessions: Iterable[str]) -> set[str]:
        """Those of the sessions that hold no more; the others are in use. Raises :class:`Unavailable`."""
        asked = set(sessions)
        if not asked:
            return set()
        held = {session.id for session, _ in await self._store.sessions.valid(asked)}
        await self._use(held, None)
        return asked - held

    async def _use(self, sessions: Iterable[str], address: str | None) -> None:
        now = datetime.now(UTC)
        try:
            await self._store.sessions.used(sessions, now - NOTED, now + IDLE, address)
        except Unavailable as error:
            log.warning("the use of sessions was not noted", extra={"error": error.detail})


def with_links(principal: Principal, tokens: Iterable[str]) -> Principal:
    """Somebody with the links that they were given; what opens nothing any more does no harm."""
    links = {link_key(digest(token)) for token in tokens if token.startswith(LINK)}
    if not links or principal.keys is None:
        return principal
    return replace(principal, keys=principal.keys | links, writes=principal.writes or principal.anonymous)


def _principal(session: Session, person: User) -> Principal:
    keys = {EVERYONE, key_of(person.name), *([UNOWNED] if person.admin else [])}
    return Principal(
        keys=frozenset(keys),
        name=person.name,
        session=session.id,
        admin=person.admin,
        writes=session.writes,
        token=session.kind == "token",
    )
