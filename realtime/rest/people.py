"""The routes for admins: users, invites, and what was done."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Path, Query, Response
from pydantic import BaseModel, Field, field_validator

from realtime.models import Moment
from realtime.people import Deed
from realtime.rest.accounts import (
    OWN_ACT,
    OWN_READ,
    AccountsPart,
    Admin,
    CallerPart,
    Name,
    WritingAdmin,
    private,
    shown,
)
from realtime.rest.common import After, Answers, PageQuery, link, list_answer, only, place_of, place_token
from realtime.routing import SlashRouter, problem

router = SlashRouter(tags=["administration"])

ORDER = "audit"
NO_USER: Answers = {404: problem("There is no such user, or there are no accounts", "User not found")}

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
    found = [UserListed.model_validate(person) for person in await accounts.people()]
    return list_answer(found, {"Cache-Control": "no-store"})


@router.post(
    "/users/{name}/disable",
    dependencies=[only()],
    summary="Disable a user",
    response_model=UserListed,
    responses={**OWN_ACT, **NO_USER},
)
async def disable(accounts: AccountsPart, admin: WritingAdmin, caller: CallerPart, name: UserName) -> Response:
    """Nothing of theirs lets them in any more: sessions and tokens end, and what is open is closed within a second."""
    return private(UserListed.model_validate(await accounts.set_disabled(name, True, admin, caller)))


@router.post(
    "/users/{name}/enable",
    dependencies=[only()],
    summary="Enable a user",
    response_model=UserListed,
    responses={**OWN_ACT, **NO_USER},
)
async def enable(accounts: AccountsPart, admin: WritingAdmin, caller: CallerPart, name: UserName) -> Response:
    """They can sign in again; sessions and tokens of before stay ended."""
    return private(UserListed.model_validate(await accounts.set_disabled(name, False, admin, caller)))


class Invite(BaseModel):
    """An invite for one person."""

    model_config = shown(invite="6pLO2M1s…", expires="2026-01-08T09:00:00.000Z")

    invite: Annotated[str, Field(description="to be given when signing up")]
    expires: Moment


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
    secret, expires = await accounts.invite(admin, caller)
    return private(Invite(invite=secret, expires=expires), 201)


class AuditQuery(PageQuery):
    """The query of the audit."""

    who: Annotated[Name | None, Field(description="only what this user did")] = None
    action: Annotated[Deed | None, Field(description="only this")] = None
    after: After = None

    @field_validator("after")
    @classmethod
    def _goes_on(cls, token: str | None) -> str | None:
        if token is not None and not re.fullmatch("[0-9a-f]{24}", str(place_of(token, ORDER)[0])):
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
    who: Annotated[str | None, Field(description="`null`: somebody unknown, or whoever runs the server")]
    action: Deed
    target: Annotated[str | None, Field(description="a user, a note, a session or a token")]
    address: Annotated[str | None, Field(description="where it came from")]
    ok: bool


@router.get("/audit", summary="Read the audit", response_model=list[Entry], responses=OWN_READ)
async def audit(accounts: AccountsPart, admin: Admin, query: Annotated[AuditQuery, Query()]) -> Response:
    """Who signed in, failed to, changed and shared, the last first. Kept for 90 days."""
    after = None if query.after is None else str(place_of(query.after, ORDER)[0])
    found = await accounts.audit(query.limit, after=after, who=query.who, action=query.action)
    headers = {"Cache-Control": "no-store"}
    if len(found) == query.limit:
        token = place_token(ORDER, found[-1].id, 0)
        headers["Link"] = link("/audit", limit=query.limit, who=query.who, action=query.action, after=token)
    return list_answer([Entry.model_validate(entry) for entry in found], headers)
