"""Sharing a note: who owns it, with whom it is shared, its link, and whether everyone may read it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from realtime.auth.permissions import UNSHARED_ACCESS, Access, Link, Permission, Role, check, link_key, role_of
from realtime.auth.tokens import digest, link_token
from realtime.errors import NoteNotFound, Unavailable, UnknownPeople

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
    """Who shall be able to do what. Without an owner it stays whose it is."""

    members: Mapping[str, Role] = field(default_factory=dict)
    link: Role | None = None
    public: bool = False
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class SharingState:
    """Who may do what with a note, what the one who asks is to it, and its version. ``token`` is that of the link."""

    access: Access
    role: Role | None
    token: str | None
    version: int
    whole: bool
    """Whether the one who asks may know with whom it is shared."""


class Sharing:
    """Reads and changes who may do what."""

    def __init__(self, store: Store, notes: NoteService, queries: NoteQueries, authenticator: Authenticator) -> None:
        self._store = store
        self._notes = notes
        self._queries = queries
        self._viewers = authenticator

    async def read(self, principal: Principal, id: int) -> SharingState:
        """Who may do what with a note. Raises :class:`NoteNotFound`."""
        access, version = await self._queries.access(principal, id)
        return await self._shown(principal, id, access, version)

    async def _shown(self, principal: Principal, id: int, access: Access, version: int) -> SharingState:
        role = role_of(principal, access)
        whole = role is not None and role >= Permission.SHARE.required_role
        token = None
        if whole and access.link is not None:
            token = link_token(await self._viewers.key(), id, access.link.nonce)
        return SharingState(access, role, token, version, whole)

    async def change(self, principal: Principal, id: int, wanted: AccessRequest, versions: Versions) -> SharingState:
        """Shares a note so, and not otherwise. Who may do less by it is told, and stopped, at once.

        A new owner takes a password that was confirmed lately (:meth:`Viewers.check_confirmed`).

        Raises :class:`NoteNotFound`, :class:`Forbidden`, :class:`VersionMismatch`, :class:`UnknownPeople`.
        """
        before = await self._store.notes.note_access(id)
        check(
            principal, before, Permission.SHARE
        )  # before the names are looked up: who may not share is told just that
        # Members whose accounts were deleted stay until they are removed.
        members = wanted.members.keys() - (before.access.members.keys() if before is not None else set())
        named = {*members, *([] if wanted.owner is None else [wanted.owner])}
        if unknown := named - await self._store.users.existing_names(named):
            raise UnknownPeople(sorted(unknown))
        if wanted.owner not in (None, None if before is None else before.access.owner):
            await self._viewers.check_confirmed(principal)

        async def decide(now: Access) -> Access:
            owner = now.owner if wanted.owner is None else wanted.owner
            members = {name: role for name, role in wanted.members.items() if name != owner}
            link = None if wanted.link is None else await self._link(id, now.link, wanted.link)
            return Access(owner, members, link, wanted.public)

        note = await self._notes.share(principal, id, decide, versions)
        try:
            await self._store.revocations.add([("note", id)])
        except Unavailable:
            log.warning("only the feed tells of what is shared otherwise", extra={"note": id})
        after = await self._store.notes.note_access(id)
        return await self._shown(principal, id, UNSHARED_ACCESS if after is None else after.access, note.version)

    async def _link(self, id: int, now: Link | None, role: Role) -> Link:
        if now is not None:
            return replace(now, role=role)
        nonce = secrets.token_hex(16)
        return Link(role, nonce, link_key(digest(link_token(await self._viewers.key(), id, nonce))))

    async def opened_by(self, token: str) -> int:
        """The note that a link opens. Raises :class:`NoteNotFound`."""
        id = await self._store.notes.find_by_key(link_key(digest(token)))
        if id is None:
            raise NoteNotFound
        return id
