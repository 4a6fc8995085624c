"""Audit entries for refused access and for the use of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from realtime.api.services import parts_of
from realtime.auth.permissions import NoteForbidden, NoteHidden
from realtime.errors import RealtimeError

if TYPE_CHECKING:
    from realtime.api.services import Parts
    from realtime.auth.permissions import Viewer


def record_refusal(connection: HTTPConnection, viewer: Viewer, error: RealtimeError) -> None:
    """Record in the audit that somebody was refused a note that exists."""
    audit = parts_of(connection).audit
    if audit is not None and isinstance(error, (NoteHidden, NoteForbidden)):
        audit.add_hourly("note.access", viewer, connection.path_params.get("id"), ok=False)


def record_token_use(parts: Parts, viewer: Viewer) -> None:
    """Record in the audit that an API token is used."""
    if parts.audit is not None and viewer.token:
        parts.audit.add_hourly("token.use", viewer, viewer.session)
