"""The routes of one's own account: signing in and out, sessions, tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Form, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from realtime.access import Viewer
from realtime.accounts import TICKET, SignUp
from realtime.auth import JWT_SECONDS
from realtime.models import STORABLE, Model, Moment, NoteId
from realtime.people import Person, Session
from realtime.rest.accounts import (
    ANYONE,
    OWN,
    OWN_READ,
    SAFELY,
    SIGNED_OUT,
    AccountsPart,
    CallerPart,
    InPerson,
    Name,
    NewPassword,
    Password,
    SignedIn,
    private,
)
from realtime.rest.common import TOO_MANY, UNAVAILABLE, Answers, list_answer, only
from realtime.routing import SlashRouter, parts_of, problem, viewer_of
from realtime.signin import cookie_of, set_cookie

router = SlashRouter(prefix="/auth", tags=["accounts"], dependencies=[only()])

INSECURE: Answers = {
    400: problem(
        "Over plain HTTP, and not on the machine itself; or the body is not JSON",
        "Use https: on the way here others could read the password, and the session",
    )
}
GONE: Answers = {204: {"description": "It ended"}}
SESSION_GONE: Answers = {404: problem("There is no such session, or there are no accounts", "Session not found")}
TOKEN_GONE: Answers = {404: problem("There is no such token, or there are no accounts", "Token not found")}


class User(BaseModel):
    """Who is signed in, and whether in person or by an API token."""

    name: str
    admin: bool
    via: Literal["session", "token"]


class Me(BaseModel):
    """What a page has to know before it can show anything."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "mode": "accounts",
                    "sign_up": "invite",
                    "first": False,
                    "user": {"name": "ann", "admin": True, "via": "session"},
                }
            ]
        }
    )

    mode: Annotated[Literal["open", "accounts"], Field(description="`open`: everything is everyone's")]
    sign_up: Annotated[SignUp, Field(description="who may make an account")]
    first: Annotated[bool, Field(description="whether there is no user yet: the first becomes admin")]
    user: Annotated[User | None, Field(description="who is signed in")]


def _user(viewer: Viewer) -> User | None:
    if viewer.name is None:
        return None
    return User(name=viewer.name, admin=viewer.admin, via="token" if viewer.token else "session")


@router.get("/me", summary="Who am I?", response_model=Me, responses=UNAVAILABLE)
async def me(request: Request) -> Response:
    """Whether there are accounts, who may sign up, and who is signed in."""
    accounts = parts_of(request).accounts
    if accounts is None:
        return private(Me(mode="open", sign_up="closed", first=False, user=None))
    user = _user(viewer_of(request))
    first = user is None and not await accounts.anyone()
    answer = private(Me(mode="accounts", sign_up=accounts.sign_up_mode, first=first, user=user))
    if user is None and cookie_of(request.scope) is not None:
        set_cookie(answer, request, None)
    return answer


class SignUpIn(Model):
    """A new account."""

    name: Name
    password: NewPassword
    invite: Annotated[str | None, Field(max_length=100, description="what an admin made for you"), *STORABLE] = None


class SignInIn(Model):
    """A name and its password."""

    name: Name
    password: Password


def _begun(accounts: AccountsPart, request: Request, person: Person, secret: str, status: int) -> Response:
    user = User(name=person.name, admin=person.admin, via="session")
    answer = private(Me(mode="accounts", sign_up=accounts.sign_up_mode, first=False, user=user), status)
    set_cookie(answer, request, secret)
    return answer


@router.post(
    "/sign-up",
    status_code=201,
    summary="Make an account",
    response_model=Me,
    dependencies=[SAFELY],
    responses={
        **ANYONE,
        **INSECURE,
        403: problem("Nobody may, or not without an invite that holds", "To sign up here takes an invite"),
        409: problem("Somebody has this name", "Somebody has this name already"),
    },
)
async def sign_up(request: Request, accounts: AccountsPart, caller: CallerPart, body: SignUpIn) -> Response:
    """Makes an account, and signs in with it. The first one of all is an admin's. A name stays as it is."""
    before = cookie_of(request.scope)
    person, secret = await accounts.sign_up(body.name, body.password, body.invite, caller, before)
    return _begun(accounts, request, person, secret, 201)


