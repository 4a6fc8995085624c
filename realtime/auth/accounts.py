"""The actions on accounts: who may be here, how they prove it, and how that ends."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from realtime.auth.authenticator import IDLE, TOKEN
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
    from realtime.auth.users import FailedSignInCount, Kind, User
    from realtime.store.database import Store

LONGEST = timedelta(days=90)
"""However much it is used a session ends."""
TICKET = timedelta(seconds=30)
MOST_TOKENS = 100
WRONG = "The name or the password is wrong"
NO_SIGN_UP = "Nobody can sign up here; whoever runs the server adds people"
NO_SETUP = "This setup link does not work, or not any more: sign in, or ask whoever runs the server for an invite"

SignUp = Literal["open", "invite", "closed"]


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{1,31}"


def checked_name(name: str) -> str:
    """A name as it is kept: small and capital letters are the same. Raises ``ValueError`` for what is none."""
    if not re.fullmatch(NAME, name):
        raise ValueError("a name has 2–32 of a–z, 0–9, '.', '_' and '-', and begins with a letter or digit")
    return name.lower()


@dataclass(frozen=True, slots=True)
class NewAccount:
    """A request for an account, with an invite or the setup token of the server, if one was given."""

    name: str
    password: str = field(repr=False)
    invite: str | None = field(default=None, repr=False)
    setup: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A browser that has just signed in: the user, the secret of the session, and the token of the device.

    ``failed`` are the failed sign-ins since the user's last visit.
    """

    person: User
    secret: str = field(repr=False)
    device: str = field(repr=False)
    failed: FailedSignInCount | None = None


