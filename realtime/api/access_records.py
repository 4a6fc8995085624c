"""Adds entries to the audit log for denied access and for the use of API tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from realtime.api.services import services_of
from realtime.auth.permissions import NoteForbidden, NoteHidden
from realtime.errors import RealtimeError

if TYPE_CHECKING:
    from realtime.api.services import Services
    from realtime.auth.permissions import Principal


def record_refusal(connection: HTTPConnection, principal: Principal, error: RealtimeError) -> None:
    """Record in the audit log that a caller was denied access to an existing note. Ignore other errors."""
    audit = services_of(connection).audit
    if audit is not None and isinstance(error, (NoteHidden, NoteForbidden)):
        audit.add_hourly("note.access", principal, connection.path_params.get("id"), ok=False)


def record_token_use(services: Services, principal: Principal) -> None:
    """Record in the audit log that the caller used an API token, if it did."""
    if services.audit is not None and principal.is_api_token:
        services.audit.add_hourly("token.use", principal, principal.session)
