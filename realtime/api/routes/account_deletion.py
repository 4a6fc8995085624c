"""Routes that delete accounts: the caller's own, or any account as an administrator."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from realtime.api.auth_deps import (
    CONFIRM,
    LAST_ADMIN,
    USER_ACTION,
    ClientInfoDep,
    ConfirmedAdmin,
    ConfirmedUser,
    Name,
    actor,
    private_response,
)
from realtime.api.cookies import drop_links, set_cookie
from realtime.api.deps import allow_query
from realtime.api.responses import Responses
from realtime.api.router import SlashRouter
from realtime.api.routes.admin import NO_USER, UserName
from realtime.api.services import services_of
from realtime.auth.users import Actor
from realtime.errors import AccountsDisabled

router = SlashRouter(dependencies=[allow_query("transfer_to")])

SETTLE_SECONDS = 5.0
"""Maximum time that the response waits for the transfer of the notes. The rest is transferred in the background."""
RESPONSES: Responses = {**USER_ACTION, **CONFIRM, **LAST_ADMIN, **NO_USER, 204: {"description": "Deleted"}}

TransferTo = Annotated[
    Name | None,
    Query(
        description="the user who gets the notes; by default, public notes and notes shared with members go to the"
        " administrators, and all other notes go to the trash"
    ),
]


@router.delete("/auth/account", status_code=204, tags=["accounts"], summary="Delete your account", responses=RESPONSES)
async def delete_own(
    request: Request, principal: ConfirmedUser, caller: ClientInfoDep, transfer_to: TransferTo = None
) -> Response:
    """Permanently delete the account of the signed-in user.

    All its sessions, signed tokens, API tokens and share links end at once. The name cannot be used again, and stays in
    the history of notes. Notes in the trash stay there until they are purged.

    Requires a password confirmation in this session within the last 10 minutes: `POST /auth/confirm`.
    """
    await _delete(request, principal.name or "", transfer_to, actor(principal, caller))
    response = private_response(None)
    set_cookie(response, request, None)
    drop_links(response, request)
    return response


@router.delete(
    "/users/{name}", status_code=204, tags=["administration"], summary="Delete an account", responses=RESPONSES
)
async def delete(
    request: Request, admin: ConfirmedAdmin, caller: ClientInfoDep, name: UserName, transfer_to: TransferTo = None
) -> Response:
    """Permanently delete the account of a user, like `DELETE /auth/account`. Disabling a user can be undone.

    Requires a password confirmation in this session within the last 10 minutes: `POST /auth/confirm`.
    """
    await _delete(request, name, transfer_to, actor(admin, caller))
    return private_response(None)


async def _delete(request: Request, name: str, heir: str | None, by: Actor) -> None:
    """Delete an account, and wait up to ``SETTLE_SECONDS`` for the transfer of its notes.

    Raises:
        ResourceNotFound: The user does not exist.
        UnknownNewOwner: ``heir`` does not exist, is disabled, or is the account itself.
        LastAdmin: The user is the last administrator.
    """
    services = services_of(request)
    if services.accounts is None or services.deleted_accounts is None:
        raise AccountsDisabled
    await services.accounts.users.delete(name, heir, by)
    await services.deleted_accounts.settle(SETTLE_SECONDS)
