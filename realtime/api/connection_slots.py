"""Take a slot for a connection that stays open, for its user or its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.api.services import parts_of
from realtime.auth.open_connections import OCCUPANT

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from realtime.auth.connection_limit import Place
    from realtime.auth.open_connections import Occupant
    from realtime.auth.permissions import Viewer


async def take_place(connection: HTTPConnection, viewer: Viewer) -> Place | None:
    """Return a place for a connection that stays open; ``None`` where there is no limit.

    Args:
        connection: The WebSocket or request.
        viewer: The user, who may have signed in on the WebSocket itself.

    Raises:
        TooMany: The user or network has as many open connections as it may.
        Unavailable: The server has too many connections.
    """
    occupant: Occupant | None = connection.scope.get(OCCUPANT)
    if occupant is not None:
        occupant.identify(connection.scope, viewer.name)
    return await parts_of(connection).places.take(viewer, connection.client.host if connection.client else "")
