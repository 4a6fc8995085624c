"""The services of a running application, for the code that serves a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from realtime.auth.accounts import Accounts
    from realtime.auth.audit import NoteAudit
    from realtime.auth.authenticator import Authenticator
    from realtime.auth.connection_limit import ConnectionSlots
    from realtime.auth.open_mode import OpenModeCheck
    from realtime.auth.rate_limit import RateLimiter
    from realtime.core.pools import Pools
    from realtime.eventlog.bus import Bus
    from realtime.eventlog.consumer import LogConsumer
    from realtime.eventlog.outbox import Outbox
    from realtime.feed.service import Feed
    from realtime.metrics import Metrics
    from realtime.notes.deleted_accounts import DeletedAccounts
    from realtime.notes.queries import NoteQueries
    from realtime.notes.quotas import Quotas
    from realtime.notes.service import NoteService
    from realtime.notes.sharing import Sharing
    from realtime.rooms.manager import Rooms
    from realtime.store.database import Store


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one worker.

    ``authenticator``, ``accounts``, ``sharing``, ``deleted_accounts``, ``audit`` and ``rate_limiter`` are ``None`` on a
    server without accounts. ``open_mode`` is ``None`` except on a server without accounts that is not public.
    """

    store: Store
    bus: Bus
    consumer: LogConsumer
    feed: Feed
    outbox: Outbox
    notes: NoteService
    rooms: Rooms
    queries: NoteQueries
    metrics: Metrics
    connection_slots: ConnectionSlots
    quotas: Quotas
    pools: Pools
    authenticator: Authenticator | None
    accounts: Accounts | None
    sharing: Sharing | None
    deleted_accounts: DeletedAccounts | None
    audit: NoteAudit | None
    rate_limiter: RateLimiter | None
    open_mode: OpenModeCheck | None


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the application that serves a request or WebSocket."""
    services: Services = connection.app.state.services
    return services
