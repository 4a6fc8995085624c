"""The routes of one's own account: signing up, in and out, the password, sessions."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from realtime.api.auth_deps import (
    ANYONE,
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
    Digest,
    InPerson,
    Name,
    NewPassword,
    Password,
    Secret,
    private,
    shown,
)
from realtime.api.cookies import add_device, cookie_of, drop_links, set_cookie
from realtime.api.deps import only
from realtime.api.pagination import list_answer
from realtime.api.requests import principal_of
from realtime.api.responses import TOO_MANY, UNAVAILABLE, Answers, problem
from realtime.api.router import SlashRouter
from realtime.api.services import services_of
from realtime.auth.accounts import Accounts, NewAccount, SignUp, StartedSession
from realtime.auth.permissions import Principal
from realtime.auth.users import FailedSignInCount as Failed
from realtime.notes.models import Model, Moment

router = SlashRouter(prefix="/auth", tags=["accounts"], dependencies=[only()])

SESSION_GONE: Answers = {404: problem("There is no such session, or there are no accounts", "Session not found")}


class User(BaseModel):
    """Who is signed in, and whether in person or by an API token."""

    name: str
    admin: bool
    via: Literal["session", "token"]


class FailedSignIns(BaseModel):
    """Failed sign-ins with the name of a user, before the last sign-in in a browser and since the one before that."""

    model_config = ConfigDict(from_attributes=True)

    count: int
    last_date: Annotated[Moment, Field(description="time of the latest one")]


class Me(BaseModel):
    """What a page has to know before it can show anything."""

    model_config = shown(
        mode="accounts",
        sign_up="invite",
        user={"name": "ann", "admin": True, "via": "session"},
        failed_sign_ins={"count": 3, "last_date": "2026-01-02T03:04:05.000Z"},
    )

    mode: Annotated[Literal["open", "accounts"], Field(description="`open`: everything is everyone's")]
    sign_up: Annotated[SignUp, Field(description="who may make an account")]
    user: Annotated[User | None, Field(description="who is signed in")]
    failed_sign_ins: Annotated[
        FailedSignIns | None,
        Field(description="to report to the user, until they are acknowledged or the next sign-in"),
    ] = None


def _user(principal: Principal) -> User | None:
    if principal.name is None:
        return None
    return User(name=principal.name, admin=principal.admin, via="token" if principal.token else "session")


def _me(accounts: Accounts, user: User | None, failed: Failed | None) -> Me:
    told = None if failed is None else FailedSignIns.model_validate(failed)
    return Me(mode="accounts", sign_up=accounts.sign_up_mode, user=user, failed_sign_ins=told)


@router.get("/me", summary="Who am I?", response_model=Me, responses=UNAVAILABLE)
async def me(request: Request) -> Response:
    """Whether there are accounts, who may sign up, and who is signed in."""
    accounts = services_of(request).accounts
    if accounts is None:
        return private(Me(mode="open", sign_up="closed", user=None))
    user = _user(principal_of(request))
    failed = await accounts.failed_sign_ins(principal_of(request))
    answer = private(_me(accounts, user, failed))
    if user is None and cookie_of(request.scope) is not None:
        set_cookie(answer, request, None)
    return answer


class SignUpIn(Model):
    """A new account."""

    model_config = shown(name="ann", password=EXAMPLE_PASSWORD, invite="6pLO2M1s…")

    name: Name
    password: NewPassword
    invite: Annotated[Secret | None, Field(description="what an admin made for you")] = None
    setup: Annotated[
        Secret | None, Field(description="what the server printed when it started, to make the first user, an admin")
    ] = None


class SignInIn(Model):
    """A name and its password."""

    model_config = shown(name="ann", password=EXAMPLE_PASSWORD)

    name: Name
    password: Password


def _begun(accounts: AccountsPart, request: Request, begun: StartedSession, status: int) -> Response:
    user = User(name=begun.user.name, admin=begun.user.admin, via="session")
    answer = private(_me(accounts, user, begun.failed), status)
    set_cookie(answer, request, begun.secret)
    add_device(answer, request, begun.device)
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
    """Makes an account, and signs in with it. Only whoever has the setup token can make the first one, an admin's.

    A name stays as it is.
    """
    new = NewAccount(body.name, body.password, body.invite, body.setup)
    begun = await accounts.sign_up(new, caller, cookie_of(request.scope))
    return _begun(accounts, request, begun, 201)


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
    begun = await accounts.sign_in(body.name, body.password, caller, cookie_of(request.scope))
    return _begun(accounts, request, begun, 200)


@router.post(
    "/sign-out",
    status_code=204,
    summary="Sign out",
    responses={**ANYONE, 204: {"description": "Nobody is signed in any more"}},
)
async def sign_out(request: Request, accounts: AccountsPart, caller: CallerPart) -> Response:
    """Ends the session, and all that is open for it. The browser also loses the links that it was given."""
    await accounts.sign_out(principal_of(request), caller)
    answer = private(None)
    set_cookie(answer, request, None)
    # No Clear-Site-Data: it would also delete the device cookie, and what the page keeps for other people.
    drop_links(answer, request)
    return answer


@router.delete(
    "/failed-sign-ins",
    status_code=204,
    summary="Acknowledge failed sign-ins",
    responses={**OWN_ACT, 204: {"description": "They are not reported again"}},
)
async def acknowledge_failed_sign_ins(accounts: AccountsPart, principal: InPerson) -> Response:
    """Stops `GET /auth/me` from reporting the failed sign-ins that it reports now. The audit keeps them."""
    await accounts.acknowledge_failed_sign_ins(principal)
    return private(None)


class PasswordChange(Model):
    """The password as it is, and as it shall be."""

    model_config = shown(old=EXAMPLE_PASSWORD, new="nine lives of a patient cat")

    old: Password
    new: NewPassword
    revoke_tokens: Annotated[bool, Field(description="whether all your API tokens end, too")] = False


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
async def password(
    request: Request, accounts: AccountsPart, principal: InPerson, caller: CallerPart, body: PasswordChange
) -> Response:
    """Changes the password. All other sessions end, and signed tokens and tickets with them. This session goes on.

    API tokens stay valid unless `revoke_tokens` is set. Set it if somebody else may know the password, or have used one
    of your sessions: they may have created a token. Links to notes stay as they are.

    Other browsers count as unknown devices until somebody signs in there again.
    """
    device = await accounts.change_password(principal, body.old, body.new, caller, revoke_tokens=body.revoke_tokens)
    answer = private(None)
    add_device(answer, request, device)
    return answer


class PasswordConfirmation(Model):
    """The password of the signed-in user."""

    model_config = shown(password=EXAMPLE_PASSWORD)

    password: Password


@router.post(
    "/confirm",
    status_code=204,
    summary="Confirm the password",
    responses={
        **OWN,
        204: {"description": "Confirmed"},
        403: problem("The password is wrong, or an API token sent this", "The password is wrong"),
    },
)
async def confirm(
    accounts: AccountsPart, principal: InPerson, caller: CallerPart, body: PasswordConfirmation
) -> Response:
    """Confirms the password, for 10 minutes in this session.

    Creating an API token, giving a note to another owner, changing the role of a user and deleting an account need it.
    A request that comes without it gets 403 with `"required": "password_confirmation"`. A sign-in confirms, too.
    """
    await accounts.confirm_password(principal, body.password, caller)
    return private(None)


class SignIn(BaseModel):
    """A session: where and when somebody signed in."""

    model_config = shown(
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
    used_date: Annotated[Moment, Field(description="to a minute")]
    expires_date: Annotated[Moment, Field(description="unless it is used: 14 days later, at most 90 after the sign-in")]
    address: str | None
    agent: Annotated[str | None, Field(description="what the browser says it is")]
    current: Annotated[bool, Field(default_factory=bool, description="whether it is the one that this was asked with")]


@router.get("/sessions", summary="List sessions", response_model=list[SignIn], responses=OWN_READ)
async def sessions(accounts: AccountsPart, principal: InPerson) -> Response:
    """Where one is signed in, the last one first."""
    found = [SignIn.model_validate(one) for one in await accounts.sessions(principal, "session")]
    return list_answer(
        [one.model_copy(update={"current": one.id == principal.session}) for one in found],
        {"Cache-Control": "no-store"},
    )


@router.delete(
    "/sessions",
    status_code=204,
    summary="End all other sessions",
    responses={**OWN_ACT, 204: {"description": "This one is all that is left"}},
)
async def end_others(accounts: AccountsPart, principal: InPerson, caller: CallerPart) -> Response:
    """Signs out everywhere but here."""
    await accounts.end_others(principal, caller)
    return private(None)


@router.delete(
    "/sessions/{id}",
    status_code=204,
    summary="End a session",
    responses={**OWN_ACT, **SESSION_GONE, **ENDED},
)
async def end_session(accounts: AccountsPart, principal: InPerson, caller: CallerPart, id: Digest) -> Response:
    """Signs out there, within a second."""
    await accounts.end(principal, "session", id, caller)
    return private(None)
