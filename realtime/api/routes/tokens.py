"""The routes of programs: signed tokens, API tokens, tickets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Form, Response
from pydantic import BaseModel, Field

from realtime.api.auth_deps import (
    ANYONE,
    CONFIRM,
    ENDED,
    EXAMPLE_ID,
    EXAMPLE_PASSWORD,
    INSECURE,
    OWN,
    OWN_ACT,
    OWN_READ,
    SAFELY,
    AccountsPart,
    CallerPart,
    Confirmed,
    Digest,
    InPerson,
    Name,
    Password,
    Secret,
    SignedIn,
    private,
    shown,
)
from realtime.api.deps import only
from realtime.api.pagination import list_answer
from realtime.api.responses import Answers, problem
from realtime.api.router import SlashRouter
from realtime.auth.accounts import TICKET_LIFETIME
from realtime.auth.tokens import JWT_SECONDS
from realtime.auth.users import Session
from realtime.notes.models import STORABLE, Integral, Model, Moment, NoteId

router = SlashRouter(prefix="/auth", tags=["accounts"], dependencies=[only()])

TOKEN_GONE: Answers = {404: problem("There is no such token, or there are no accounts", "Token not found")}


class PasswordGrant(BaseModel):
    """The form of OAuth2's password flow (RFC 6749, section 4.3)."""

    model_config = shown(grant_type="password", username="ann", password=EXAMPLE_PASSWORD)

    grant_type: Literal["password"] = "password"
    username: Name
    password: Password
    scope: Annotated[
        Literal["", "read", "write", "read write", "write read"], Field(description="`read`: the token may only read")
    ] = ""
    client_id: Secret | None = None
    client_secret: Secret | None = None


class Grant(BaseModel):
    """A signed token (JWT), for the header `Authorization: Bearer …`."""

    model_config = shown(
        access_token="eyJhbGciOiJIUzI1NiIs…", token_type="bearer", expires_in=JWT_SECONDS, scope="read write"
    )

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: Annotated[int, Field(description="seconds")] = JWT_SECONDS
    scope: Literal["read", "read write"]


@router.post(
    "/token",
    summary="Sign in as a program",
    response_model=Grant,
    openapi_extra={"security": []},
    dependencies=[SAFELY],
    responses={
        **ANYONE,
        **INSECURE,
        401: problem("A wrong name or password, or a disabled account", "The name or the password is wrong"),
    },
)
async def token(accounts: AccountsPart, caller: CallerPart, form: Annotated[PasswordGrant, Form()]) -> Response:
    """A token for 15 minutes, of a session that can be ended before. For longer there are API tokens."""
    writes = form.scope != "read"
    signed = await accounts.sign_in_program(form.username, form.password, caller, writes=writes)
    return private(Grant(access_token=signed, scope="read write" if writes else "read"))


class TokenIn(Model):
    """A new API token."""

    model_config = shown(name="backup", scope="read", expires_days=90)

    name: Annotated[str, Field(min_length=1, max_length=50, description="what it is for"), *STORABLE]
    scope: Annotated[Literal["read", "write"], Field(description="`write` may read, too")] = "write"
    expires_days: Annotated[int, Field(ge=1, le=366, description="days for which it is good"), Integral] = 90


_TOKEN: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "name": "backup",
    "scope": "read",
    "created_date": "2026-01-01T09:00:00.000Z",
    "used_date": None,
    "expires_date": "2026-04-01T09:00:00.000Z",
}


class Token(BaseModel):
    """What is known of an API token."""

    model_config = shown(**_TOKEN)

    id: str
    name: str
    scope: Literal["read", "write"]
    created_date: Moment
    used_date: Annotated[Moment | None, Field(description="to a minute; `null`: never")]
    expires_date: Moment


class NewToken(Token):
    """A new API token, which is shown this once."""

    model_config = shown(**_TOKEN, token="rt_3q2-7wF0…")

    token: str


def _told(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "name": session.label,
        "scope": "write" if session.writes else "read",
        "created_date": session.created_date,
        "used_date": session.used_date,
        "expires_date": session.expires_date,
    }


@router.get("/tokens", summary="List API tokens", response_model=list[Token], responses=OWN_READ)
async def tokens(accounts: AccountsPart, principal: InPerson) -> Response:
    """One's API tokens, the last one first; not the secrets, which are not stored."""
    found = await accounts.sessions(principal, "token")
    return list_answer([Token(**_told(one)) for one in found], {"Cache-Control": "no-store"})


@router.post(
    "/tokens",
    status_code=201,
    summary="Make an API token",
    response_model=NewToken,
    responses={**OWN, **CONFIRM},
)
async def make_token(accounts: AccountsPart, principal: Confirmed, caller: CallerPart, body: TokenIn) -> Response:
    """A token for a program, for the header `Authorization: Bearer …`. It can be revoked at any time.

    Needs a password that was confirmed in this session in the last 10 minutes: `POST /auth/confirm`.
    """
    made, secret = await accounts.make_token(
        principal, body.name, body.expires_days, caller, writes=body.scope == "write"
    )
    return private(NewToken(**_told(made), token=secret), 201)


@router.delete(
    "/tokens/{id}",
    status_code=204,
    summary="Revoke an API token",
    responses={**OWN_ACT, **TOKEN_GONE, **ENDED},
)
async def end_token(accounts: AccountsPart, principal: InPerson, caller: CallerPart, id: Digest) -> Response:
    """It is refused from now on, and what is open with it is closed within a second."""
    await accounts.end(principal, "token", id, caller)
    return private(None)


class TicketIn(Model):
    """What a ticket shall be for."""

    model_config = shown(note=1)

    note: Annotated[NoteId, Integral]


class Ticket(BaseModel):
    """A ticket for one connection to `/sync/{note}`, in its query: `?ticket=…`."""

    model_config = shown(ticket="6pLO2M1s…", expires_in=int(TICKET_LIFETIME.total_seconds()))

    ticket: str
    expires_in: Annotated[int, Field(description="seconds")] = int(TICKET_LIFETIME.total_seconds())


@router.post("/ticket", summary="Make a ticket into a room", response_model=Ticket, responses=OWN)
async def ticket(accounts: AccountsPart, principal: SignedIn, body: TicketIn) -> Response:
    """For clients that can send no headers and no cookie: good once, for this note, for 30 seconds."""
    return private(Ticket(ticket=await accounts.ticket(principal, body.note)))
