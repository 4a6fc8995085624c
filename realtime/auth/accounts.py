"""The actions of users on their own accounts: sign-up, sign-in, sign-out, passwords, sessions and API tokens."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, NamedTuple

from realtime.auth.authenticator import SESSION_IDLE_TIMEOUT, TOKEN_PREFIX
from realtime.auth.devices import issue_device
from realtime.auth.failed_sign_ins import FailedSignInRecorder
from realtime.auth.sign_in_guard import ClientInfo
from realtime.auth.tokens import JWT_SECONDS, TokenClaims, digest, make_jwt, new_secret, setup_token
from realtime.auth.user_management import UserManagement
from realtime.auth.users import Session
from realtime.errors import Forbidden, NameTaken, NotSignedIn, ResourceNotFound

if TYPE_CHECKING:
    from realtime.auth.authenticator import Authenticator
    from realtime.auth.permissions import Principal
    from realtime.auth.sign_in_guard import SignInGuard
    from realtime.auth.users import FailedSignInCount, Kind, UserAccount
    from realtime.store.database import Store

MAX_SESSION_AGE = timedelta(days=90)
"""The age at which a session ends, even if it is in use."""
TICKET_LIFETIME = timedelta(seconds=30)
MAX_TOKENS = 100
WRONG_CREDENTIALS = "The name or the password is wrong"
NO_SIGN_UP = "Sign-up is closed. Ask the operator of this server for an account"
NO_SETUP = "This setup link is not valid or has been used. Sign in, or ask the operator of this server for an invite"

SignUp = Literal["open", "invite", "closed"]


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{1,31}"


def checked_name(name: str) -> str:
    """Return a user name in lower case, as it is stored. Raises ``ValueError`` if it is not valid."""
    if not re.fullmatch(NAME, name):
        raise ValueError("a name has 2–32 characters (a–z, 0–9, '.', '_', '-') and begins with a letter or digit")
    return name.lower()


@dataclass(frozen=True, slots=True)
class NewAccount:
    """A request for an account, with an optional invite or setup token of the server."""

    name: str
    password: str = field(repr=False)
    invite: str | None = field(default=None, repr=False)
    setup: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A session that has just started in a browser.

    Attributes:
        user: The user.
        secret: The secret of the session.
        device: The token of the device.
        failed_sign_ins: The failed sign-ins since the user's previous visit.
    """

    user: UserAccount
    secret: str = field(repr=False)
    device: str = field(repr=False)
    failed_sign_ins: FailedSignInCount | None = None


class _Lifetime(NamedTuple):
    """How long a session is valid without use, and in total."""

    idle: timedelta
    total: timedelta


