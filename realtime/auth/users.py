"""People, what their rights come from, and what is kept of what they did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Kind = Literal["session", "token"]


@dataclass(frozen=True, slots=True)
class FailedSignInCount:
    """The number of failed sign-ins of a user, and the time of the latest one."""

    count: int
    last_date: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A user. ``eras`` end rights at once: a session or token of an earlier one, by its kind, is none any more."""

    name: str
    hash: str = field(repr=False)
    admin: bool
    disabled: bool
    created_date: datetime
    token_generations: Mapping[Kind, int]


@dataclass(frozen=True, slots=True)
class Actor:
    """The user who does something, and the address; without a name it is the operator of the server."""

    name: str | None = None
    address: str | None = None


OPERATOR = Actor()


@dataclass(frozen=True, slots=True)
class DeletedAccount:
    """An account that was deleted, whose notes are still to be settled.

    ``heir`` is the user who gets the notes, if there is one; ``by`` is the user who deleted the account.
    """

    name: str
    date: datetime
    heir: str | None
    by: str | None


@dataclass(frozen=True, slots=True)
class PendingInvite:
    """An invite that can still be used. ``id`` is the digest of its secret."""

    id: str
    by: str | None
    created_date: datetime
    expires_date: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in, or an API token. ``id`` is the digest of its secret; ``label`` is what its owner calls a token.

    It ends at ``expires_date``, which use puts off for a sign-in, but not beyond ``ends_date``. ``used_date`` is right
    to a minute. ``proven_date`` is the last time that the user proved the password in a sign-in.
    """

    id: str
    kind: Kind
    user: str
    token_generation: int
    writes: bool
    created_date: datetime
    used_date: datetime | None
    expires_date: datetime
    ends_date: datetime
    label: str | None = None
    address: str | None = None
    agent: str | None = None
    proven_date: datetime | None = None


AuditAction = Literal[
    "sign-up", "sign-in", "sign-out", "password", "password.confirm", "session.end", "token.make", "token.end",
    "user.add", "user.disable", "user.enable", "user.reset", "user.promote", "user.demote", "user.delete",
    "invite", "invite.revoke",
    "note.create", "note.change", "note.delete", "note.restore", "note.purge", "note.share",
    "note.access", "export", "token.use",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that somebody did, to what, from which address; without ``ok`` it was refused."""

    id: str
    date: datetime
    who: str | None
    action: AuditAction
    target: str | None
    address: str | None
    ok: bool
