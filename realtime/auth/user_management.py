"""The actions of administrators and of the operator on accounts: users, roles, invites and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from realtime.auth.tokens import digest, new_secret
from realtime.auth.users import OPERATOR, PendingInvite
from realtime.errors import Forbidden, ResourceNotFound, UnknownNewOwner

if TYPE_CHECKING:
    from realtime.auth.authenticator import Authenticator
    from realtime.auth.sign_in_guard import SignInGuard
    from realtime.auth.users import Actor, AuditAction, AuditEntry, UserAccount
    from realtime.store.database import Store

INVITE_LIFETIME = timedelta(days=7)
NO_USER = "User not found"


class UserManagement:
    """Manages the accounts of other users. Callers check permissions."""

    def __init__(self, store: Store, authenticator: Authenticator, guard: SignInGuard) -> None:
        self._store = store
        self._authenticator = authenticator
        self._guard = guard

    async def all(self) -> Sequence[UserAccount]:
        """Return all users, sorted by name. Raises :class:`Unavailable`."""
        return await self._store.users.all()

    async def audit(
        self, limit: int, *, after: str | None = None, who: str | None = None, action: AuditAction | None = None
    ) -> Sequence[AuditEntry]:
        """Return entries of the audit log, newest first.

        Args:
            limit: The maximum number of entries.
            after: Return only entries that are older than the one with this id.
            who: Return only the actions of this user.
            action: Return only this action.

        Raises:
            Unavailable: The database did not respond in time.
        """
        return await self._store.audit.page(limit, after=after, who=who, action=action)

    async def add(self, name: str, password: str, *, admin: bool) -> UserAccount:
        """Add a user. The first one is always an administrator.

        Raises:
            NameTaken: The name is in use.
            PasswordRefused: The password is too easy to guess, or too long.
        """
        user = await self._store.users.add(name, await self._guard.hash(name, password, None), admin=admin)
        await self._store.audit.add("user.add", None, target=name)
        return user

    async def set_disabled(self, name: str, disabled: bool, by: Actor = OPERATOR) -> UserAccount:
        """Enable or disable a user. Disabling ends all sessions, API tokens, connections and invites of the user.

        Raises:
            ResourceNotFound: There is no such user.
            Forbidden: Users cannot disable themselves.
            LastAdmin: The user is the last administrator. Only the operator can disable this user.
        """
        if disabled and by.name == name:
            raise Forbidden("You cannot disable your own account")
        user = await self._store.users.set_disabled(name, disabled, keep_admin=by.name is not None)
        if user is None:
            raise ResourceNotFound(NO_USER)
        if disabled:
            await self._authenticator.end(name)
            await self._store.one_time_tokens.drop_invites(name)
        await self._record("user.disable" if disabled else "user.enable", name, by)
        return user

    async def set_admin(self, name: str, admin: bool, by: Actor = OPERATOR) -> UserAccount:
        """Give or remove the administrator role, including in open sessions. Removing it revokes the user's invites.

        Raises:
            ResourceNotFound: There is no such user.
            LastAdmin: It is the last administrator.
        """
        user = await self._store.users.set_admin(name, admin)
        if user is None:
            raise ResourceNotFound(NO_USER)
        await self._authenticator.change_role(name, admin=admin)
        if not admin:
            await self._store.one_time_tokens.drop_invites(name)
        await self._record("user.promote" if admin else "user.demote", name, by)
        return user

    async def reset(self, name: str, password: str, *, keep_tokens: bool = False) -> None:
        """Set a password. All sessions of the user end, and all API tokens unless ``keep_tokens`` is set.

        Raises:
            ResourceNotFound: There is no such user.
            PasswordRefused: The password is too easy to guess, or too long.
        """
        hash = await self._guard.hash(name, password, None)
        if not await self._store.users.change_password(name, None, hash, tokens=not keep_tokens):
            raise ResourceNotFound(NO_USER)
        await self._authenticator.end(name, "session" if keep_tokens else None)
        await self._record("user.reset", name, OPERATOR)

    async def delete(self, name: str, heir: str | None, by: Actor = OPERATOR) -> None:
        """Delete an account. Its sessions, API tokens and invites end, and its name cannot be used again.

        The notes are transferred later (:mod:`realtime.notes.deleted_accounts`).

        Args:
            name: The user.
            heir: The new owner of the notes. Without one, the administrators get the shared notes, and all other notes
                are moved to the trash.
            by: The user who deletes the account.

        Raises:
            ResourceNotFound: There is no such user.
            UnknownNewOwner: The heir does not exist, is disabled, or is the account itself.
            LastAdmin: It is the last administrator.
        """
        if heir is not None:
            user = await self._store.users.get(heir)
            if user is None or user.disabled or heir == name:
                raise UnknownNewOwner(heir)
        if await self._store.users.delete(name, heir, by.name) is None:
            raise ResourceNotFound(NO_USER)
        await self._authenticator.end(name)
        await self._store.one_time_tokens.drop_invites(name)
        await self._record("user.delete", name, by)

    async def invite(self, by: Actor) -> tuple[str, datetime]:
        """Create an invite for one account, and return its secret and expiry date."""
        secret, expires = new_secret(), datetime.now(UTC) + INVITE_LIFETIME
        await self._store.one_time_tokens.add("invite", digest(secret), expires, {"by": by.name})
        await self._store.audit.add("invite", by.name, target=digest(secret), address=by.address)
        return secret, expires

    async def invites(self) -> Sequence[PendingInvite]:
        """Return the pending invites, newest first. Raises :class:`Unavailable`."""
        invites = await self._store.one_time_tokens.all("invite")
        return [
            PendingInvite(id, contents["by"], expires - INVITE_LIFETIME, expires) for id, expires, contents in invites
        ]

    async def revoke_invite(self, id: str, by: Actor = OPERATOR) -> None:
        """Revoke an invite. Raises :class:`ResourceNotFound` if it is not pending."""
        if await self._store.one_time_tokens.pop("invite", id) is None:
            raise ResourceNotFound("Invite not found: it was used, has expired, or was revoked")
        await self._record("invite.revoke", id, by)

    async def _record(self, action: AuditAction, target: str, by: Actor) -> None:
        await self._store.audit.add(action, by.name, target=target, address=by.address)
