"""The routes for admins: users, invites, and what was done."""

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
    OWN_ACT,
    OWN_READ,
    AccountsPart,
    Admin,
    CallerPart,
    ConfirmedAdmin,
    Digest,
    Name,
    WritingAdmin,
    actor,
    private,
    shown,
)
from realtime.api.deps import only
from realtime.api.pagination import After, PageQuery, decode_page_token, encode_page_token, link, list_answer
from realtime.api.responses import Answers, problem
from realtime.api.router import SlashRouter
from realtime.auth.accounts import NAME
from realtime.auth.permissions import LINK_ID_CHARACTERS
from realtime.auth.tokens import digest
from realtime.auth.users import AuditAction
from realtime.notes.models import Moment

router = SlashRouter(tags=["administration"])

ORDER = "audit"
NO_USER: Answers = {404: problem("There is no such user, or there are no accounts", "User not found")}
NO_INVITE: Answers = {
    404: problem(
        "It was used, has expired, or was revoked", "Invite not found: it was used, has expired, or was revoked"
    )
}

UserName = Annotated[Name, Path()]


class UserListed(BaseModel):
    """A user, as admins see them."""

    model_config = shown(name="ann", admin=True, disabled=False, created_date="2026-01-01T09:00:00.000Z")

    name: str
    admin: bool
    disabled: bool
    created_date: Moment


@router.get("/users", dependencies=[only()], summary="List users", response_model=list[UserListed], responses=OWN_READ)
async def users(accounts: AccountsPart, admin: Admin) -> Response:
    """All users, by name."""
    found = [UserListed.model_validate(person) for person in await accounts.users.all()]
    return list_answer(found, {"Cache-Control": "no-store"})


@router.post(
    "/users/{name}/disable",
    dependencies=[only()],
    summary="Disable a user",
    response_model=UserListed,
    responses={**OWN_ACT, **NO_USER, **LAST_ADMIN},
)
async def disable(accounts: AccountsPart, admin: WritingAdmin, caller: CallerPart, name: UserName) -> Response:
    """Nothing of theirs lets them in any more: sessions and tokens end, and what is open is closed within a second."""
    return private(UserListed.model_validate(await accounts.users.set_disabled(name, True, actor(admin, caller))))


@router.post(
    "/users/{name}/enable",
    dependencies=[only()],
    summary="Enable a user",
    response_model=UserListed,
    responses={**OWN_ACT, **NO_USER},
)
async def enable(accounts: AccountsPart, admin: WritingAdmin, caller: CallerPart, name: UserName) -> Response:
    """They can sign in again; sessions and tokens of before stay ended."""
    return private(UserListed.model_validate(await accounts.users.set_disabled(name, False, actor(admin, caller))))


@router.post(
    "/users/{name}/promote",
    dependencies=[only()],
    summary="Make a user an administrator",
    response_model=UserListed,
    responses={**OWN_ACT, **CONFIRM, **NO_USER},
)
async def promote(accounts: AccountsPart, admin: ConfirmedAdmin, caller: CallerPart, name: UserName) -> Response:
    """Gives a user the administrator role, within a second also in everything that the user has open.

    Needs a password that was confirmed in this session in the last 10 minutes: `POST /auth/confirm`.
    """
    return private(UserListed.model_validate(await accounts.users.set_admin(name, True, actor(admin, caller))))


@router.post(
    "/users/{name}/demote",
    dependencies=[only()],
    summary="Take the administrator role",
    response_model=UserListed,
    responses={**OWN_ACT, **CONFIRM, **NO_USER, **LAST_ADMIN},
)
async def demote(accounts: AccountsPart, admin: ConfirmedAdmin, caller: CallerPart, name: UserName) -> Response:
    """Takes the administrator role from a user, within a second also in everything that the user has open.

    Needs a password that was confirmed in this session in the last 10 minutes: `POST /auth/confirm`.
    """
    return private(UserListed.model_validate(await accounts.users.set_admin(name, False, actor(admin, caller))))


class Invite(BaseModel):
    """An invite for one person."""

    model_config = shown(invite="6pLO2M1s…", id=EXAMPLE_ID, expires="2026-01-08T09:00:00.000Z")

    invite: Annotated[str, Field(description="to be given when signing up")]
    id: Annotated[str, Field(description="for `DELETE /invites/{id}`")]
    expires: Moment


