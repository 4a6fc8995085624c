"""Authorization checks. A note the caller cannot see raises `NoteNotFound`; one it can see but not change, `Forbidden`.

Access rights are based on keys: a note has a role for each key that gives access to it, and a principal has a set of
keys. Lists, feeds and searches therefore filter notes by key. :func:`can` makes all decisions about a single note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import NamedTuple

from realtime.errors import Forbidden, NoteNotFound, NotSignedIn

EVERYONE = "*"
"""The key of all principals, signed in or not."""
UNOWNED = None
"""The key to notes that were created without accounts. Administrators have it."""

MAX_FORMER_KEYS = 200
GUEST_NAME = "Guest"
"""The name that others see for someone who uses a link and is not signed in."""
LINK_KEY = "link:"
"""The prefix of the keys of links."""
LINK_ID_CHARACTERS = 12
"""Number of hexadecimal digits of a link's digest in the audit log, which identify the link."""
Key = str | None


class Role(IntEnum):
    """The role of a principal for a note. Each role includes the rights of the lower ones."""

    VIEWER = 1
    EDITOR = 2
    OWNER = 3


class Permission(Enum):
    """An action on a note, with the role that it requires."""

    READ = "read", Role.VIEWER
    WRITE = "write", Role.EDITOR
    DELETE = "delete", Role.OWNER
    """Move to the trash, restore, and delete permanently. It is also required to see a note in the trash."""
    SHARE = "share", Role.OWNER

    def __init__(self, verb: str, required_role: Role) -> None:
        self.verb = verb
        self.required_role = required_role


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of an action.

    Attributes:
        keys: The keys of the caller. ``None`` gives access to all notes, on servers without accounts.
        name: The name of the user, if signed in.
        session: The id of the session or API token that gives the rights. They end with it.
        admin: Whether the user is an administrator.
        writes: Whether the caller can change notes. It is false for a read-only API token.
        is_api_token: Whether ``session`` is the id of an API token.
        address: The address of the client. It has no influence on the rights.
        read_at: The time at which the rights were read from the database, on the monotonic clock of this process.
    """

    keys: frozenset[Key] | None
    name: str | None = None
    session: str | None = None
    admin: bool = False
    writes: bool = True
    is_api_token: bool = False
    address: str | None = field(default=None, compare=False)
    read_at: float = field(default=0.0, compare=False)

    @property
    def anonymous(self) -> bool:
        """Whether the caller is not signed in and has no link."""
        return self.session is None and self.keys == ANONYMOUS.keys

    @property
    def shown_as(self) -> str | None:
        """The name that others see, or ``None`` on servers without accounts, where users choose a name."""
        return None if self.keys is None else self.name or GUEST_NAME


UNRESTRICTED = Principal(keys=None)
"""All callers, on servers without accounts."""
ANONYMOUS = Principal(keys=frozenset({EVERYONE}), writes=False)
"""Callers that are not signed in, on servers with accounts."""


def key_of(name: str) -> str:
    """Return the key of a user."""
    return f"@{name}"


def link_key(digest: str) -> str:
    """Return the key of a link, by the digest of its token."""
    return LINK_KEY + digest


def guest_name(keys: Iterable[Key]) -> str | None:
    """Return the name of a guest in the audit log, based on the first of its links, or ``None`` without a link."""
    link = min((key for key in keys if key is not None and key.startswith(LINK_KEY)), default=None)
    return None if link is None else f"guest:{link.removeprefix(LINK_KEY)[:LINK_ID_CHARACTERS]}"


@dataclass(frozen=True, slots=True)
class Link:
    """A secret link that gives access to a note.

    Attributes:
        role: The role of users with the link.
        nonce: The value from which the token of the link is derived.
        key: The key of users with the link.
    """

    role: Role
    nonce: str
    key: str


@dataclass(frozen=True, slots=True)
class Access:
    """The access rights of one note.

    Attributes:
        owner: The name of the owner, or ``None`` for a note that was created without accounts.
        members: The role of each user with whom the note is shared.
        link: The link to the note, if there is one.
        public: Whether everyone can read the note.
        since: The version of the note that introduced these rights.
        former: The latest :data:`MAX_FORMER_KEYS` keys that lost access, each with the version that removed it.
    """

    owner: str | None = None
    members: Mapping[str, Role] = field(default_factory=dict)
    link: Link | None = None
    public: bool = False
    since: int = 1
    former: Mapping[Key, int] = field(default_factory=dict)

    @property
    def roles(self) -> Mapping[Key, Role]:
        """The role of each key that gives access."""
        roles: dict[Key, Role] = {key_of(name): role for name, role in self.members.items()}
        roles[UNOWNED if self.owner is None else key_of(self.owner)] = Role.OWNER
        if self.link is not None:
            roles[self.link.key] = self.link.role
        if self.public:
            roles[EVERYONE] = Role.VIEWER
        return roles

    def followed_by(self, new_access: Access, version: int) -> Access:
        """Return new access rights as of a version, including the keys that have lost access."""
        current = new_access.roles.keys()
        former = {key: lost for key, lost in self.former.items() if key not in current}
        former |= {key: version for key in self.roles if key not in current}
        latest = sorted(former.items(), key=lambda item: item[1])[-MAX_FORMER_KEYS:]
        return replace(new_access, since=version, former=dict(latest))


UNSHARED_ACCESS: Access = Access()
"""The access rights of a note that was created without accounts."""


def role_of(principal: Principal, access: Access) -> Role | None:
    """Return the role of a principal for a note, or ``None`` without access."""
    if principal.keys is None:
        return Role.OWNER
    return max((role for key, role in access.roles.items() if key in principal.keys), default=None)


def owners_of(principal: Principal) -> frozenset[str | None] | None:
    """Return the owners whose notes a principal has all rights to.

    Returns:
        The names of owners, in which ``None`` stands for notes without an owner; or ``None`` for all notes.
    """
    if principal.keys is None:
        return None
    unowned = {None} if UNOWNED in principal.keys else set()
    return frozenset(unowned if principal.name is None else {principal.name, *unowned})


def can(principal: Principal, access: Access, permission: Permission) -> bool:
    """Return whether a principal has a permission for a note."""
    role = role_of(principal, access)
    return role is not None and role >= permission.required_role and (principal.writes or permission is Permission.READ)


class NoteHidden(NoteNotFound):
    """The note exists, but the caller cannot see it. The response is the same as for a note that does not exist."""


class NoteForbidden(Forbidden):
    """The caller can see the note, but does not have the permission."""


class NoteAccess(NamedTuple):
    """The access rights of a note, and whether it is live, that is, neither in the trash nor deleted."""

    access: Access
    live: bool


def check(
    principal: Principal,
    note_access: NoteAccess | None,
    permission: Permission = Permission.READ,
    *,
    in_trash: bool = False,
) -> None:
    """Check that a principal has a permission for a note.

    Args:
        principal: The caller.
        note_access: The access rights of the note, or ``None`` if it does not exist.
        permission: The required permission.
        in_trash: Whether the action expects the note to be in the trash.

    Raises:
        NotSignedIn: The caller is not signed in, and the action is not reading.
        NoteNotFound: The note does not exist, or the caller cannot see it.
        Forbidden: The caller can see the note, but does not have the permission.
    """
    if principal.anonymous and permission is not Permission.READ:
        raise NotSignedIn
    if note_access is None:
        raise NoteNotFound
    if not sees(principal, note_access):
        raise NoteHidden
    if not can(principal, note_access.access, permission):
        if note_access.live is in_trash:
            raise NoteNotFound
        raise NoteForbidden(f"You may not {permission.verb} this note")


def sees(principal: Principal, note_access: NoteAccess) -> bool:
    """Return whether a principal can see a note. A note in the trash is visible to principals that can restore it."""
    role = role_of(principal, note_access.access)
    return role is not None and role >= (Permission.READ if note_access.live else Permission.DELETE).required_role


def check_author(principal: Principal) -> None:
    """Check that a principal can create notes. Raises :class:`NotSignedIn` or :class:`Forbidden`."""
    if principal.keys is None:
        return
    if principal.name is None:
        raise NotSignedIn
    if not principal.writes:
        raise Forbidden("This API token is read-only")


def may_set_ids_and_dates(principal: Principal) -> bool:
    """Return whether imported notes can keep their ids and dates.

    On servers with accounts, only administrators can keep them: ids reveal which other notes exist, and dates can be
    forged.
    """
    return principal.keys is None or principal.admin
