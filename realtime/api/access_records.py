"""Audit entries for refused access and for the use of tokens."""

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
    """Record in the audit that somebody was refused a note that exists."""
    audit = services_of(connection).audit
    if audit is not None and isinstance(error, (NoteHidden, NoteForbidden)):
        audit.add_hourly("note.access", principal, connection.path_params.get("id"), ok=False)


def record_token_use(parts: Services, principal: Principal) -> None:
    """Record in the audit that an API token is used."""
    if parts.audit is not None and principal.token:
        parts.audit.add_hourly("token.use", principal, principal.session)
