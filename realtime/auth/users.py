"""The records of users, sessions, API tokens, invites and audit entries."""

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
class UserAccount:
    """A user.

    Attributes:
        name: The name in lower case.
        hash: The hash of the password.
        admin: Whether the user is an administrator.
        disabled: Whether the user cannot sign in.
        created_date: The time of the sign-up.
        token_generations: The current generation of sessions and of API tokens. Sessions and tokens of earlier
            generations are not valid, so increasing the number ends all of them at once.
    """

    name: str
    hash: str = field(repr=False)
    admin: bool
    disabled: bool
    created_date: datetime
    token_generations: Mapping[Kind, int]


@dataclass(frozen=True, slots=True)
class Actor:
    """The user who performs an action, and the client's address. Without a name, it is the operator of the server."""

    name: str | None = None
    address: str | None = None


OPERATOR = Actor()


@dataclass(frozen=True, slots=True)
class DeletedAccount:
    """A deleted account whose notes have not been transferred yet.

    Attributes:
        name: The name of the account.
        date: The time of the deletion.
        heir: The new owner of the notes, if any.
        by: The user who deleted the account, or ``None`` for the operator.
    """

    name: str
    date: datetime
    heir: str | None
    by: str | None


@dataclass(frozen=True, slots=True)
class PendingInvite:
    """An invite that was not used yet. ``id`` is the digest of its secret."""

    id: str
    by: str | None
    created_date: datetime
    expires_date: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A session of a signed-in user, or an API token.

    Attributes:
        id: The digest of the secret.
        kind: Whether the record is a session or an API token.
        user: The name of the user.
        token_generation: The generation of the user's sessions or tokens to which it belongs.
        writes: Whether the session or token can change notes.
        created_date: The time of creation.
        used_date: The time of the last use, to the minute.
        expires_date: The time at which it expires. Using a session postpones it.
        ends_date: The time at which a session ends even if it is used.
        label: The user's name for a token.
        address: The address of the client.
        agent: The user agent of the client.
        proven_date: The last time that the user entered the password in a session.
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
    """An entry of the audit log: an action with its user, target and client address. ``ok`` is false if it failed."""

    id: str
    date: datetime
    who: str | None
    action: AuditAction
    target: str | None
    address: str | None
    ok: bool