class Accounts:
    """The actions of users on their own accounts, sessions and API tokens.

    The attribute ``users`` provides the actions of administrators on other accounts.

    Args:
        store: The database.
        authenticator: Finds and ends sessions.
        guard: Checks and hashes passwords.
        sign_up: Who can create an account: everyone, users with an invite, or only the operator.
    """

    def __init__(self, store: Store, authenticator: Authenticator, guard: SignInGuard, sign_up: SignUp) -> None:
        self._store = store
        self._authenticator = authenticator
        self._guard = guard
        self.sign_up_mode = sign_up
        self.failures = FailedSignInRecorder(store.users)
        self.users = UserManagement(store, authenticator, guard)
        self._has_users = False

    async def aclose(self) -> None:
        """Store the counts of failed sign-ins, and stop the thread that hashes passwords."""
        await self.failures.aclose()
        await self._guard.aclose()

    async def has_users(self) -> bool:
        """Return whether there are users."""
        self._has_users = self._has_users or await self._store.users.any()
        return self._has_users

    async def setup_token(self) -> str | None:
        """Return the token that allows creating the first user, or ``None`` if there are users.

        Raises:
            Unavailable: The database did not respond in time.
        """
        return None if await self.has_users() else setup_token(await self._authenticator.key())

    async def sign_up(self, new: NewAccount, caller: ClientInfo, previous_secret: str | None) -> StartedSession:
        """Create an account and sign in.

        Args:
            new: The account.
            caller: The origin of the request.
            previous_secret: The secret of the current session of the browser, which is ended.

        Raises:
            Forbidden: The caller cannot create an account.
            NameTaken: The name is in use.
            PasswordRefused: The password is too easy to guess, or too long.
            TooManyRequests: Too many accounts were created from this address.
        """
        await self._guard.count_sign_up(caller)
        user = await (
            self._create_user(new, caller) if new.setup is None else self._create_first_user(new, new.setup, caller)
        )
        await self._store.audit.add("sign-up", user.name, address=caller.address)
        return await self._start_browser_session(user, caller, previous_secret)

    async def _create_first_user(self, new: NewAccount, setup: str, caller: ClientInfo) -> UserAccount:
        """Create the account of the first user, an administrator, if the setup token is right."""
        token = await self.setup_token()
        if token is None or not hmac.compare_digest(setup.encode(), token.encode()):
            raise Forbidden(NO_SETUP)
        user = await self._store.users.add_first(new.name, await self._guard.hash(new.name, new.password, caller))
        if user is None:
            raise Forbidden(NO_SETUP)
        return user

    async def _create_user(self, new: NewAccount, caller: ClientInfo) -> UserAccount:
        # The mode "invite" needs no such check, because there are no invites before there are users.
        if self.sign_up_mode == "closed" or (self.sign_up_mode == "open" and not await self.has_users()):
            raise Forbidden(NO_SIGN_UP)
        invited = self.sign_up_mode == "invite"
        if invited and new.invite is None:
            raise Forbidden("You need an invite to sign up")
        hash = await self._guard.hash(new.name, new.password, caller)
        invite = None
        if invited and new.invite is not None:
            invite = await self._store.one_time_tokens.pop("invite", digest(new.invite))
            by = None if invite is None else await self._store.users.get(invite[1]["by"])
            if by is None or by.disabled or not by.admin:  # invites of former administrators are not valid
                raise Forbidden("This invite is not valid: it was used, has expired, or was revoked")
        try:
            return await self._store.users.add(new.name, hash, admin=False)
        except NameTaken:
            if invite is not None and new.invite is not None:
                await self._store.one_time_tokens.add("invite", digest(new.invite), *invite)
            raise

    async def sign_in(
        self, name: str, password: str, caller: ClientInfo, previous_secret: str | None
    ) -> StartedSession:
        """Sign in with a new session.

        Args:
            name: The user.
            password: The password.
            caller: The origin of the request.
            previous_secret: The secret of the current session of the browser, which is ended.

        Raises:
            NotSignedIn: The name or the password is wrong.
            TooManyRequests: There were too many failed attempts.
        """
        user = await self._authenticate(name, password, caller)
        started = await self._start_browser_session(user, caller, previous_secret)
        await self.failures.flush()
        return replace(started, failed_sign_ins=await self._store.users.begin_visit(name))

    async def failed_sign_ins(self, principal: Principal) -> FailedSignInCount | None:
        """Return the failed sign-ins to show to a user, or ``None`` for an API token. Raises :class:`Unavailable`."""
        if principal.name is None or principal.is_api_token:
            return None
        return await self._store.users.failed_sign_ins(principal.name)

    async def acknowledge_failed_sign_ins(self, principal: Principal) -> None:
        """Reset the count of failed sign-ins that are shown to the user. Raises :class:`OutcomeUnknown`."""
        await self._store.users.acknowledge_failed_sign_ins(_name(principal))

    async def sign_in_program(self, name: str, password: str, caller: ClientInfo, *, writes: bool) -> str:
        """Sign in for :data:`JWT_SECONDS`, and return a signed token. Raises the errors of :meth:`sign_in`."""
        user = await self._authenticate(name, password, caller)
        lifetime = timedelta(seconds=JWT_SECONDS)
        session, _ = await self._create_session(user, "session", caller, _Lifetime(lifetime, lifetime), writes=writes)
        return make_jwt(await self._authenticator.key(), TokenClaims(user.name, session.id))

    async def _authenticate(self, name: str, password: str, caller: ClientInfo) -> UserAccount:
        user = await self._store.users.get(name)
        is_right, hash = await self._guard.verify(name, password, user, caller)
        if user is None or not is_right:
            # An unknown name is not recorded, because it may be a password that was typed into the wrong field.
            known = None if user is None else user.name
            await self._store.audit.add("sign-in", known, address=caller.address, ok=False)
            if known is not None:
                self.failures.add(known)
            raise NotSignedIn(WRONG_CREDENTIALS)
        if hash is not None:
            await self._store.users.rehash(name, user.hash, hash)
        await self._store.audit.add("sign-in", name, address=caller.address)
        return user

    async def _start_browser_session(
        self, user: UserAccount, caller: ClientInfo, previous_secret: str | None
    ) -> StartedSession:
        """Start a session, and end the previous session of the browser, because others may know its secret."""
        if previous_secret is not None:
            earlier = await self._authenticator.of_secret(previous_secret, None)
            if earlier is not None and earlier.name is not None:
                await self._authenticator.end(earlier.name, id=earlier.session)
        _, secret = await self._create_session(
            user, "session", caller, _Lifetime(SESSION_IDLE_TIMEOUT, MAX_SESSION_AGE)
        )
        return StartedSession(user, secret, await self._issue_device(user, caller, user.token_generations["session"]))

    async def _issue_device(self, user: UserAccount, caller: ClientInfo, generation: int) -> str:
        """Return a device token for a browser. A known device keeps its id, and so its count of failures."""
        known = await self._guard.device_of(user, caller)
        return issue_device(await self._authenticator.key(), user.name, generation, known)

    async def _create_session(
        self,
        user: UserAccount,
        kind: Kind,
        caller: ClientInfo,
        lifetime: _Lifetime,
        *,
        writes: bool = True,
        label: str | None = None,
    ) -> tuple[Session, str]:
        secret = (TOKEN_PREFIX if kind == "token" else "") + new_secret()
        now = datetime.now(UTC)
        session = Session(
            id=digest(secret),
            kind=kind,
            user=user.name,
            token_generation=user.token_generations[kind],
            writes=writes,
            created_date=now,
            used_date=now if kind == "session" else None,
            expires_date=now + lifetime.idle,
            ends_date=now + lifetime.total,
            label=label,
            address=caller.address,
            agent=caller.agent,
            proven_date=now if kind == "session" else None,
        )
        await self._store.sessions.add(session)
        return session, secret

    async def sign_out(self, principal: Principal, caller: ClientInfo) -> None:
        """End the session of the request."""
        if principal.name is not None and await self._authenticator.end(
            principal.name, "session", id=principal.session
        ):
            await self._store.audit.add("sign-out", principal.name, address=caller.address)

    async def change_password(
        self, principal: Principal, old: str, new: str, caller: ClientInfo, *, revoke_tokens: bool = False
    ) -> str:
        """Change the password. All other sessions end, and all devices except this one become unknown.

        Args:
            principal: The user, in the session that continues.
            old: The old password.
            new: The new password.
            caller: The origin of the request.
            revoke_tokens: Whether all API tokens of the user are revoked.

        Returns:
            The new token of this device.

        Raises:
            Forbidden: The old password is wrong.
            PasswordRefused: The new password is too easy to guess, or too long.
            TooManyRequests: The old password was wrong too often in this session.
        """
        name = _name(principal)
        user = await self._verify_password(principal, old, caller)
        device = None
        if user is not None and principal.session is not None:
            hash = await self._guard.hash(name, new, caller, principal.session)
            generation = user.token_generations["session"] + 1
            # Before the generation of the user changes, so that this session stays valid throughout.
            await self._store.sessions.set_token_generation(principal.session, generation)
            if await self._store.users.change_password(name, user.hash, hash, tokens=revoke_tokens):
                device = await self._issue_device(user, caller, generation)
        await self._store.audit.add("password", name, address=caller.address, ok=device is not None)
        if device is None:
            raise Forbidden("The old password is wrong")
        await self._authenticator.end(name, None if revoke_tokens else "session", except_id=principal.session)
        return device

    async def confirm_password(self, principal: Principal, password: str, caller: ClientInfo) -> None:
        """Check the password, and mark the session as confirmed.

        Some actions require a session that was confirmed within
        :data:`realtime.auth.authenticator.CONFIRMATION_LIFETIME`.

        Raises:
            Forbidden: The password is wrong.
            TooManyRequests: The password was wrong too often in this session.
        """
        is_right = await self._verify_password(principal, password, caller) is not None
        await self._store.audit.add("password.confirm", principal.name, address=caller.address, ok=is_right)
        if not is_right:
            raise Forbidden("The password is wrong")

    async def _verify_password(self, principal: Principal, password: str, caller: ClientInfo) -> UserAccount | None:
        """Return the user of a session if the password is right, and mark the session as confirmed."""
        user = await self._store.users.get(_name(principal))
        if principal.session is None or not await self._guard.verify_current(user, password, principal.session, caller):
            return None
        await self._store.sessions.confirm(principal.session)
        return user

    async def sessions(self, principal: Principal, kind: Kind) -> Sequence[Session]:
        """Return the sessions or the API tokens of the user."""
        return await self._store.sessions.list_of(_name(principal), kind)

    async def end(self, principal: Principal, kind: Kind, id: str, caller: ClientInfo) -> None:
        """End a session or an API token of the user. Raises :class:`ResourceNotFound`."""
        if not await self._authenticator.end(_name(principal), kind, id=id):
            raise ResourceNotFound(f"{kind.capitalize()} not found")
        action: Literal["session.end", "token.end"] = "session.end" if kind == "session" else "token.end"
        await self._store.audit.add(action, principal.name, target=id, address=caller.address)

    async def end_others(self, principal: Principal, caller: ClientInfo) -> None:
        """End all sessions of the user except this one."""
        if await self._authenticator.end(_name(principal), "session", except_id=principal.session):
            await self._store.audit.add("session.end", principal.name, target="others", address=caller.address)

    async def make_token(
        self, principal: Principal, label: str, days: int, caller: ClientInfo, *, writes: bool
    ) -> tuple[Session, str]:
        """Create an API token.

        Args:
            principal: The user.
            label: The user's name for the token.
            days: Days until the token expires.
            caller: The origin of the request.
            writes: Whether the token can change notes.

        Returns:
            The record of the token, and the token, which is not stored.

        Raises:
            NotSignedIn: The session has ended.
            Forbidden: The user has too many tokens.
        """
        # The session and the user are read together: the token gets the generation at which the session was valid.
        valid = await self._store.sessions.valid([principal.session] if principal.session else [])
        if not valid:
            raise NotSignedIn
        user = valid[0][1]
        if len(await self.sessions(principal, "token")) >= MAX_TOKENS:
            raise Forbidden(f"You cannot have more than {MAX_TOKENS} API tokens. Revoke one first")
        lifetime = timedelta(days=days)
        token, secret = await self._create_session(
            user, "token", ClientInfo(), _Lifetime(lifetime, lifetime), writes=writes, label=label
        )
        await self._store.audit.add("token.make", user.name, target=token.id, address=caller.address)
        return token, secret

    async def ticket(self, principal: Principal, note: int) -> str:
        """Return a ticket for one connection to the room of a note, valid for :data:`TICKET_LIFETIME`."""
        secret = new_secret()
        contents = {"session": principal.session, "note": note}
        await self._store.one_time_tokens.add("ticket", digest(secret), datetime.now(UTC) + TICKET_LIFETIME, contents)
        return secret

    async def redeem(self, ticket: str, note: int) -> Principal | None:
        """Redeem a ticket, which is valid once. Return its owner, or ``None`` if it is not valid for the note."""
        ticket_record = await self._store.one_time_tokens.pop("ticket", digest(ticket))
        if ticket_record is None or ticket_record[1]["note"] != note:
            return None
        return await self._authenticator.of_session(ticket_record[1]["session"])


def _name(principal: Principal) -> str:
    if principal.name is None:
        raise NotSignedIn
    return principal.name
