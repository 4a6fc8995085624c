"""Routes for the credentials of programs: signed tokens, API tokens, tickets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Form, Response
from pydantic import BaseModel, Field

from realtime.api.auth_deps import (
    CONFIRM,
    ENDED,
    EXAMPLE_ID,
    EXAMPLE_PASSWORD,
    INSECURE,
    PUBLIC_JSON,
    REQUIRE_HTTPS,
    USER_ACTION,
    USER_JSON,
    USER_READ,
    AccountsDep,
    ClientInfoDep,
    ConfirmedUser,
    DigestId,
    Name,
    Password,
    Secret,
    SessionUser,
    SignedInUser,
    private_response,
    with_example,
)
from realtime.api.deps import allow_query
from realtime.api.responses import error_responses
from realtime.api.router import SlashRouter
from realtime.auth.accounts import TICKET_LIFETIME
from realtime.auth.tokens import JWT_SECONDS
from realtime.auth.users import Session
from realtime.errors import AccountsDisabled, NotSignedIn, ResourceNotFound
from realtime.notes.models import STORABLE, Integral, Model, Moment, NoteId

router = SlashRouter(prefix="/auth", tags=["accounts"], dependencies=[allow_query()])

TOKEN_GONE = error_responses(ResourceNotFound("Token not found"), AccountsDisabled())


class PasswordGrant(BaseModel):
    """The form of the OAuth2 password flow (RFC 6749, section 4.3)."""

    model_config = with_example(grant_type="password", username="ann", password=EXAMPLE_PASSWORD)

    grant_type: Literal["password"] = "password"
    username: Name
    password: Password
    scope: Annotated[
        Literal["", "read", "write", "read write", "write read"], Field(description="`read` for a read-only token")
    ] = ""
    client_id: Secret | None = None
    client_secret: Secret | None = None


class Grant(BaseModel):
    """A signed token (JWT), for the header `Authorization: Bearer …`."""

    model_config = with_example(
        access_token="eyJhbGciOiJIUzI1NiIs…", token_type="bearer", expires_in=JWT_SECONDS, scope="read write"
    )

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: Annotated[int, Field(description="validity in seconds")] = JWT_SECONDS
    scope: Literal["read", "read write"]


@router.post(
    "/token",
    summary="Sign in as a program",
    response_model=Grant,
    openapi_extra={"security": []},
    dependencies=[REQUIRE_HTTPS],
    responses={
        **PUBLIC_JSON,
        **INSECURE,
        **error_responses(NotSignedIn("The name or the password is wrong")),
    },
)
async def token(accounts: AccountsDep, caller: ClientInfoDep, form: Annotated[PasswordGrant, Form()]) -> Response:
    """Return a signed token that is valid for 15 minutes, or until its session ends. API tokens last longer."""
    writes = form.scope != "read"
    signed = await accounts.sign_in_program(form.username, form.password, caller, writes=writes)
    return private_response(Grant(access_token=signed, scope="read write" if writes else "read"))


class TokenIn(Model):
    """A new API token."""

    model_config = with_example(name="backup", scope="read", expires_days=90)

    name: Annotated[str, Field(min_length=1, max_length=50, description="the purpose of the token"), *STORABLE]
    scope: Annotated[Literal["read", "write"], Field(description="`write` includes reading")] = "write"
    expires_days: Annotated[int, Field(ge=1, le=366, description="validity in days"), Integral] = 90


_TOKEN: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "name": "backup",
    "scope": "read",
    "created_date": "2026-01-01T09:00:00.000Z",
    "used_date": None,
    "expires_date": "2026-04-01T09:00:00.000Z",
}


class Token(BaseModel):
    """An API token, without its secret."""

    model_config = with_example(**_TOKEN)

    id: str
    name: str
    scope: Literal["read", "write"]
    created_date: Moment
    used_date: Annotated[Moment | None, Field(description="time of the last use, to the minute; `null` if never used")]
    expires_date: Moment


class NewToken(Token):
    """A new API token. `token` is returned only once."""

    model_config = with_example(**_TOKEN, token="rt_3q2-7wF0…")

    token: str


def _token_fields(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "name": session.label,
        "scope": "write" if session.writes else "read",
        "created_date": session.created_date,
        "used_date": session.used_date,
        "expires_date": session.expires_date,
    }


@router.get("/tokens", summary="List API tokens", response_model=list[Token], responses=USER_READ)
async def tokens(accounts: AccountsDep, principal: SessionUser) -> Response:
    """Return the caller's API tokens, newest first. The secrets are not stored."""
    sessions = await accounts.sessions(principal, "token")
    return private_response([Token(**_token_fields(session)) for session in sessions])


@router.post(
    "/tokens",
    status_code=201,
    summary="Create an API token",
    response_model=NewToken,
    responses={**USER_JSON, **CONFIRM},
)
async def make_token(accounts: AccountsDep, principal: ConfirmedUser, caller: ClientInfoDep, body: TokenIn) -> Response:
    """Create a token for a program, to be sent as `Authorization: Bearer …`. It can be revoked at any time.

    Requires a password confirmation in this session within the last 10 minutes: `POST /auth/confirm`.
    """
    session, secret = await accounts.make_token(
        principal, body.name, body.expires_days, caller, writes=body.scope == "write"
    )
    return private_response(NewToken(**_token_fields(session), token=secret), 201)


@router.delete(
    "/tokens/{id}",
    status_code=204,
    summary="Revoke an API token",
    responses={**USER_ACTION, **TOKEN_GONE, **ENDED},
)
async def end_token(accounts: AccountsDep, principal: SessionUser, caller: ClientInfoDep, id: DigestId) -> Response:
    """Revoke an API token, and close its connections within a second."""
    await accounts.end(principal, "token", id, caller)
    return private_response(None)


class TicketIn(Model):
    """The note that a ticket is for."""

    model_config = with_example(note=1)

    note: Annotated[NoteId, Integral]


class Ticket(BaseModel):
    """A ticket for one connection to `/sync/{note}`, to be sent in the query: `?ticket=…`."""

    model_config = with_example(ticket="6pLO2M1s…", expires_in=int(TICKET_LIFETIME.total_seconds()))

    ticket: str
    expires_in: Annotated[int, Field(description="validity in seconds")] = int(TICKET_LIFETIME.total_seconds())


@router.post("/ticket", summary="Create a ticket for a room", response_model=Ticket, responses=USER_JSON)
async def ticket(accounts: AccountsDep, principal: SignedInUser, body: TicketIn) -> Response:
    """Create a ticket for clients that cannot send headers or cookies. It is valid once, for 30 seconds."""
    return private_response(Ticket(ticket=await accounts.ticket(principal, body.note)))
