"""The routes that delete accounts: one's own, and as an administrator those of others."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from realtime.api.auth_deps import (
    CONFIRM,
    LAST_ADMIN,
    OWN_ACT,
    CallerPart,
    Confirmed,
    ConfirmedAdmin,
    Name,
    actor,
    private,
)
from realtime.api.cookies import drop_links, set_cookie
from realtime.api.deps import only
from realtime.api.responses import Answers
from realtime.api.router import SlashRouter
from realtime.api.routes.admin import NO_USER, UserName
from realtime.api.services import services_of
from realtime.auth.users import Actor
from realtime.errors import NoAccounts

router = SlashRouter(dependencies=[only("transfer_to")])

SETTLE_SECONDS = 5.0
"""How long the answer waits for the notes to be settled; the rest is settled in the background."""
ANSWERS: Answers = {**OWN_ACT, **CONFIRM, **LAST_ADMIN, **NO_USER, 204: {"description": "Deleted"}}

TransferTo = Annotated[
    Name | None,
    Query(
        description="the user who gets the notes; without one, notes that are public or shared with members become the"
        " administrators', and all others go into the trash"
    ),
]


@router.delete("/auth/account", status_code=204, tags=["accounts"], summary="Delete your account", responses=ANSWERS)
async def delete_own(
    request: Request, principal: Confirmed, caller: CallerPart, transfer_to: TransferTo = None
) -> Response:
    """Deletes the account of the signed-in user for good.

    All sessions, signed tokens and API tokens end at once, and the links to the notes with them. Nobody can take the
    name again, and the history of notes goes on naming it. Notes in the trash stay there until they are purged.

    Needs a password that was confirmed in this session in the last 10 minutes: `POST /auth/confirm`.
    """
    await _delete(request, principal.name or "", transfer_to, actor(principal, caller))
    answer = private(None)
    set_cookie(answer, request, None)
    drop_links(answer, request)
    return answer


@router.delete(
    "/users/{name}", status_code=204, tags=["administration"], summary="Delete an account", responses=ANSWERS
)
async def delete(
    request: Request, admin: ConfirmedAdmin, caller: CallerPart, name: UserName, transfer_to: TransferTo = None
) -> Response:
    """Deletes the account of a user for good, as `DELETE /auth/account` does. To keep a way back, disable it instead.

    Needs a password that was confirmed in this session in the last 10 minutes: `POST /auth/confirm`.
    """
    await _delete(request, name, transfer_to, actor(admin, caller))
    return private(None)


async def _delete(request: Request, name: str, heir: str | None, by: Actor) -> None:
    """Delete an account, and settle its notes as far as that is possible at once.

    Raises :class:`ResourceNotFound`, :class:`UnknownHeir`, :class:`LastAdmin`.
    """
    parts = services_of(request)
    if parts.accounts is None or parts.deleted_accounts is None:
        raise NoAccounts
    await parts.accounts.users.delete(name, heir, by)
    await parts.deleted_accounts.settle(SETTLE_SECONDS)
