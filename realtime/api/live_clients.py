"""Applies events and revocations to the connected clients of this worker, in the feed and in rooms.

Unlike the other modules of this package, it handles no requests: the event log and the polling of revocations call it.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

from realtime.core.close_codes import CloseCode
from realtime.feed.codec import reset

if TYPE_CHECKING:
    from realtime.auth.authenticator import Authenticator
    from realtime.auth.permissions import Principal
    from realtime.auth.revocations import Revocations, RevocationSubjects
    from realtime.eventlog.consumer import LogConsumer
    from realtime.eventlog.cursor import Cursor
    from realtime.eventlog.event import Event
    from realtime.feed.hub import Hub
    from realtime.feed.presence import Presence
    from realtime.feed.service import Feed
    from realtime.rooms.manager import Rooms


class Dispatcher:
    """Passes events from the log to the hub, the rooms and presence."""

    def __init__(self, hub: Hub, rooms: Rooms, presence: Presence) -> None:
        self._hub = hub
        self._rooms = rooms
        self._presence = presence

    def deliver(self, event: Event, *, logged: bool = True) -> None:
        """Deliver an event.

        Args:
            event: The event.
            logged: Whether the event is in the log.
        """
        self._hub.publish(event, logged=logged)
        if event.deleted:
            self._rooms.note_deleted(event.id, event.full.version)
        if event.audience.since > 1:
            self._rooms.access_changed(event.id, event.audience.since)
            self._presence.remove_unauthorized(event.id)

    def reset(self, position: Cursor) -> None:
        """Send all clients a reset to a position of the log."""
        self._hub.reset(reset(position))

    def receive_presence(self, message: bytes) -> None:
        """Apply a message from another worker about presence."""
        self._presence.receive(message)


class Revoker:
    """Applies revocations to the open connections of this worker.

    The rooms and the feed need :class:`Revocations`, which needs this object. They are therefore created after it, and
    set with :meth:`attach`.
    """

    def __init__(self, hub: Hub, authenticator: Authenticator) -> None:
        self._hub = hub
        self._authenticator = authenticator
        self._revocations: Revocations
        self._rooms: Rooms
        self._feed: Feed
        self._consumer: LogConsumer

    def attach(self, revocations: Revocations, rooms: Rooms, feed: Feed, consumer: LogConsumer) -> None:
        """Set the services that this object uses. Call this once, before the tasks start."""
        self._revocations = revocations
        self._rooms = rooms
        self._feed = feed
        self._consumer = consumer

    def sessions(self) -> Set[str]:
        """Return the sessions that have open connections."""
        return self._hub.sessions() | self._rooms.sessions()

    async def end_sessions(self, sessions: RevocationSubjects) -> None:
        """Close the connections of ended sessions."""
        self._authenticator.forget(sessions)

        def matches(principal: Principal) -> bool:
            return principal.session in sessions

        self._hub.close_clients(matches, CloseCode.NOT_SIGNED_IN)
        self._rooms.close_peers(matches, CloseCode.NOT_SIGNED_IN)

    async def restart_sessions(self, sessions: RevocationSubjects) -> None:
        """Close the connections whose session had a role change, so that clients reconnect with the new role."""
        self._authenticator.forget(sessions)
        self._hub.close_clients(self._revocations.ended, CloseCode.RESUME, reset(self._consumer.position))
        self._rooms.close_peers(self._revocations.ended, CloseCode.RESUME)

    async def check_notes(self, notes: RevocationSubjects) -> None:
        """Close room connections that lost access to any of the notes, and end the presence of their clients."""
        for id in notes:
            await self._rooms.recheck_access(id)
            await self._feed.recheck_access(id)
