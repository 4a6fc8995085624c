"""Connection slots: the limit on open connections per user or network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.api.services import services_of
from realtime.auth.open_connections import OCCUPANT

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from realtime.auth.connection_limit import Slot
    from realtime.auth.open_connections import OpenConnection
    from realtime.auth.permissions import Principal


async def acquire_slot(connection: HTTPConnection, principal: Principal) -> Slot | None:
    """Acquire a slot for a connection that stays open.

    Args:
        connection: The WebSocket or request.
        principal: The caller, who may have signed in on the WebSocket itself.

    Returns:
        The slot, or ``None`` if there is no limit.

    Raises:
        TooManyRequests: The user or network has too many open connections.
        Unavailable: The server has too many connections.
    """
    occupant: OpenConnection | None = connection.scope.get(OCCUPANT)
    if occupant is not None:
        occupant.identify(connection.scope, principal.name)
    return await services_of(connection).connection_slots.acquire(
        principal, connection.client.host if connection.client else ""
    )
