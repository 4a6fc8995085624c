"""Acquires the slots of :mod:`realtime.auth.connection_limit` for event streams, long polls and WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.api.services import services_of
from realtime.auth.open_connections import OPEN_CONNECTION

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from realtime.auth.connection_limit import Slot
    from realtime.auth.open_connections import OpenConnection
    from realtime.auth.permissions import Principal


async def acquire_slot(connection: HTTPConnection, principal: Principal) -> Slot | None:
    """Acquire a slot for a connection that stays open.

    Args:
        connection: The WebSocket or request.
        principal: The caller. It may have signed in with the first frame of the WebSocket.

    Returns:
        The slot, or ``None`` if there is no limit.

    Raises:
        TooManyRequests: The user or network has too many open connections.
        Unavailable: This process has too many connections.
    """
    open_connection: OpenConnection | None = connection.scope.get(OPEN_CONNECTION)
    if open_connection is not None:
        open_connection.identify(connection.scope, principal.name)
    return await services_of(connection).connection_slots.acquire(
        principal, connection.client.host if connection.client else ""
    )
