"""A check that prevents a server in open mode from serving a database with accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.api.error_handlers import response_for
from realtime.api.middleware.authentication import WITHOUT_MONGODB
from realtime.api.requests import first_segment, path_of
from realtime.auth.open_mode import OpenModeCheck
from realtime.errors import Unavailable

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Scope


async def check_open_mode(scope: Scope) -> Response | None:
    """Reject a request with 503 unless the database is known to have no accounts."""
    open_mode: OpenModeCheck = scope["app"].state.services.open_mode
    if open_mode.has_accounts is not False and first_segment(path_of(scope)) not in WITHOUT_MONGODB:
        try:
            await open_mode.check()
        except Unavailable as error:
            return response_for(error)
    return None