@router.post(
    "/sign-in",
    summary="Sign in",
    response_model=Me,
    openapi_extra={"security": []},
    dependencies=[SAFELY],
    responses={
        **ANYONE,
        **INSECURE,
        401: problem("A wrong name or password, or a disabled account", "The name or the password is wrong"),
    },
)
async def sign_in(request: Request, accounts: AccountsPart, caller: CallerPart, body: SignInIn) -> Response:
    """Begins a session, whose secret is in a cookie that scripts cannot read; one that the browser had before ends."""
    person, secret = await accounts.sign_in(body.name, body.password, caller, cookie_of(request.scope))
    return _begun(accounts, request, person, secret, 200)


@router.post(
    "/sign-out",
    status_code=204,
    summary="Sign out",
    responses={**ANYONE, 204: {"description": "Nobody is signed in any more"}},
)
async def sign_out(request: Request, accounts: AccountsPart, caller: CallerPart) -> Response:
    """Ends the session, and all that is open for it."""
    await accounts.sign_out(viewer_of(request), caller)
    answer = private(None)
    set_cookie(answer, request, None)
    return answer


class PasswordChange(Model):
    """The password as it is, and as it shall be."""

    old: Password
    new: NewPassword


@router.post(
    "/password",
    status_code=204,
    summary="Change the password",
    responses={
        **OWN,
        **TOO_MANY,
        204: {"description": "Changed"},
        403: problem("The old password is wrong, or an API token sent this", "The old password is wrong"),
    },
)
async def password(accounts: AccountsPart, viewer: InPerson, caller: CallerPart, body: PasswordChange) -> Response:
    """Changes the password. All other sessions end, signed tokens with them; API tokens stay."""
    await accounts.change_password(viewer, body.old, body.new, caller)
    return private(None)


class PasswordGrant(BaseModel):
    """The form of OAuth2's password flow (RFC 6749, section 4.3)."""

    grant_type: Literal["password"] = "password"
    username: Name
    password: Password
    scope: Annotated[
        Literal["", "read", "write", "read write", "write read"], Field(description="`read`: the token may only read")
    ] = ""
    client_id: Annotated[str | None, Field(max_length=200), *STORABLE] = None
    client_secret: Annotated[str | None, Field(max_length=200), *STORABLE] = None


class Grant(BaseModel):
    """A signed token (JWT), for the header `Authorization: Bearer …`."""

    access_token: Annotated[str, Field(examples=["eyJhbGciOiJIUzI1NiIs…"])]
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


class SignIn(BaseModel):
    """A session: where and when somebody signed in."""

    model_config = ConfigDict(from_attributes=True)

    id: Annotated[str, Field(examples=["5b0c3a0d5b0c3a0d5b0c3a0d5b0c3a0d"])]
    created_date: Moment
    used_date: Annotated[Moment, Field(description="to a minute")]
    expires_date: Annotated[Moment, Field(description="unless it is used: 14 days later, at most 90 after the sign-in")]
    address: Annotated[str | None, Field(examples=["192.0.2.7"])]
    agent: Annotated[str | None, Field(description="what the browser says it is", examples=["Mozilla/5.0"])]
    current: Annotated[bool, Field(default_factory=bool, description="whether it is the one that this was asked with")]


SessionId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=["5b0c3a0d5b0c3a0d5b0c3a0d5b0c3a0d"])]


@router.get("/sessions", summary="List sessions", response_model=list[SignIn], responses=OWN_READ)
async def sessions(accounts: AccountsPart, viewer: InPerson) -> Response:
    """Where one is signed in, the last one first."""
    found = [SignIn.model_validate(one) for one in await accounts.sessions(viewer, "session")]
    return list_answer(
        [one.model_copy(update={"current": one.id == viewer.session}) for one in found], {"Cache-Control": "no-store"}
    )


