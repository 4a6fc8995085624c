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
from realtime.api.services import services_of
from realtime.auth.accounts import NAME, Accounts
from realtime.auth.password_rules import MAX_PASSWORD_BYTES, MIN_PASSWORD_CHARACTERS
from realtime.auth.permissions import Principal
from realtime.auth.sign_in_guard import ClientInfo
from realtime.auth.users import Actor
from realtime.errors import PASSWORD_CONFIRMATION, Forbidden, HttpsRequired, NoAccounts, NotSignedIn
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
        max_length=MAX_PASSWORD_BYTES,
        json_schema_extra={"format": "password"},
        examples=["correct horse battery staple"],
    ),
    *STORABLE,
]
NewPassword = Annotated[
    str,
    Field(
        min_length=MIN_PASSWORD_CHARACTERS,
        max_length=MAX_PASSWORD_BYTES,
        description=f"at least {MIN_PASSWORD_CHARACTERS} characters, and not easy to guess; a few words will do",
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
    accounts = services_of(request).accounts
    if accounts is None:
        raise NoAccounts
    return accounts


AccountsPart = Annotated[Accounts, Depends(_accounts)]


async def _signed_in(_: AccountsPart, principal: Who) -> Principal:
    if principal.name is None:
        raise NotSignedIn
    return principal


SignedIn = Annotated[Principal, Depends(_signed_in)]


async def _in_person(principal: SignedIn) -> Principal:
    if (
        principal.token or not principal.writes
    ):  # it could make others like it, or better ones, and outlive being revoked
        raise Forbidden("Not by an API token, nor by one that may only read: sign in")
    return principal


InPerson = Annotated[Principal, Depends(_in_person)]


async def _confirmed(request: Request, principal: InPerson) -> Principal:
    authenticator = services_of(request).authenticator
    if authenticator is None:
        raise NoAccounts
    await authenticator.check_confirmed(principal)
    return principal


Confirmed = Annotated[Principal, Depends(_confirmed)]


async def _admin(principal: SignedIn) -> Principal:
    if not principal.admin:
        raise Forbidden("Only for admins")
    return principal


async def _writing_admin(principal: Annotated[Principal, Depends(_admin)]) -> Principal:
    if not principal.writes:
        raise Forbidden("This token may only read")
    return principal


async def _confirmed_admin(_: Annotated[Principal, Depends(_writing_admin)], principal: Confirmed) -> Principal:
    return principal


Admin = Annotated[Principal, Depends(_admin)]
WritingAdmin = Annotated[Principal, Depends(_writing_admin)]
ConfirmedAdmin = Annotated[Principal, Depends(_confirmed_admin)]


async def _caller(request: Request) -> ClientInfo:
    agent = request.headers.get("user-agent")
    return ClientInfo(
        request.client.host if request.client else None,
        None if agent is None else agent[:AGENT],
        devices_of(request.scope),
        host_of(request.scope),
    )


CallerPart = Annotated[ClientInfo, Depends(_caller)]


def actor(principal: Principal, caller: ClientInfo) -> Actor:
    """Return the user who sent a request, for the audit."""
    return Actor(principal.name, caller.address)


async def _safely(request: Request, _: AccountsPart) -> None:
    if not may_sign_in(request):
        raise HttpsRequired


SAFELY = Depends(_safely)


def private(model: BaseModel | None, status: int = 200) -> Response:
    """An answer that nobody but who asked is to keep."""
    headers = {"Cache-Control": "no-store"}
    if model is None:
        return Response(status_code=204, headers=headers)
    return Response(json_of(model), status, headers, "application/json")