class Accounts:
    """The actions of users on their own accounts, sessions and tokens. ``sign_up`` says who may make an account.

    ``users`` has those of administrators on the accounts of others.
    """

    def __init__(self, store: Store, authenticator: Authenticator, guard: SignInGuard, sign_up: SignUp) -> None:
        self._store = store
        self._viewers = authenticator
        self._guard = guard
        self.sign_up_mode = sign_up
        self.failures = FailedSignInRecorder(store.people)
        self.users = UserManagement(store, authenticator, guard)
        self._anyone = False

    async def aclose(self) -> None:
        """Store the failed sign-ins, and stop the thread that hashes passwords."""
        await self.failures.aclose()
        await self._guard.aclose()

    async def anyone(self) -> bool:
        """Whether there is a user yet."""
        self._anyone = self._anyone or await self._store.people.any()
        return self._anyone

    async def setup_token(self) -> str | None:
        """Return the secret that makes the first user, or ``None`` if there is a user. Raises :class:`Unavailable`."""
        return None if await self.anyone() else setup_token(await self._viewers.key())

    async def sign_up(self, new: NewAccount, caller: ClientInfo, before: str | None) -> StartedSession:
        """Make an account, and sign in. The session with the secret ``before`` ends.

        Raises:
            Forbidden: The caller may not make an account.
            NameTaken: Somebody has this name.
            PasswordRefused: The password is too easy to guess, or too long.
            TooMany: Too many accounts were made from this address.
        """
        await self._guard.count_sign_up(caller)
        person = await (self._make(new, caller) if new.setup is None else self._make_first(new, new.setup, caller))
        await self._store.audit.add("sign-up", person.name, address=caller.address)
        return await self._begin(person, caller, before)

    async def _make_first(self, new: NewAccount, setup: str, caller: ClientInfo) -> User:
        """Make the account of the first user, an admin, for whoever has the setup token."""
        token = await self.setup_token()
        if token is None or not hmac.compare_digest(setup.encode(), token.encode()):
            raise Forbidden(NO_SETUP)
        person = await self._store.people.add_first(new.name, await self._guard.hash(new.name, new.password, caller))
        if person is None:
            raise Forbidden(NO_SETUP)
        return person

    async def _make(self, new: NewAccount, caller: ClientInfo) -> User:
        # Without a user nobody has an invite, so that "invite" needs no check of its own.
        if self.sign_up_mode == "closed" or (self.sign_up_mode == "open" and not await self.anyone()):
            raise Forbidden(NO_SIGN_UP)
        invited = self.sign_up_mode == "invite"
        if invited and new.invite is None:
            raise Forbidden("To sign up here takes an invite")
        hash = await self._guard.hash(new.name, new.password, caller)
        passed = None
        if invited and new.invite is not None:
            passed = await self._store.passes.take("invite", digest(new.invite))
            by = None if passed is None else await self._store.people.get(passed[1]["by"])
            if by is None or by.disabled or not by.admin:  # they would let themselves in again
                raise Forbidden("This invite was used, has expired, or never was one")
        try:
            return await self._store.people.add(new.name, hash, admin=False)
        except NameTaken:
            if passed is not None and new.invite is not None:
                await self._store.passes.add("invite", digest(new.invite), *passed)
            raise

    async def sign_in(self, name: str, password: str, caller: ClientInfo, before: str | None) -> StartedSession:
        """Signs in, with a new session; that with the secret ``before`` ends.

        Raises :class:`NotSignedIn`, :class:`TooManyRequests`.
        """
        person = await self._prove(name, password, caller)
        begun = await self._begin(person, caller, before)
        await self.failures.flush()
        return replace(begun, failed=await self._store.people.begin_visit(name))

    async def failed_sign_ins(self, principal: Principal) -> FailedSignInCount | None:
        """Return the failed sign-ins to report to a user; an API token gets none. Raises :class:`Unavailable`."""
        if principal.name is None or principal.token:
            return None
        return await self._store.people.failed_sign_ins(principal.name)

    async def acknowledge_failed_sign_ins(self, principal: Principal) -> None:
        """Do not report the failed sign-ins again. Raises :class:`OutcomeUnknown`."""
        await self._store.people.acknowledge_failed_sign_ins(_name(principal))

    async def sign_in_program(self, name: str, password: str, caller: ClientInfo, *, writes: bool) -> str:
        """Signs in for as long as a signed token lasts, and makes one. Raises as :meth:`sign_in`."""
        person = await self._prove(name, password, caller)
        moment = timedelta(seconds=JWT_SECONDS)
        session, _ = await self._start(person, "session", caller, moment, moment, writes=writes)
        return make_jwt(await self._viewers.key(), TokenClaims(person.name, session.id))

    async def _prove(self, name: str, password: str, caller: ClientInfo) -> User:
        person = await self._store.people.get(name)
        right, hash = await self._guard.verify(name, password, person, caller)
        if person is None or not right:
            # A name that nobody has is not kept: it may be a password in the wrong field.
            known = None if person is None else person.name
            await self._store.audit.add("sign-in", known, address=caller.address, ok=False)
            if known is not None:
                self.failures.add(known)
            raise NotSignedIn(WRONG)
        if hash is not None:
            await self._store.people.rehash(name, person.hash, hash)
        await self._store.audit.add("sign-in", name, address=caller.address)
        return person

    async def _begin(self, person: User, caller: ClientInfo, before: str | None) -> StartedSession:
        """A new session in place of the one that the browser had, whose secret others may know."""
        if before is not None:
            earlier = await self._viewers.of_secret(before, None)
            if earlier is not None and earlier.name is not None:
                await self._viewers.end(earlier.name, id=earlier.session)
        _, secret = await self._start(person, "session", caller, IDLE, LONGEST)
        return StartedSession(person, secret, await self._device(person, caller, person.token_generations["session"]))

    async def _device(self, person: User, caller: ClientInfo, generation: int) -> str:
        """Return a device token for a browser; a known device keeps its id, and so its count of failures."""
        known = await self._guard.device_of(person, caller)
        return issue_device(await self._viewers.key(), person.name, generation, known)

    async def _start(
        self,
        person: User,
        kind: Kind,
        caller: ClientInfo,
        idle: timedelta,
        longest: timedelta,
        *,
        writes: bool = True,
        label: str | None = None,
    ) -> tuple[Session, str]:
        secret = (TOKEN if kind == "token" else "") + new_secret()
        now = datetime.now(UTC)
        session = Session(
            id=digest(secret),
            kind=kind,
            user=person.name,
            token_generation=person.token_generations[kind],
            writes=writes,
            created_date=now,
            used_date=now if kind == "session" else None,
            expires_date=now + idle,
            ends_date=now + longest,
            label=label,
            address=caller.address,
            agent=caller.agent,
            proven_date=now if kind == "session" else None,
        )
        await self._store.sessions.add(session)
        return session, secret

    async def sign_out(self, principal: Principal, caller: ClientInfo) -> None:
        """Ends the session that this came with."""
        if principal.name is not None and await self._viewers.end(principal.name, "session", id=principal.session):
            await self._store.audit.add("sign-out", principal.name, address=caller.address)

    async def change_password(
        self, principal: Principal, old: str, new: str, caller: ClientInfo, *, revoke_tokens: bool = False
    ) -> str:
        """Set another password. All other sessions end, and all devices are unknown again but this one.

        Args:
            viewer: The user, in the session that goes on.
            old: The password so far.
            new: The new password.
            caller: The origin of the request.
            revoke_tokens: Whether all API tokens of the user end, too.

        Returns:
            The new token of this device.

        Raises:
            Forbidden: The old password is wrong.
            PasswordRefused: The new password is too easy to guess, or too long.
            TooMany: The old password was wrong too often in this session.
        """
        name = _name(principal)
        person = await self._prove_again(principal, old, caller)
        device = None
        if person is not None and principal.session is not None:
            hash = await self._guard.hash(name, new, caller, principal.session)
            generation = person.token_generations["session"] + 1
            # First, so that it is valid at every moment.
            await self._store.sessions.enter_era(principal.session, generation)
            if await self._store.people.change_password(name, person.hash, hash, tokens=revoke_tokens):
                device = await self._device(person, caller, generation)
        await self._store.audit.add("password", name, address=caller.address, ok=device is not None)
        if device is None:
            raise Forbidden("The old password is wrong")
        await self._viewers.end(name, None if revoke_tokens else "session", but=principal.session)
        return device

    async def confirm_password(self, principal: Principal, password: str, caller: ClientInfo) -> None:
        """Let this session do what needs the password to be confirmed, for some minutes.

        Raises:
            Forbidden: The password is wrong.
            TooMany: It was wrong too often in this session.
        """
        right = await self._prove_again(principal, password, caller) is not None
        await self._store.audit.add("password.confirm", principal.name, address=caller.address, ok=right)
        if not right:
            raise Forbidden("The password is wrong")

    async def _prove_again(self, principal: Principal, password: str, caller: ClientInfo) -> User | None:
        """Return the user of a session if the password is right, which this session then has confirmed."""
        person = await self._store.people.get(_name(principal))
        if principal.session is None or not await self._guard.verify_old(person, password, principal.session, caller):
            return None
        await self._store.sessions.confirm(principal.session)
        return person

    async def sessions(self, principal: Principal, kind: Kind) -> Sequence[Session]:
        """One's sign-ins, or tokens."""
        return await self._store.sessions.of(_name(principal), kind)

    async def end(self, principal: Principal, kind: Kind, id: str, caller: ClientInfo) -> None:
        """Ends one of one's sessions, or a token. Raises :class:`ResourceNotFound`."""
        if not await self._viewers.end(_name(principal), kind, id=id):
            raise ResourceNotFound(f"{kind.capitalize()} not found")
        action: Literal["session.end", "token.end"] = "session.end" if kind == "session" else "token.end"
        await self._store.audit.add(action, principal.name, target=id, address=caller.address)

    async def end_others(self, principal: Principal, caller: ClientInfo) -> None:
        """Ends all of one's sessions but this one."""
        if await self._viewers.end(_name(principal), "session", but=principal.session):
            await self._store.audit.add("session.end", principal.name, target="others", address=caller.address)

    async def make_token(
        self, principal: Principal, label: str, days: int, caller: ClientInfo, *, writes: bool
    ) -> tuple[Session, str]:
        """Makes an API token: what is known of it, and the token itself, which is not stored."""
        # In one read: a token of the era of a session that holds ends with whatever ends both.
        held = await self._store.sessions.valid([principal.session] if principal.session else [])
        if not held:
            raise NotSignedIn
        person = held[0][1]
        if len(await self.sessions(principal, "token")) >= MOST_TOKENS:
            raise Forbidden(f"Nobody may have more than {MOST_TOKENS} tokens: revoke one first")
        span = timedelta(days=days)
        token, secret = await self._start(person, "token", ClientInfo(), span, span, writes=writes, label=label)
        await self._store.audit.add("token.make", person.name, target=token.id, address=caller.address)
        return token, secret

    async def ticket(self, principal: Principal, note: int) -> str:
        """A ticket for one connection to the room of a note, soon."""
        secret = new_secret()
        what = {"session": principal.session, "note": note}
        await self._store.passes.add("ticket", digest(secret), datetime.now(UTC) + TICKET, what)
        return secret

    async def redeem(self, ticket: str, note: int) -> Principal | None:
        """Who has a ticket for a note; it is used up by that, even if it is for another one."""
        found = await self._store.passes.take("ticket", digest(ticket))
        if found is None or found[1]["note"] != note:
            return None
        return await self._viewers.of_session(found[1]["session"])


def _name(principal: Principal) -> str:
    if principal.name is None:
        raise NotSignedIn
    return principal.name