@router.delete(
    "/sessions",
    status_code=204,
    summary="End all other sessions",
    responses={**OWN_READ, 204: {"description": "This one is all that is left"}},
)
async def end_others(accounts: AccountsPart, viewer: InPerson, caller: CallerPart) -> Response:
    """Signs out everywhere but here."""
    await accounts.end_others(viewer, caller)
    return private(None)


@router.delete(
    "/sessions/{id}",
    status_code=204,
    summary="End a session",
    responses={**OWN_READ, **SESSION_GONE, **GONE},
)
async def end_session(accounts: AccountsPart, viewer: InPerson, caller: CallerPart, id: SessionId) -> Response:
    """Signs out there, within a second."""
    await accounts.end(viewer, "session", id, caller)
    return private(None)


class TokenIn(Model):
    """A new API token."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "backup", "scope": "read", "expires_days": 90}]})

    name: Annotated[str, Field(min_length=1, max_length=50, description="what it is for"), *STORABLE]
    scope: Annotated[Literal["read", "write"], Field(description="`write` may read, too")] = "write"
    expires_days: Annotated[int, Field(ge=1, le=366, description="days for which it is good")] = 90


_TOKEN: dict[str, Any] = {
    "id": "5b0c3a0d5b0c3a0d5b0c3a0d5b0c3a0d",
    "name": "backup",
    "scope": "read",
    "created_date": "2026-01-01T09:00:00.000Z",
    "used_date": None,
    "expires_date": "2026-04-01T09:00:00.000Z",
}


class Token(BaseModel):
    """What is known of an API token."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TOKEN]})

    id: str
    name: str
    scope: Literal["read", "write"]
    created_date: Moment
    used_date: Annotated[Moment | None, Field(description="to a minute; `null`: never")]
    expires_date: Moment


class NewToken(Token):
    """A new API token, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_TOKEN, "token": "rt_3q2-7wF0…"}]})

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
async def tokens(accounts: AccountsPart, viewer: InPerson) -> Response:
    """One's API tokens, the last one first; not the secrets, which are not stored."""
    found = await accounts.sessions(viewer, "token")
    return list_answer([Token(**_told(one)) for one in found], {"Cache-Control": "no-store"})


@router.post("/tokens", status_code=201, summary="Make an API token", response_model=NewToken, responses=OWN)
async def make_token(accounts: AccountsPart, viewer: InPerson, caller: CallerPart, body: TokenIn) -> Response:
    """A token for a program, for the header `Authorization: Bearer …`. It can be revoked at any time."""
    made, secret = await accounts.make_token(viewer, body.name, body.expires_days, caller, writes=body.scope == "write")
    return private(NewToken(**_told(made), token=secret), 201)


@router.delete(
    "/tokens/{id}",
    status_code=204,
    summary="Revoke an API token",
    responses={**OWN_READ, **TOKEN_GONE, **GONE},
)
async def end_token(accounts: AccountsPart, viewer: InPerson, caller: CallerPart, id: SessionId) -> Response:
    """It is refused from now on, and what is open with it is closed within a second."""
    await accounts.end(viewer, "token", id, caller)
    return private(None)


class TicketIn(Model):
    """What a ticket shall be for."""

    note: Annotated[NoteId, Field(examples=[1])]


class Ticket(BaseModel):
    """A ticket for one connection to `/sync/{note}`, in its query: `?ticket=…`."""

    ticket: Annotated[str, Field(examples=["6pLO2M1s…"])]
    expires_in: Annotated[int, Field(description="seconds")] = int(TICKET.total_seconds())


@router.post("/ticket", summary="Make a ticket into a room", response_model=Ticket, responses={**OWN, **SIGNED_OUT})
async def ticket(accounts: AccountsPart, viewer: SignedIn, body: TicketIn) -> Response:
    """For clients that can send no headers and no cookie: good once, for this note, for 30 seconds."""
    return private(Ticket(ticket=await accounts.ticket(viewer, body.note)))
