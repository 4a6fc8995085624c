"""Routes for administrators: users, invites and the audit log."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Path, Query, Response
from pydantic import BaseModel, Field, StringConstraints, field_validator

from realtime.api.auth_deps import (
    CONFIRM,
    ENDED,
    EXAMPLE_ID,
    LAST_ADMIN,
    USER_ACTION,
    USER_READ,
    AccountsDep,
    Admin,
    ClientInfoDep,
    ConfirmedAdmin,
    DigestId,
    Name,
    WritingAdmin,
    actor,
    private_response,
    with_example,
)
from realtime.api.deps import allow_query
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_response
from realtime.api.responses import error_responses
from realtime.api.router import SlashRouter
from realtime.auth.accounts import NAME
from realtime.auth.permissions import LINK_ID_CHARACTERS
from realtime.auth.tokens import digest
from realtime.auth.users import AuditAction, UserAccount
from realtime.errors import AccountsDisabled, ResourceNotFound
from realtime.notes.models import Moment

router = SlashRouter(tags=["administration"])

ORDER = "audit"
NO_USER = error_responses(ResourceNotFound("User not found"), AccountsDisabled())
NO_INVITE = error_responses(ResourceNotFound("Invite not found: it was used, has expired, or was revoked"))

UserName = Annotated[Name, Path()]


class UserListed(BaseModel):
    """A user, as shown to administrators."""

    model_config = with_example(name="ann", admin=True, disabled=False, created_date="2026-01-01T09:00:00.000Z")

    name: str
    admin: bool
    disabled: bool
    created_date: Moment


def _user_response(user: UserAccount) -> Response:
    return private_response(UserListed.model_validate(user))


@router.get(
    "/users", dependencies=[allow_query()], summary="List users", response_model=list[UserListed], responses=USER_READ
)
async def users(accounts: AccountsDep, admin: Admin) -> Response:
    """Return all users, ordered by name."""
    return private_response([UserListed.model_validate(user) for user in await accounts.users.all()])


@router.post(
    "/users/{name}/disable",
    dependencies=[allow_query()],
    summary="Disable a user",
    response_model=UserListed,
    responses={**USER_ACTION, **NO_USER, **LAST_ADMIN},
)
async def disable(accounts: AccountsDep, admin: WritingAdmin, caller: ClientInfoDep, name: UserName) -> Response:
    """Disable a user: sessions and tokens end, and open connections are closed within a second."""
    return _user_response(await accounts.users.set_disabled(name, True, actor(admin, caller)))


@router.post(
    "/users/{name}/enable",
    dependencies=[allow_query()],
    summary="Enable a user",
    response_model=UserListed,
    responses={**USER_ACTION, **NO_USER},
)
async def enable(accounts: AccountsDep, admin: WritingAdmin, caller: ClientInfoDep, name: UserName) -> Response:
    """Enable a user again. Earlier sessions and tokens stay ended."""
    return _user_response(await accounts.users.set_disabled(name, False, actor(admin, caller)))


@router.post(
    "/users/{name}/promote",
    dependencies=[allow_query()],
    summary="Make a user an administrator",
    response_model=UserListed,
    responses={**USER_ACTION, **CONFIRM, **NO_USER},
)
async def promote(accounts: AccountsDep, admin: ConfirmedAdmin, caller: ClientInfoDep, name: UserName) -> Response:
    """Give a user the administrator role. It applies to open connections within a second.

    Requires a password confirmation in this session within the last 10 minutes: `POST /auth/confirm`.
    """
    return _user_response(await accounts.users.set_admin(name, True, actor(admin, caller)))


@router.post(
    "/users/{name}/demote",
    dependencies=[allow_query()],
    summary="Remove the administrator role",
    response_model=UserListed,
    responses={**USER_ACTION, **CONFIRM, **NO_USER, **LAST_ADMIN},
)
async def demote(accounts: AccountsDep, admin: ConfirmedAdmin, caller: ClientInfoDep, name: UserName) -> Response:
    """Remove the administrator role from a user. It applies to open connections within a second.

    Requires a password confirmation in this session within the last 10 minutes: `POST /auth/confirm`.
    """
    return _user_response(await accounts.users.set_admin(name, False, actor(admin, caller)))


class Invite(BaseModel):
    """An invite for one person."""

    model_config = with_example(invite="6pLO2M1s…", id=EXAMPLE_ID, expires="2026-01-08T09:00:00.000Z")

    invite: Annotated[str, Field(description="the secret, to be sent on sign-up")]
    id: Annotated[str, Field(description="for `DELETE /invites/{id}`")]
    expires: Moment


class InviteListed(BaseModel):
    """An invite that can still be used. Its secret is not stored."""

    model_config = with_example(
        id=EXAMPLE_ID, by="ann", created_date="2026-01-01T09:00:00.000Z", expires_date="2026-01-08T09:00:00.000Z"
    )

    id: str
    by: Annotated[str | None, Field(description="the administrator who created it")]
    created_date: Moment
    expires_date: Moment


@router.get(
    "/invites",
    dependencies=[allow_query()],
    summary="List invites",
    response_model=list[InviteListed],
    responses=USER_READ,
)
async def invites(accounts: AccountsDep, admin: Admin) -> Response:
    """Return the invites that can still be used, newest first."""
    return private_response([InviteListed.model_validate(entry) for entry in await accounts.users.invites()])


@router.post(
    "/invites",
    status_code=201,
    dependencies=[allow_query()],
    summary="Create an invite",
    response_model=Invite,
    responses=USER_ACTION,
)
async def invite(accounts: AccountsDep, admin: WritingAdmin, caller: ClientInfoDep) -> Response:
    """Create an invite, which is valid for one account and for a week."""
    secret, expires = await accounts.users.invite(actor(admin, caller))
    return private_response(Invite(invite=secret, id=digest(secret), expires=expires), 201)


@router.delete(
    "/invites/{id}",
    status_code=204,
    dependencies=[allow_query()],
    summary="Revoke an invite",
    responses={**USER_ACTION, **NO_INVITE, **ENDED},
)
async def revoke_invite(accounts: AccountsDep, admin: WritingAdmin, caller: ClientInfoDep, id: DigestId) -> Response:
    """Revoke an invite, so that it can no longer be used."""
    await accounts.users.revoke_invite(id, actor(admin, caller))
    return private_response(None)


class AuditQuery(PageQuery):
    """The query parameters of the audit log."""

    who: Annotated[
        str | None,
        StringConstraints(pattern=f"^({NAME}|guest:[0-9a-f]{{{LINK_ID_CHARACTERS}}})$", to_lower=True),
        Field(
            description="only entries of this user, or of guests with this share link: `guest:` and the id of the link"
        ),
    ] = None
    action: Annotated[AuditAction | None, Field(description="only entries of this action")] = None
    after: After = None

    @field_validator("after")
    @classmethod
    def _check_token(cls, token: str | None) -> str | None:
        if token is not None and not re.fullmatch("[0-9a-f]{24}", str(decode_page_token(token, ORDER)[0])):
            raise ValueError("is a page token for another order")
        return token


class Entry(BaseModel):
    """An entry of the audit log: an action, or a failed attempt if `ok` is false."""

    model_config = with_example(
        date="2026-01-01T09:00:00.000Z",
        who="ann",
        action="user.disable",
        target="bob",
        address="192.0.2.7",
        ok=True,
    )

    date: Moment
    who: Annotated[
        str | None,
        Field(
            description="the user; `guest:` and the id of a share link for a guest; `null` for an unknown caller or the"
            " operator of the server"
        ),
    ]
    action: AuditAction
    target: Annotated[
        str | None,
        Field(
            description="a user, a note, a session, a token or an invite; `null` for `note.access` and `token.use` if"
            " the caller had too many in an hour to record each"
        ),
    ]
    address: Annotated[str | None, Field(description="the address of the caller; `null` for text typed in an editor")]
    ok: bool


@router.get("/audit", summary="Read the audit log", response_model=list[Entry], responses=USER_READ)
async def audit(accounts: AccountsDep, admin: Admin, query: Annotated[AuditQuery, Query()]) -> Response:
    """Return actions on accounts and notes, and failed attempts, newest first. Entries are kept for 90 days.

    Denied access to existing notes (`note.access`), exports and uses of API tokens are recorded once an hour per
    caller, address and target, with at most 50 entries per caller.
    """
    after = None if query.after is None else str(decode_page_token(query.after, ORDER)[0])
    entries = await accounts.users.audit(query.limit, after=after, who=query.who, action=query.action)
    headers = {"Cache-Control": "no-store"}
    if len(entries) == query.limit:
        token = encode_page_token(ORDER, entries[-1].id, 0)
        headers["Link"] = link("/audit", limit=query.limit, who=query.who, action=query.action, after=token)
    return list_response([Entry.model_validate(entry) for entry in entries], headers)
