"""The actions of administrators, and of the operator of the server, on accounts: users, roles, invites, the audit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from realtime.auth.tokens import digest, new_secret
from realtime.auth.users import OPERATOR, PendingInvite
from realtime.errors import Forbidden, ResourceNotFound, UnknownHeir

if TYPE_CHECKING:
    from realtime.auth.authenticator import Authenticator
    from realtime.auth.sign_in_guard import SignInGuard
    from realtime.auth.users import Actor, AuditAction, AuditEntry, User
    from realtime.store.database import Store

INVITE = timedelta(days=7)
NO_USER = "User not found"


class UserManagement:
    """Changes accounts of others. Who may do so is checked before."""

    def __init__(self, store: Store, authenticator: Authenticator, guard: SignInGuard) -> None:
        self._store = store
        self._viewers = authenticator
        self._guard = guard

    async def all(self) -> Sequence[User]:
        """Return all users, by name. Raises :class:`Unavailable`."""
        return await self._store.people.all()

    async def audit(
        self, limit: int, *, after: str | None = None, who: str | None = None, action: AuditAction | None = None
    ) -> Sequence[AuditEntry]:
        """Return the entries of the audit before one, the latest first. Raises :class:`Unavailable`."""
        return await self._store.audit.page(limit, after=after, who=who, action=action)

    async def add(self, name: str, password: str, *, admin: bool) -> User:
        """Add a user. The very first one is an administrator. Raises :class:`NameTaken`, :class:`PasswordRefused`."""
        person = await self._store.people.add(name, await self._guard.hash(name, password, None), admin=admin)
        await self._store.audit.add("user.add", None, target=name)
        return person

    async def set_disabled(self, name: str, disabled: bool, by: Actor = OPERATOR) -> User:
        """Disable a user, which ends all that they have open and their invites, or enable one.

        Raises:
            NotThere: There is no such user.
            Forbidden: Users cannot disable themselves.
            LastAdmin: It is the last administrator. The operator can disable that one, too.
        """
        if disabled and by.name == name:
            raise Forbidden("You cannot disable your own account")
        person = await self._store.people.set_disabled(name, disabled, keep_admin=by.name is not None)
        if person is None:
            raise ResourceNotFound(NO_USER)
        if disabled:
            await self._viewers.end(name)
            await self._store.passes.drop_invites(name)
        await self._note("user.disable" if disabled else "user.enable", name, by)
        return person

    async def set_admin(self, name: str, admin: bool, by: Actor = OPERATOR) -> User:
        """Make a user an administrator, or no longer one. It takes effect on everything that the user has open.

        Without the role the user's invites end.

        Raises :class:`ResourceNotFound`, :class:`LastAdmin`.
        """
        person = await self._store.people.set_admin(name, admin)
        if person is None:
            raise ResourceNotFound(NO_USER)
        await self._viewers.change_role(name, admin=admin)
        if not admin:
            await self._store.passes.drop_invites(name)
        await self._note("user.promote" if admin else "user.demote", name, by)
        return person

    async def reset(self, name: str, password: str, *, keep_tokens: bool = False) -> None:
        """Set a password. All sessions of the user end, and all API tokens unless they are kept.

        Raises :class:`ResourceNotFound`, :class:`PasswordRefused`.
        """
        hash = await self._guard.hash(name, password, None)
        if not await self._store.people.change_password(name, None, hash, tokens=not keep_tokens):
            raise ResourceNotFound(NO_USER)
        await self._viewers.end(name, "session" if keep_tokens else None)
        await self._note("user.reset", name, OPERATOR)

    async def delete(self, name: str, heir: str | None, by: Actor = OPERATOR) -> None:
        """Delete an account: sessions, API tokens and invites end, and nobody can take the name.

        The notes are settled afterwards (:mod:`realtime.notes.deleted_accounts`).

        Args:
            name: The user.
            heir: The user who gets the notes. Without one, shared notes become the administrators', and all other notes
                go into the trash.
            by: Whoever does it.

        Raises:
            NotThere: There is no such user.
            UnknownHeir: The heir does not exist, is disabled, or is the account itself.
            LastAdmin: It is the last administrator.
        """
        if heir is not None:
            person = await self._store.people.get(heir)
            if person is None or person.disabled or heir == name:
                raise UnknownHeir(heir)
        if await self._store.people.delete(name, heir, by.name) is None:
            raise ResourceNotFound(NO_USER)
        await self._viewers.end(name)
        await self._store.passes.drop_invites(name)
        await self._note("user.delete", name, by)

    async def invite(self, by: Actor) -> tuple[str, datetime]:
        """Create an invite for one account, and return its secret and its expiry."""
        secret, expires = new_secret(), datetime.now(UTC) + INVITE
        await self._store.passes.add("invite", digest(secret), expires, {"by": by.name})
        await self._store.audit.add("invite", by.name, target=digest(secret), address=by.address)
        return secret, expires

    async def invites(self) -> Sequence[PendingInvite]:
        """Return the invites that can still be used, the latest first. Raises :class:`Unavailable`."""
        found = await self._store.passes.all("invite")
        return [PendingInvite(id, what["by"], expires - INVITE, expires) for id, expires, what in found]

    async def revoke_invite(self, id: str, by: Actor = OPERATOR) -> None:
        """Revoke an invite. Raises :class:`ResourceNotFound` if it was used, has expired, or never existed."""
        if await self._store.passes.take("invite", id) is None:
            raise ResourceNotFound("Invite not found: it was used, has expired, or was revoked")
        await self._note("invite.revoke", id, by)

    async def _note(self, action: AuditAction, target: str, by: Actor) -> None:
        await self._store.audit.add(action, by.name, target=target, address=by.address)
