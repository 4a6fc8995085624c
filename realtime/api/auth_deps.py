"""FastAPI dependencies, field types and responses shared by the account routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json

from realtime.api.cookies import devices_of
from realtime.api.deps import CurrentPrincipal
from realtime.api.requests import host_of, is_secure_connection
from realtime.api.responses import (
    BODY,
    FOREIGN,
    INVALID,
    JSON_BODY,
    SIGNED_OUT,
    TOO_MANY,
    UNAVAILABLE,
    Responses,
    error_response,
    error_responses,
)
from realtime.api.services import services_of
from realtime.auth.accounts import NAME, Accounts
from realtime.auth.password_rules import MAX_PASSWORD_BYTES, MIN_PASSWORD_CHARACTERS
from realtime.auth.permissions import Principal
from realtime.auth.sign_in_guard import ClientInfo
from realtime.auth.users import Actor
from realtime.errors import AccountsDisabled, ConfirmationNeeded, Forbidden, HttpsRequired, LastAdmin, NotSignedIn
from realtime.notes.models import STORABLE

Name = Annotated[
    str,
    StringConstraints(pattern=f"^{NAME}$", to_lower=True),
    Field(description="2–32 characters of a–z, 0–9, `.`, `_` and `-`; case-insensitive", examples=["ann"]),
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
        description=f"at least {MIN_PASSWORD_CHARACTERS} characters, and not easy to guess, for example a few words",
        json_schema_extra={"format": "password"},
        examples=["correct horse battery staple"],
    ),
    *STORABLE,
]
Secret = Annotated[str, Field(max_length=200), *STORABLE]
MAX_USER_AGENT_CHARS = 200

ADMINS_ONLY = "Only administrators can do this"
NO_ACCOUNTS = error_responses(AccountsDisabled())
FORBIDDEN = error_responses(Forbidden(ADMINS_ONLY))
CONFIRM = error_responses(ConfirmationNeeded(), Forbidden(ADMINS_ONLY))
USER_READ: Responses = {**NO_ACCOUNTS, **SIGNED_OUT, **FORBIDDEN, **INVALID, **UNAVAILABLE}
USER_ACTION: Responses = {**USER_READ, **BODY, **TOO_MANY}
USER_JSON: Responses = {**USER_ACTION, **JSON_BODY}
PUBLIC_JSON: Responses = {**NO_ACCOUNTS, **FOREIGN, **BODY, **INVALID, **TOO_MANY, **UNAVAILABLE, **JSON_BODY}


LAST_ADMIN = error_responses(LastAdmin("ann"))
INSECURE: Responses = {
    400: error_response(
        "The request came over plain HTTP from another machine, or the body is not valid JSON",
        "Use HTTPS: others on the network could read your password and session",
    )
}
ENDED: Responses = {204: {"description": "Ended"}}
EXAMPLE_ID = "5b0c3a0d5b0c3a0d5b0c3a0d5b0c3a0d"
EXAMPLE_PASSWORD = "correct horse battery staple"
DigestId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=[EXAMPLE_ID])]


def with_example(**fields: Any) -> ConfigDict:
    """Return the configuration of a model with an example."""
    return ConfigDict(from_attributes=True, json_schema_extra={"examples": [fields]})


async def _accounts(request: Request) -> Accounts:
    accounts = services_of(request).accounts
    if accounts is None:
        raise AccountsDisabled
    return accounts


AccountsDep = Annotated[Accounts, Depends(_accounts)]


async def _signed_in(_: AccountsDep, principal: CurrentPrincipal) -> Principal:
    if principal.name is None:
        raise NotSignedIn
    return principal


SignedInUser = Annotated[Principal, Depends(_signed_in)]


async def _session_user(principal: SignedInUser) -> Principal:
    # Otherwise, a stolen token could create further tokens, which would stay valid after it is revoked.
    if principal.is_api_token or not principal.writes:
        raise Forbidden("API tokens and read-only tokens cannot do this. Sign in with your password")
    return principal


SessionUser = Annotated[Principal, Depends(_session_user)]


async def _confirmed(request: Request, principal: SessionUser) -> Principal:
    authenticator = services_of(request).authenticator
    if authenticator is None:
        raise AccountsDisabled
    await authenticator.check_confirmed(principal)
    return principal


ConfirmedUser = Annotated[Principal, Depends(_confirmed)]


async def _admin(principal: SignedInUser) -> Principal:
    if not principal.admin:
        raise Forbidden(ADMINS_ONLY)
    return principal


async def _writing_admin(principal: Annotated[Principal, Depends(_admin)]) -> Principal:
    if not principal.writes:
        raise Forbidden("This token is read-only")
    return principal


async def _confirmed_admin(_: Annotated[Principal, Depends(_writing_admin)], principal: ConfirmedUser) -> Principal:
    return principal


Admin = Annotated[Principal, Depends(_admin)]
WritingAdmin = Annotated[Principal, Depends(_writing_admin)]
ConfirmedAdmin = Annotated[Principal, Depends(_confirmed_admin)]


async def _client_info(request: Request) -> ClientInfo:
    agent = request.headers.get("user-agent")
    return ClientInfo(
        request.client.host if request.client else None,
        None if agent is None else agent[:MAX_USER_AGENT_CHARS],
        devices_of(request.scope),
        host_of(request.scope),
    )


ClientInfoDep = Annotated[ClientInfo, Depends(_client_info)]


def actor(principal: Principal, caller: ClientInfo) -> Actor:
    """Return the user and address of a request, for the audit log."""
    return Actor(principal.name, caller.address)


async def _require_https(request: Request, _: AccountsDep) -> None:
    if not is_secure_connection(request):
        raise HttpsRequired


REQUIRE_HTTPS = Depends(_require_https)


def private_response(content: BaseModel | Sequence[BaseModel] | None, status: int = 200) -> Response:
    """Return a response that must not be cached. Without content, it is empty (204)."""
    headers = {"Cache-Control": "no-store"}
    if content is None:
        return Response(status_code=204, headers=headers)
    return Response(to_json(content), status, headers, "application/json")
