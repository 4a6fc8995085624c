"""Take a slot for a connection that stays open, for its user or its network."""

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
    """Return a place for a connection that stays open; ``None`` where there is no limit.

    Args:
        connection: The WebSocket or request.
        viewer: The user, who may have signed in on the WebSocket itself.

    Raises:
        TooMany: The user or network has as many open connections as it may.
        Unavailable: The server has too many connections.
    """
    occupant: OpenConnection | None = connection.scope.get(OCCUPANT)
    if occupant is not None:
        occupant.identify(connection.scope, principal.name)
    return await services_of(connection).places.acquire(principal, connection.client.host if connection.client else "")
