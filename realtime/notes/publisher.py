"""Publishes committed changes to notes, and records them in the metrics and in the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.auth.audit import NoteAudit
    from realtime.auth.permissions import Principal
    from realtime.eventlog.outbox import Outbox
    from realtime.metrics import Metrics
    from realtime.notes.models import NoteChange


class ChangePublisher:
    """Publishes the changes that this worker committed. ``audit`` is ``None`` on servers without accounts."""

    def __init__(self, outbox: Outbox, metrics: Metrics, audit: NoteAudit | None = None) -> None:
        self._outbox = outbox
        self._metrics = metrics
        self._audit = audit

    async def publish(
        self, action: str, change: NoteChange, authors: Iterable[str | None], principal: Principal | None = None
    ) -> None:
        """Publish a committed change.

        Args:
            action: The name of the write.
            change: The committed state.
            authors: The names of the users who made the change; ``None`` for a guest.
            principal: The caller; ``None`` if a worker stored typed text.
        """
        self._metrics.writes.labels(action).inc()
        if self._audit is not None:
            for name in authors:
                self._audit.add(action, name, principal, change)
        await self._outbox.publish(change)
