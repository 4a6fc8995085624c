"""Sharing of notes: owner, members, link, and public access."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from realtime.auth.permissions import UNSHARED_ACCESS, Access, Link, Permission, Role, check, link_key, role_of
from realtime.auth.tokens import digest, link_token
from realtime.errors import NoteNotFound, Unavailable, UnknownUsers

if TYPE_CHECKING:
    from realtime.auth.authenticator import Authenticator
    from realtime.auth.permissions import Principal
    from realtime.notes.preconditions import Versions
    from realtime.notes.queries import NoteQueries
    from realtime.notes.service import NoteService
    from realtime.store.database import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """The requested access rights of a note.

    Attributes:
        members: The role of each user with whom the note is shared.
        link: The role of users with the link; ``None`` removes the link.
        public: Whether everyone can read the note.
        owner: The new owner; ``None`` keeps the current one.
    """

    members: Mapping[str, Role] = field(default_factory=dict)
    link: Role | None = None
    public: bool = False
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class SharingState:
    """The access rights of a note, as a caller can see them.

    Attributes:
        access: The access rights.
        role: The role of the caller.
        token: The token of the link, if the note has one and the caller can see it.
        version: The version of the note.
        members_visible: Whether the caller can see the members.
    """

    access: Access
    role: Role | None
    token: str | None
    version: int
    members_visible: bool


@dataclass(frozen=True, slots=True)
class _RequestedAccess:
    """Replaces the access rights of a note with requested ones. ``new_link`` is for a note that has no link yet."""

    wanted: AccessRequest
    new_link: Link | None

    def apply(self, current: Access) -> Access:
        """Return the requested access rights."""
        owner = current.owner if self.wanted.owner is None else self.wanted.owner
        members = {name: role for name, role in self.wanted.members.items() if name != owner}
        link = self.new_link
        if self.wanted.link is not None and current.link is not None:
            link = replace(current.link, role=self.wanted.link)
        return Access(owner, members, link, self.wanted.public)


class Sharing:
    """Reads and changes the access rights of notes."""

    def __init__(self, store: Store, notes: NoteService, queries: NoteQueries, authenticator: Authenticator) -> None:
        self._store = store
        self._notes = notes
        self._queries = queries
        self._authenticator = authenticator

    async def read(self, principal: Principal, id: int) -> SharingState:
        """Return the access rights of a note, or raise :class:`NoteNotFound`."""
        access, version = await self._queries.access(principal, id)
        return await self._state(principal, id, access, version)

    async def _state(self, principal: Principal, id: int, access: Access, version: int) -> SharingState:
        role = role_of(principal, access)
        members_visible = role is not None and role >= Permission.SHARE.required_role
        token = None
        if members_visible and access.link is not None:
            token = link_token(await self._authenticator.key(), id, access.link.nonce)
        return SharingState(access, role, token, version, members_visible)

    async def change(self, principal: Principal, id: int, wanted: AccessRequest, versions: Versions) -> SharingState:
        """Replace the access rights of a note. Clients that lose access are notified and disconnected at once.

        A new owner requires a recently confirmed password (:meth:`Authenticator.check_confirmed`).

        Raises:
            NoteNotFound: The note does not exist, or the caller cannot see it.
            Forbidden: The caller does not own the note.
            VersionMismatch: The note has a version that ``versions`` does not allow.
            UnknownUsers: Some of the names have no account.
            QuotaExceeded: The new owner cannot store the note.
        """
        before = await self._store.notes.note_access(id)
        # Before the names are looked up, so that only the owner learns whether they exist.
        check(principal, before, Permission.SHARE)
        # Members whose accounts were deleted stay until they are removed.
        members = wanted.members.keys() - (before.access.members.keys() if before is not None else set())
        named = {*members, *([] if wanted.owner is None else [wanted.owner])}
        if unknown := named - await self._store.users.existing_names(named):
            raise UnknownUsers(sorted(unknown))
        if wanted.owner not in (None, None if before is None else before.access.owner):
            await self._authenticator.check_confirmed(principal)

        new_link = None if wanted.link is None else await self._create_link(id, wanted.link)
        note = await self._notes.share(principal, id, _RequestedAccess(wanted, new_link), versions)
        try:
            await self._store.revocations.add([("note", id)])
        except Unavailable:
            log.warning("cannot revoke access at once, clients learn of the change from the feed", extra={"note": id})
        after = await self._store.notes.note_access(id)
        return await self._state(principal, id, UNSHARED_ACCESS if after is None else after.access, note.version)

    async def _create_link(self, id: int, role: Role) -> Link:
        nonce = secrets.token_hex(16)
        return Link(role, nonce, link_key(digest(link_token(await self._authenticator.key(), id, nonce))))

    async def opened_by(self, token: str) -> int:
        """Return the id of the note that a link gives access to, or raise :class:`NoteNotFound`."""
        id = await self._store.notes.find_by_key(link_key(digest(token)))
        if id is None:
            raise NoteNotFound
        return id
