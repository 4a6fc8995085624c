"""Taking a place for a connection that stays open, for its user or its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.occupancy import OCCUPANT
from realtime.routing import parts_of

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from realtime.access import Viewer
    from realtime.occupancy import Occupant
    from realtime.places import Place


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
