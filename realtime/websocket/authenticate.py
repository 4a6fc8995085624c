"""Signing in on a WebSocket, for whoever came without a cookie or header: by its first frame, or with a ticket."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from realtime.api.access_records import record_token_use
from realtime.api.requests import principal_of
from realtime.api.services import services_of
from realtime.errors import NotSignedIn
from realtime.feed.messages import Auth, client_message

if TYPE_CHECKING:
    from realtime.auth.permissions import Principal

WITHIN = 10.0
LONGEST = 8 * 1024
"""Characters of a first frame."""


async def by_frame(socket: WebSocket) -> Principal:
    """Who opened a feed; where there are accounts, and it is not known yet, the first frame has to tell.

    Raises :class:`NotSignedIn`, :class:`Unavailable`, :class:`WebSocketDisconnect`.
    """
    principal = principal_of(socket)
    authenticator = services_of(socket).authenticator
    if authenticator is None or principal.session is not None:
        return principal
    try:
        async with asyncio.timeout(WITHIN):
            message = await socket.receive()
    except TimeoutError:
        raise NotSignedIn(f"type: the first frame must be auth, within {WITHIN:.0f} s") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    try:
        command = client_message.validate_json((message.get("text") or "")[: LONGEST + 1])
    except ValidationError:
        command = None
    if not isinstance(command, Auth):
        raise NotSignedIn("type: the first frame must be auth")
    if command.token is None:
        return principal
    known = await authenticator.of_token(command.token, principal.address)
    if known is None:
        raise NotSignedIn("token: is wrong, or has expired or been revoked")
    known = replace(known, address=principal.address)
    record_token_use(services_of(socket), known)
    return known


async def by_ticket(socket: WebSocket, note: int) -> Principal:
    """Who opened a room: who has the ticket, if one is given. Raises :class:`NotSignedIn`, :class:`Unavailable`."""
    accounts = services_of(socket).accounts
    ticket = socket.query_params.get("ticket")
    if accounts is None or ticket is None:
        return principal_of(socket)
    principal = await accounts.redeem(ticket, note)
    if principal is None:
        raise NotSignedIn("ticket: is for another note, or was used, or has expired")
    return replace(principal, address=principal_of(socket).address)
