"""Resolves credentials to principals: session secrets, API tokens, signed tokens and links."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from realtime.auth.permissions import ANONYMOUS, EVERYONE, UNOWNED, Principal, key_of, link_key
from realtime.auth.tokens import LINK_PREFIX, digest, read_jwt
from realtime.errors import ConfirmationNeeded, Forbidden, NotSignedIn, Unavailable

if TYPE_CHECKING:
    from realtime.auth.users import Kind, Session, UserAccount
    from realtime.store.database import Store

log = logging.getLogger(__name__)

TOKEN_PREFIX = "rt_"
"""The prefix of API tokens. People and secret scanners recognize tokens by it."""
KINDS: tuple[Kind, ...] = ("session", "token")
CACHE_SECONDS = 0.5
"""Time for which a principal is cached."""
MAX_CACHED = 10_000
SESSION_IDLE_TIMEOUT = timedelta(days=14)
"""The time after which an unused session expires."""
CONFIRMATION_LIFETIME = timedelta(minutes=10)
"""The time for which a confirmed password allows sensitive actions."""
USE_INTERVAL = timedelta(minutes=1)
"""The minimum interval between two updates of the last use of a session."""


class Authenticator:
    """Resolves credentials to principals, and caches principals for :data:`CACHE_SECONDS`.

    Args:
        store: The database.
        secret: The configured signing key, or an empty string to use the one in the database.
    """

    def __init__(self, store: Store, secret: str) -> None:
        self._store = store
        self._secret = secret
        self._cache: dict[str, tuple[float, Principal]] = {}

    async def key(self) -> str:
        """Return the signing key: the configured one, else the one in the database, which all workers share."""
        if not self._secret:
            self._secret = await self._store.users.secret()
        return self._secret

    async def of_secret(self, secret: str, address: str | None) -> Principal | None:
        """Return the principal of a session by its secret, or ``None`` if it is not valid.

        Raises:
            Unavailable: The database did not respond in time.
        """
        principal = await self.of_session(digest(secret), address)
        return None if principal is None or principal.is_api_token else principal

    async def of_token(self, token: str, address: str | None) -> Principal | None:
        """Return the principal of an API token, a signed token or a link, or ``None`` if it is not valid.

        Raises:
            Unavailable: The database did not respond in time.
        """
        if token.startswith(LINK_PREFIX):
            return with_links(ANONYMOUS, [token])
        if token.startswith(TOKEN_PREFIX):
            principal = await self.of_session(digest(token), address)
            return principal if principal is not None and principal.is_api_token else None
        try:
            claims = read_jwt(await self.key(), token)
        except ValueError:
            return None
        principal = await self.of_session(claims.session, address)
        return None if principal is None or principal.is_api_token or principal.name != claims.name else principal

    async def of_session(self, id: str, address: str | None = None) -> Principal | None:
        """Return the principal of a session or API token by its id, or ``None`` if it is not valid.

        Raises:
            Unavailable: The database did not respond in time.
        """
        started = time.monotonic()
        until, principal = self._cache.get(id, (0.0, None))
        if started < until:
            return principal
        for session, owner in await self._store.sessions.valid([id]):
            principal = _principal(session, owner, started)
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            # Measured from before the read, so that a session that ends during the read is not cached for longer.
            self._cache[id] = (started + CACHE_SECONDS, principal)
            if session.used_date is None or session.used_date + USE_INTERVAL < datetime.now(UTC):
                await self._record_use([id], address)
            return principal
        self._cache.pop(id, None)
        return None

    async def check(self, principal: Principal) -> None:
        """Check that the session or API token of a principal is still valid.

        Raises:
            NotSignedIn: The session or API token has ended.
            Unavailable: The database did not respond in time.
        """
        if principal.session is not None and await self.of_session(principal.session) is None:
            raise NotSignedIn

    async def check_confirmed(self, principal: Principal) -> None:
        """Check that the user has confirmed the password in this session recently.

        Raises:
            NotSignedIn: The session has ended.
            Forbidden: The caller used an API token, which cannot confirm a password.
            ConfirmationNeeded: The last confirmation is older than :data:`CONFIRMATION_LIFETIME`.
            Unavailable: The database did not respond in time.
        """
        if principal.is_api_token:
            raise Forbidden("API tokens cannot do this. Sign in with your password")
        valid = await self._store.sessions.valid([principal.session] if principal.session else [])
        if not valid:
            raise NotSignedIn
        proven = valid[0][0].proven_date
        if proven is None or proven + CONFIRMATION_LIFETIME < datetime.now(UTC):
            raise ConfirmationNeeded

    async def end(
        self, user: str, kind: Kind | None = None, *, id: str | None = None, except_id: str | None = None
    ) -> int:
        """End sessions and API tokens of a user on all workers, and return their number.

        Args:
            user: The user.
            kind: End only sessions, or only tokens.
            id: End only the session or token with this id.
            except_id: Do not end the session or token with this id.

        Raises:
            OutcomeUnknown: The database did not confirm the write in time.
        """
        ended = await self._store.sessions.end(user, kind, id, except_id)
        self.forget(ended)
        await self._store.revocations.add(("session", session) for session in ended)
        return len(ended)

    async def change_role(self, user: str, *, admin: bool) -> None:
        """Publish a change of the administrator role to all workers. Raises :class:`Unavailable`."""
        sessions = [session.id for kind in KINDS for session in await self._store.sessions.list_of(user, kind)]
        self.forget(sessions)
        await self._store.revocations.add(("promoted" if admin else "demoted", session) for session in sessions)

    def forget(self, sessions: Iterable[str]) -> None:
        """Remove sessions from the cache."""
        for id in sessions:
            self._cache.pop(id, None)

    async def ended(self, sessions: Iterable[str]) -> set[str]:
        """Return the sessions that have ended, and record that the others are in use. Raises :class:`Unavailable`."""
        requested = set(sessions)
        if not requested:
            return set()
        valid = {session.id for session, _ in await self._store.sessions.valid(requested)}
        await self._record_use(valid, None)
        return requested - valid

    async def _record_use(self, sessions: Iterable[str], address: str | None) -> None:
        now = datetime.now(UTC)
        try:
            await self._store.sessions.mark_used(sessions, now - USE_INTERVAL, now + SESSION_IDLE_TIMEOUT, address)
        except Unavailable as error:
            log.warning("the last use of sessions was not stored", extra={"error": error.detail})


def with_links(principal: Principal, tokens: Iterable[str]) -> Principal:
    """Return a principal that also has the given links. Links that are no longer valid have no effect."""
    links = {link_key(digest(token)) for token in tokens if token.startswith(LINK_PREFIX)}
    if not links or principal.keys is None:
        return principal
    return replace(principal, keys=principal.keys | links, writes=principal.writes or principal.anonymous)


def _principal(session: Session, owner: UserAccount, read_at: float) -> Principal:
    keys = {EVERYONE, key_of(owner.name), *([UNOWNED] if owner.admin else [])}
    return Principal(
        keys=frozenset(keys),
        name=owner.name,
        session=session.id,
        admin=owner.admin,
        writes=session.writes,
        is_api_token=session.kind == "token",
        read_at=read_at,
    )
