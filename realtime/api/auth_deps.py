"""What the routes of accounts share: who may use them, what names and passwords are, and how they answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from realtime.api.cookies import devices_of
from realtime.api.deps import Who
from realtime.api.requests import host_of, may_sign_in
from realtime.api.responses import (
    BODY,
    FOREIGN,
    INVALID,
    JSON_BODY,
    SIGNED_OUT,
    TOO_MANY,
    UNAVAILABLE,
    Answers,
    json_of,
    problem,
)
from realtime.api.services import parts_of
from realtime.auth.accounts import NAME, Accounts
from realtime.auth.password_rules import LONGEST, SHORTEST
from realtime.auth.permissions import Viewer
from realtime.auth.sign_in_guard import Caller
from realtime.auth.users import Actor
from realtime.errors import PASSWORD_CONFIRMATION, Forbidden, Insecure, NoAccounts, NotSignedIn
from realtime.notes.models import STORABLE

Name = Annotated[
    str,
    StringConstraints(pattern=f"^{NAME}$", to_lower=True),
    Field(description="2–32 of a–z, 0–9, `.`, `_`, `-`; small and capital letters are the same", examples=["ann"]),
]
Password = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST,
        json_schema_extra={"format": "password"},
        examples=["correct horse battery staple"],
    ),
    *STORABLE,
]
NewPassword = Annotated[
    str,
    Field(
        min_length=SHORTEST,
        max_length=LONGEST,
        description=f"at least {SHORTEST} characters, and not easy to guess; a few words will do",
        json_schema_extra={"format": "password"},
        examples=["correct horse battery staple"],
    ),
    *STORABLE,
]
Secret = Annotated[str, Field(max_length=200), *STORABLE]
AGENT = 200

NO_ACCOUNTS: Answers = {404: problem("The server has no accounts", "This server has no accounts")}
FORBIDDEN: Answers = {
    403: problem(
        "The caller is not an administrator, uses an API token, or is a page of another origin", "Only for admins"
    )
}
CONFIRM: Answers = {
    403: problem(
        "With `required`, the password has to be confirmed first: `POST /auth/confirm`. Otherwise the request came from"
        " an API token, from somebody who may not do it, or from a page of another origin",
        "Confirm your password first: send it to POST /auth/confirm, then repeat this request",
        {"required": PASSWORD_CONFIRMATION},
        required={"const": PASSWORD_CONFIRMATION},
    )
}
OWN_READ: Answers = {**NO_ACCOUNTS, **SIGNED_OUT, **FORBIDDEN, **INVALID, **UNAVAILABLE}
OWN_ACT: Answers = {**OWN_READ, **BODY, **TOO_MANY}
OWN: Answers = {**OWN_ACT, **JSON_BODY}
ANYONE: Answers = {**NO_ACCOUNTS, **FOREIGN, **BODY, **INVALID, **TOO_MANY, **UNAVAILABLE, **JSON_BODY}


LAST_ADMIN: Answers = {
    409: problem(
        "It is the last administrator", "ann is the last administrator. Make somebody else an administrator first"
    )
}
INSECURE: Answers = {
    400: problem(
        "Over plain HTTP, and not on the machine itself; or the body is not JSON",
        "Use https: on the way here others could read the password, and the session",
    )
}
ENDED: Answers = {204: {"description": "It ended"}}
EXAMPLE_ID = "5b0c3a0d5b0c3a0d5b0c3a0d5b0c3a0d"
EXAMPLE_PASSWORD = "correct horse battery staple"
Digest = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=[EXAMPLE_ID])]


def shown(**fields: Any) -> ConfigDict:
    """The configuration of a model with an example."""
    return ConfigDict(from_attributes=True, json_schema_extra={"examples": [fields]})


async def _accounts(request: Request) -> Accounts:
    accounts = parts_of(request).accounts
    if accounts is None:
        raise NoAccounts
    return accounts


AccountsPart = Annotated[Accounts, Depends(_accounts)]


async def _signed_in(_: AccountsPart, viewer: Who) -> Viewer:
    if viewer.name is None:
        raise NotSignedIn
    return viewer


SignedIn = Annotated[Viewer, Depends(_signed_in)]


async def _in_person(viewer: SignedIn) -> Viewer:
    if viewer.token or not viewer.writes:  # it could make others like it, or better ones, and outlive being revoked
        raise Forbidden("Not by an API token, nor by one that may only read: sign in")
    return viewer


InPerson = Annotated[Viewer, Depends(_in_person)]


async def _confirmed(request: Request, viewer: InPerson) -> Viewer:
    viewers = parts_of(request).viewers
    if viewers is None:
        raise NoAccounts
    await viewers.check_confirmed(viewer)
    return viewer


Confirmed = Annotated[Viewer, Depends(_confirmed)]


async def _admin(viewer: SignedIn) -> Viewer:
    if not viewer.admin:
        raise Forbidden("Only for admins")
    return viewer


async def _writing_admin(viewer: Annotated[Viewer, Depends(_admin)]) -> Viewer:
    if not viewer.writes:
        raise Forbidden("This token may only read")
    return viewer


async def _confirmed_admin(_: Annotated[Viewer, Depends(_writing_admin)], viewer: Confirmed) -> Viewer:
    return viewer


Admin = Annotated[Viewer, Depends(_admin)]
WritingAdmin = Annotated[Viewer, Depends(_writing_admin)]
ConfirmedAdmin = Annotated[Viewer, Depends(_confirmed_admin)]


async def _caller(request: Request) -> Caller:
    agent = request.headers.get("user-agent")
    return Caller(
        request.client.host if request.client else None,
        None if agent is None else agent[:AGENT],
        devices_of(request.scope),
        host_of(request.scope),
    )


CallerPart = Annotated[Caller, Depends(_caller)]


def actor(viewer: Viewer, caller: Caller) -> Actor:
    """Return the user who sent a request, for the audit."""
    return Actor(viewer.name, caller.address)


async def _safely(request: Request, _: AccountsPart) -> None:
    if not may_sign_in(request):
        raise Insecure


SAFELY = Depends(_safely)


def private(model: BaseModel | None, status: int = 200) -> Response:
    """An answer that nobody but who asked is to keep."""
    headers = {"Cache-Control": "no-store"}
    if model is None:
        return Response(status_code=204, headers=headers)
    return Response(json_of(model), status, headers, "application/json")