class InviteListed(BaseModel):
    """An invite that can still be used. Its secret is not stored."""

    model_config = shown(
        id=EXAMPLE_ID, by="ann", created_date="2026-01-01T09:00:00.000Z", expires_date="2026-01-08T09:00:00.000Z"
    )

    id: str
    by: Annotated[str | None, Field(description="the administrator who created it")]
    created_date: Moment
    expires_date: Moment


@router.get(
    "/invites",
    dependencies=[only()],
    summary="List invites",
    response_model=list[InviteListed],
    responses=OWN_READ,
)
async def invites(accounts: AccountsPart, admin: Admin) -> Response:
    """The invites that can still be used, the latest first."""
    found = [InviteListed.model_validate(one) for one in await accounts.users.invites()]
    return list_answer(found, {"Cache-Control": "no-store"})


@router.post(
    "/invites",
    status_code=201,
    dependencies=[only()],
    summary="Invite somebody",
    response_model=Invite,
    responses=OWN_ACT,
)
async def invite(accounts: AccountsPart, admin: WritingAdmin, caller: CallerPart) -> Response:
    """Good for one account, for a week."""
    secret, expires = await accounts.users.invite(actor(admin, caller))
    return private(Invite(invite=secret, id=digest(secret), expires=expires), 201)


@router.delete(
    "/invites/{id}",
    status_code=204,
    dependencies=[only()],
    summary="Revoke an invite",
    responses={**OWN_ACT, **NO_INVITE, **ENDED},
)
async def revoke_invite(accounts: AccountsPart, admin: WritingAdmin, caller: CallerPart, id: Digest) -> Response:
    """Nobody can sign up with it any more."""
    await accounts.users.revoke_invite(id, actor(admin, caller))
    return private(None)


class AuditQuery(PageQuery):
    """The query of the audit."""

    who: Annotated[
        str | None,
        StringConstraints(pattern=f"^({NAME}|guest:[0-9a-f]{{{LINK_ID_CHARACTERS}}})$", to_lower=True),
        Field(description="only what this user did, or a guest with this link: `guest:` and its id"),
    ] = None
    action: Annotated[AuditAction | None, Field(description="only this")] = None
    after: After = None

    @field_validator("after")
    @classmethod
    def _goes_on(cls, token: str | None) -> str | None:
        if token is not None and not re.fullmatch("[0-9a-f]{24}", str(decode_page_token(token, ORDER)[0])):
            raise ValueError("is the end of a page in another order")
        return token


class Entry(BaseModel):
    """One thing that somebody did, or with `"ok": false` tried to."""

    model_config = shown(
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
            description="a user; `guest:` and the id of a link, for somebody who has that link and is not signed in;"
            " `null`: somebody unknown, or whoever runs the server"
        ),
    ]
    action: AuditAction
    target: Annotated[
        str | None,
        Field(
            description="a user, a note, a session, a token or an invite; `null` for `note.access` and `token.use`:"
            " there were too many of this caller in an hour to record all"
        ),
    ]
    address: Annotated[str | None, Field(description="where it came from; `null` for text that was typed in an editor")]
    ok: bool


@router.get("/audit", summary="Read the audit", response_model=list[Entry], responses=OWN_READ)
async def audit(accounts: AccountsPart, admin: Admin, query: Annotated[AuditQuery, Query()]) -> Response:
    """Sign-ins, failed ones among them, changes of accounts and of access, the latest first. Kept for 90 days.

    Refused requests for notes that exist (`note.access`), exports and uses of API tokens are recorded once an hour, by
    caller, address and target, and at most 50 of each caller.
    """
    after = None if query.after is None else str(decode_page_token(query.after, ORDER)[0])
    found = await accounts.users.audit(query.limit, after=after, who=query.who, action=query.action)
    headers = {"Cache-Control": "no-store"}
    if len(found) == query.limit:
        token = encode_page_token(ORDER, found[-1].id, 0)
        headers["Link"] = link("/audit", limit=query.limit, who=query.who, action=query.action, after=token)
    return list_answer([Entry.model_validate(entry) for entry in found], headers)
