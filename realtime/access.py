"""Who may do what with a note. One function decides: :func:`can`.

Rights hang on keys: a note names the role of each key that opens it, and whoever asks has some keys. So a list, a feed
and a search need only the keys to tell what may be in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

EVERYONE = "*"
"""The key that everyone has, signed in or not."""
UNOWNED = None
"""The key to notes that were made without accounts; the admins have it."""

Key = str | None


class Role(IntEnum):
    """What somebody is to a note; each may do all that the ones before may."""

    VIEWER = 1
    EDITOR = 2
    OWNER = 3


class Act(Enum):
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
class Viewer:
    """Who asks. ``keys`` is ``None`` where there are no accounts, and everything is everyone's.

    ``session`` names what the rights come from, a session or a ``token``, and ends with it; ``writes`` is false for a
    token that only reads.
    """

    keys: frozenset[Key] | None
    name: str | None = None
    session: str | None = None
    admin: bool = False
    writes: bool = True
    token: bool = False


OPEN = Viewer(keys=None)
"""Anyone, where there are no accounts."""
STRANGER = Viewer(keys=frozenset({EVERYONE}), writes=False)
"""Anyone who is not signed in, where there are accounts."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what with one note: the role of each key that opens it."""

    roles: Mapping[Key, Role] = field(default_factory=lambda: {UNOWNED: Role.OWNER})


def key_of(name: str) -> Key:
    """The key that a user has by name."""
    return f"@{name}"


def role_of(viewer: Viewer, access: Access) -> Role | None:
    """What somebody is to a note; ``None`` for nothing."""
    if viewer.keys is None:
        return Role.OWNER
    return max((role for key, role in access.roles.items() if key in viewer.keys), default=None)


def can(viewer: Viewer, access: Access, act: Act) -> bool:
    """Whether somebody may do something with a note."""
    role = role_of(viewer, access)
    return role is not None and role >= act.needs and (viewer.writes or act is Act.READ)
