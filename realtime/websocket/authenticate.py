"""Authenticates WebSocket clients without a session cookie or header: by the first frame, or by a ticket."""

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

AUTH_TIMEOUT_SECONDS = 10.0
MAX_FRAME_CHARACTERS = 8 * 1024
"""Maximum length of the first frame."""


async def authenticate_by_frame(socket: WebSocket) -> Principal:
    """Return the principal of a feed client.

    With accounts, a client that is not signed in by a cookie or header must send an ``auth`` frame first.

    Raises:
        NotSignedIn: The first frame is missing or is not ``auth``, or its token is invalid.
        Unavailable: MongoDB cannot be reached.
        WebSocketDisconnect: The client disconnected.
    """
    principal = principal_of(socket)
    authenticator = services_of(socket).authenticator
    if authenticator is None or principal.session is not None:
        return principal
    try:
        async with asyncio.timeout(AUTH_TIMEOUT_SECONDS):
            message = await socket.receive()
    except TimeoutError:
        raise NotSignedIn(f"type: the first frame must be auth, within {AUTH_TIMEOUT_SECONDS:.0f} s") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    try:
        command = client_message.validate_json((message.get("text") or "")[: MAX_FRAME_CHARACTERS + 1])
    except ValidationError:
        command = None
    if not isinstance(command, Auth):
        raise NotSignedIn("type: the first frame must be auth")
    if command.token is None:
        return principal
    authenticated = await authenticator.of_token(command.token, principal.address)
    if authenticated is None:
        raise NotSignedIn("token: invalid, expired or revoked")
    authenticated = replace(authenticated, address=principal.address)
    record_token_use(services_of(socket), authenticated)
    return authenticated


async def authenticate_by_ticket(socket: WebSocket, note: int) -> Principal:
    """Return the principal of a room's client: the owner of the ``ticket`` parameter, if it is given.

    Raises:
        NotSignedIn: The ticket is invalid.
        Unavailable: MongoDB cannot be reached.
    """
    accounts = services_of(socket).accounts
    ticket = socket.query_params.get("ticket")
    if accounts is None or ticket is None:
        return principal_of(socket)
    principal = await accounts.redeem(ticket, note)
    if principal is None:
        raise NotSignedIn("ticket: invalid, used, expired, or for another note")
    return replace(principal, address=principal_of(socket).address)
