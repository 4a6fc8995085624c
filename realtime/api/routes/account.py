"""Routes for the caller's own account: sign-up, sign-in, sign-out, password, sessions."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from realtime.api.auth_deps import (
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
    DigestId,
    Name,
    NewPassword,
    Password,
    Secret,
    SessionUser,
    private_response,
    with_example,
)
from realtime.api.cookies import add_device, cookie_of, drop_links, set_cookie
from realtime.api.deps import allow_query
from realtime.api.requests import principal_of
from realtime.api.responses import TOO_MANY, UNAVAILABLE, error_responses
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.auth.accounts import Accounts, NewAccount, SignUp, StartedSession
from realtime.auth.permissions import Principal
from realtime.auth.users import FailedSignInCount
from realtime.errors import AccountsDisabled, Forbidden, NameTaken, NotSignedIn, ResourceNotFound
from realtime.notes.models import Model, Moment

router = SlashRouter(prefix="/auth", tags=["accounts"], dependencies=[allow_query()])

SESSION_GONE = error_responses(ResourceNotFound("Session not found"), AccountsDisabled())


class User(BaseModel):
    """The signed-in user, and the kind of credentials."""

    name: str
    admin: bool
    via: Literal["session", "token"]


class FailedSignIns(BaseModel):
    """Failed sign-ins of a user between the last two successful sign-ins in a browser."""

    model_config = ConfigDict(from_attributes=True)

    count: int
    last_date: Annotated[Moment, Field(description="time of the latest failed sign-in")]


class Me(BaseModel):
    """The mode of the server and the signed-in user."""

    model_config = with_example(
        mode="accounts",
        sign_up="invite",
        user={"name": "ann", "admin": True, "via": "session"},
        failed_sign_ins={"count": 3, "last_date": "2026-01-02T03:04:05.000Z"},
    )

    mode: Annotated[
        Literal["open", "accounts"], Field(description="`open`: no accounts, everyone has access to all notes")
    ]
    sign_up: Annotated[SignUp, Field(description="who can create an account")]
    user: Annotated[User | None, Field(description="the signed-in user")]
    failed_sign_ins: Annotated[
        FailedSignIns | None,
        Field(description="failed sign-ins to show to the user, until they are acknowledged or until the next sign-in"),
    ] = None


def _user(principal: Principal) -> User | None:
    if principal.name is None:
        return None
    return User(name=principal.name, admin=principal.admin, via="token" if principal.is_api_token else "session")


def _me(accounts: Accounts, user: User | None, failed: FailedSignInCount | None) -> Me:
    failed_sign_ins = None if failed is None else FailedSignIns.model_validate(failed)
    return Me(mode="accounts", sign_up=accounts.sign_up_mode, user=user, failed_sign_ins=failed_sign_ins)


@router.get("/me", summary="Read the signed-in user", response_model=Me, responses=UNAVAILABLE)
async def me(request: Request) -> Response:
    """Return the mode of the server, the sign-up policy, and the signed-in user."""
    accounts = services_of(request).accounts
    if accounts is None:
        return private_response(Me(mode="open", sign_up="closed", user=None))
    user = _user(principal_of(request))
    failed = await accounts.failed_sign_ins(principal_of(request))
    response = private_response(_me(accounts, user, failed))
    if user is None and cookie_of(request.scope) is not None:
        set_cookie(response, request, None)
    return response


class SignUpIn(Model):
    """A new account."""

    model_config = with_example(name="ann", password=EXAMPLE_PASSWORD, invite="6pLO2M1s…")

    name: Name
    password: NewPassword
    invite: Annotated[Secret | None, Field(description="the invite from an administrator")] = None
    setup: Annotated[
        Secret | None,
        Field(description="the setup token that the server printed at startup, to create the first administrator"),
    ] = None


class SignInIn(Model):
    """The credentials of a user."""

    model_config = with_example(name="ann", password=EXAMPLE_PASSWORD)

    name: Name
    password: Password


def _session_response(accounts: AccountsDep, request: Request, started: StartedSession, status: int) -> Response:
    user = User(name=started.user.name, admin=started.user.admin, via="session")
    response = private_response(_me(accounts, user, started.failed_sign_ins), status)
    set_cookie(response, request, started.secret)
    add_device(response, request, started.device)
    return response


@router.post(
    "/sign-up",
    status_code=201,
    summary="Create an account",
    response_model=Me,
    dependencies=[REQUIRE_HTTPS],
    responses={
        **PUBLIC_JSON,
        **INSECURE,
        **error_responses(Forbidden("You need an invite to sign up"), NameTaken()),
    },
)
async def sign_up(request: Request, accounts: AccountsDep, caller: ClientInfoDep, body: SignUpIn) -> Response:
    """Create an account and sign in. The first account becomes an administrator and requires the setup token.

    A name cannot be changed later.
    """
    new = NewAccount(body.name, body.password, body.invite, body.setup)
    started = await accounts.sign_up(new, caller, cookie_of(request.scope))
    return _session_response(accounts, request, started, 201)


@router.post(
    "/sign-in",
    summary="Sign in",
    response_model=Me,
    openapi_extra={"security": []},
    dependencies=[REQUIRE_HTTPS],
    responses={
        **PUBLIC_JSON,
        **INSECURE,
        **error_responses(NotSignedIn("The name or the password is wrong")),
    },
)
async def sign_in(request: Request, accounts: AccountsDep, caller: ClientInfoDep, body: SignInIn) -> Response:
    """Start a session with an HttpOnly cookie. The previous session of the browser ends."""
    started = await accounts.sign_in(body.name, body.password, caller, cookie_of(request.scope))
    return _session_response(accounts, request, started, 200)


@router.post(
    "/sign-out",
    status_code=204,
    summary="Sign out",
    responses={**PUBLIC_JSON, 204: {"description": "Signed out"}},
)
async def sign_out(request: Request, accounts: AccountsDep, caller: ClientInfoDep) -> Response:
    """End the session, close its connections, and remove the share links from the browser."""
    await accounts.sign_out(principal_of(request), caller)
    response = private_response(None)
    set_cookie(response, request, None)
    # No Clear-Site-Data: it would also delete the device cookie, and the drafts of other users of the browser.
    drop_links(response, request)
    return response


@router.delete(
    "/failed-sign-ins",
    status_code=204,
    summary="Acknowledge failed sign-ins",
    responses={**USER_ACTION, 204: {"description": "Acknowledged"}},
)
async def acknowledge_failed_sign_ins(accounts: AccountsDep, principal: SessionUser) -> Response:
    """Remove the current failed sign-ins from `GET /auth/me`. The audit log keeps them."""
    await accounts.acknowledge_failed_sign_ins(principal)
    return private_response(None)


class PasswordChange(Model):
    """The old and the new password."""

    model_config = with_example(old=EXAMPLE_PASSWORD, new="nine lives of a patient cat")

    old: Password
    new: NewPassword
    revoke_tokens: Annotated[bool, Field(description="whether to revoke all your API tokens")] = False


@router.post(
    "/password",
    status_code=204,
    summary="Change the password",
    responses={
        **USER_JSON,
        **TOO_MANY,
        204: {"description": "Changed"},
        **error_responses(Forbidden("The old password is wrong")),
    },
)
async def password(
    request: Request, accounts: AccountsDep, principal: SessionUser, caller: ClientInfoDep, body: PasswordChange
) -> Response:
    """Change the password and end all other sessions, with their signed tokens and tickets.

    API tokens stay valid unless `revoke_tokens` is set. Set it if someone else may know the password or has used one of
    your sessions: they may have created a token. Share links stay valid.

    Other browsers count as unknown devices until the next sign-in there.
    """
    device = await accounts.change_password(principal, body.old, body.new, caller, revoke_tokens=body.revoke_tokens)
    response = private_response(None)
    add_device(response, request, device)
    return response


class PasswordConfirmation(Model):
    """The password of the signed-in user."""

    model_config = with_example(password=EXAMPLE_PASSWORD)

    password: Password


@router.post(
    "/confirm",
    status_code=204,
    summary="Confirm the password",
    responses={
        **USER_JSON,
        204: {"description": "Confirmed"},
        **error_responses(Forbidden("The password is wrong")),
    },
)
async def confirm(
    accounts: AccountsDep, principal: SessionUser, caller: ClientInfoDep, body: PasswordConfirmation
) -> Response:
    """Confirm the password. The confirmation is valid for 10 minutes in this session.

    Required to create an API token, to transfer a note to another owner, to change the role of a user, and to delete an
    account. Without it, these requests get 403 with `"required": "password_confirmation"`. A sign-in counts as a
    confirmation.
    """
    await accounts.confirm_password(principal, body.password, caller)
    return private_response(None)


class SignIn(BaseModel):
    """A session of a user."""

    model_config = with_example(
        id=EXAMPLE_ID,
        created_date="2026-01-01T09:00:00.000Z",
        used_date="2026-01-02T18:30:00.000Z",
        expires_date="2026-01-16T18:30:00.000Z",
        address="192.0.2.7",
        agent="Mozilla/5.0",
        current=True,
    )

    id: str
    created_date: Moment
    used_date: Annotated[Moment, Field(description="time of the last use, to the minute")]
    expires_date: Annotated[
        Moment, Field(description="extended by each use: 14 days after the last use, at most 90 days after the sign-in")
    ]
    address: str | None
    agent: Annotated[str | None, Field(description="the `User-Agent` of the browser")]
    current: Annotated[bool, Field(default_factory=bool, description="whether this request uses it")]


@router.get("/sessions", summary="List sessions", response_model=list[SignIn], responses=USER_READ)
async def sessions(accounts: AccountsDep, principal: SessionUser) -> Response:
    """Return the sessions of the signed-in user, newest first."""
    sign_ins = [SignIn.model_validate(session) for session in await accounts.sessions(principal, "session")]
    return private_response(
        [sign_in.model_copy(update={"current": sign_in.id == principal.session}) for sign_in in sign_ins]
    )


@router.delete(
    "/sessions",
    status_code=204,
    summary="End all other sessions",
    responses={**USER_ACTION, 204: {"description": "The other sessions ended"}},
)
async def end_others(accounts: AccountsDep, principal: SessionUser, caller: ClientInfoDep) -> Response:
    """End all sessions except the current one."""
    await accounts.end_others(principal, caller)
    return private_response(None)


@router.delete(
    "/sessions/{id}",
    status_code=204,
    summary="End a session",
    responses={**USER_ACTION, **SESSION_GONE, **ENDED},
)
async def end_session(accounts: AccountsDep, principal: SessionUser, caller: ClientInfoDep, id: DigestId) -> Response:
    """End a session and close its connections within a second."""
    await accounts.end(principal, "session", id, caller)
    return private_response(None)
