"""Who may do what with a note. One function decides: :func:`can`.

Rights hang on keys: a note names the role of each key that opens it, and whoever asks has some keys. So a list, a feed
and a search need only the keys to tell what may be in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import NamedTuple

from realtime.errors import Forbidden, NoteNotFound, NotSignedIn

EVERYONE = "*"
"""The key that everyone has, signed in or not."""
UNOWNED = None
"""The key to notes that were made without accounts; the admins have it."""

MOST_FORMER = 200
GUEST_NAME = "Guest"
"""How somebody is shown who has a link and is not signed in."""
LINK_KEY = "link:"
"""The beginning of the keys of links."""
LINK_ID_CHARACTERS = 12
"""Hexadecimal digits of the digest of a link, by which the audit tells one link from others."""
Key = str | None


class Role(IntEnum):
    """What somebody is to a note; each may do all that the ones before may."""

    VIEWER = 1
    EDITOR = 2
    OWNER = 3


class Permission(Enum):
    """What can be done with a note, by the role that it needs."""

    READ = "read", Role.VIEWER
    WRITE = "write", Role.EDITOR
    DELETE = "delete", Role.OWNER
    """Into the trash, out of it, and for good; the trash shows a note to who may do this."""
    SHARE = "share", Role.OWNER

    def __init__(self, word: str, needs: Role) -> None:
        self.word = word
        self.needs = needs


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``keys`` is ``None`` where there are no accounts, and everything is everyone's.

    ``session`` names what the rights come from, a session or a ``token``, and ends with it; ``writes`` is false for a
    token that only reads. ``address`` is where the request came from; it decides nothing.
    """

    keys: frozenset[Key] | None
    name: str | None = None
    session: str | None = None
    admin: bool = False
    writes: bool = True
    token: bool = False
    address: str | None = field(default=None, compare=False)

    @property
    def anonymous(self) -> bool:
        """Whether it is somebody who is not signed in, and has no link."""
        return self.session is None and self.keys == ANONYMOUS.keys

    @property
    def shown_as(self) -> str | None:
        """The name that others see; ``None`` where everybody chooses one."""
        return None if self.keys is None else self.name or GUEST_NAME


UNRESTRICTED = Principal(keys=None)
"""Anyone, where there are no accounts."""
ANONYMOUS = Principal(keys=frozenset({EVERYONE}), writes=False)
"""Anyone who is not signed in, where there are accounts."""


def key_of(name: str) -> str:
    """The key that a user has by name."""
    return f"@{name}"


def link_key(digest: str) -> str:
    """The key that whoever has a link has, by the digest of its token."""
    return LINK_KEY + digest


def guest_name(keys: Iterable[Key]) -> str | None:
    """Return the name of somebody who is not signed in, by the first of the links that they have."""
    link = min((key for key in keys if key is not None and key.startswith(LINK_KEY)), default=None)
    return None if link is None else f"guest:{link.removeprefix(LINK_KEY)[:LINK_ID_CHARACTERS]}"


@dataclass(frozen=True, slots=True)
class Link:
    """A secret that opens a note to whoever has it. ``nonce`` is what it is made of, ``key`` what it opens with."""

    role: Role
    nonce: str
    key: str


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what with one note; ``since`` is the version that says so.

    ``former`` are keys that opened it once, each with the version that took it away, the latest :data:`MOST_FORMER`.
    """

    owner: str | None = None
    members: Mapping[str, Role] = field(default_factory=dict)
    link: Link | None = None
    public: bool = False
    since: int = 1
    former: Mapping[Key, int] = field(default_factory=dict)

    @property
    def roles(self) -> Mapping[Key, Role]:
        """The role of each key that opens it."""
        roles: dict[Key, Role] = {key_of(name): role for name, role in self.members.items()}
        roles[UNOWNED if self.owner is None else key_of(self.owner)] = Role.OWNER
        if self.link is not None:
            roles[self.link.key] = self.link.role
        if self.public:
            roles[EVERYONE] = Role.VIEWER
        return roles

    def followed_by(self, other: Access, version: int) -> Access:
        """The other one as what holds from a version on, with the keys that open it no more."""
        now = other.roles.keys()
        former = {key: at for key, at in self.former.items() if key not in now}
        former |= {key: version for key in self.roles if key not in now}
        latest = sorted(former.items(), key=lambda item: item[1])[-MOST_FORMER:]
        return replace(other, since=version, former=dict(latest))


UNSHARED_ACCESS: Access = Access()
"""That of a note that was made without accounts."""


def role_of(principal: Principal, access: Access) -> Role | None:
    """What somebody is to a note; ``None`` for nothing."""
    if principal.keys is None:
        return Role.OWNER
    return max((role for key, role in access.roles.items() if key in principal.keys), default=None)


def owners_of(principal: Principal) -> frozenset[str | None] | None:
    """Whose notes somebody has all rights to, ``None`` for those without an owner; and ``None`` for everybody's."""
    if principal.keys is None:
        return None
    unowned = {None} if UNOWNED in principal.keys else set()
    return frozenset(unowned if principal.name is None else {principal.name, *unowned})


def can(principal: Principal, access: Access, act: Permission) -> bool:
    """Whether somebody may do something with a note."""
    role = role_of(principal, access)
    return role is not None and role >= act.needs and (principal.writes or act is Permission.READ)


class NoteHidden(NoteNotFound):
    """There is a note with this id, but not for this user. The answer is the same as if there were none."""


class NoteForbidden(Forbidden):
    """The user can see the note, but may not do this with it."""


class NoteAccess(NamedTuple):
    """What decides over a note: who may do what with it, and whether it is not in the trash, or gone."""

    access: Access
    live: bool


def check(
    principal: Principal, standing: NoteAccess | None, act: Permission = Permission.READ, *, of_trash: bool = False
) -> None:
    """Lets somebody do something with a note, or with one in the trash.

    Raises :class:`NotSignedIn` for whoever can change nothing at all, :class:`NoteNotFound`, :class:`Forbidden`.
    """
    if principal.anonymous and act is not Permission.READ:
        raise NotSignedIn
    if standing is None:
        raise NoteNotFound
    if not sees(principal, standing):
        raise NoteHidden
    if not can(principal, standing.access, act):
        if standing.live is of_trash:
            raise NoteNotFound
        raise NoteForbidden(f"You may not {act.word} this note")


def sees(principal: Principal, standing: NoteAccess) -> bool:
    """Whether a note is there for somebody; in the trash it is for who may take it out."""
    role = role_of(principal, standing.access)
    return role is not None and role >= (Permission.READ if standing.live else Permission.DELETE).needs


def check_author(principal: Principal) -> None:
    """Lets somebody make notes. Raises :class:`NotSignedIn`, :class:`Forbidden`."""
    if principal.keys is None:
        return
    if principal.name is None:
        raise NotSignedIn
    if not principal.writes:
        raise Forbidden("This token only reads")


def may_set_ids_and_dates(principal: Principal) -> bool:
    """Whether the notes that a viewer imports may keep the ids and dates that they had elsewhere.

    Only admins may where there are accounts: ids tell which others exist, and dates can be made up.
    """
    return principal.keys is None or principal.admin
