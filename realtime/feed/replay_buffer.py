"""Keeps the latest events in memory, so that most clients that resume get their missed events without Redis."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.eventlog.cursor import Cursor
    from realtime.eventlog.event import Event


class ReplayBuffer:
    """Holds the last event of each note that changed recently.

    Args:
        max_events: Number of log positions that the buffer reaches back.
        max_bytes: Maximum total size of the events. Events that are not in the log have a separate budget of the same
            size.
    """

    def __init__(self, max_events: int = 10_000, *, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._bytes = 0
        self.unlogged: dict[int, Event] = {}
        """Events that came from MongoDB while Redis was unavailable, by note id, until they are in the log."""
        self._unlogged_bytes = 0
        self._top: Cursor | None = None
        self._floor = 0

    def add(self, event: Event) -> None:
        """Add the next event of the log. If it does not follow the last one, drop all earlier events."""
        top = self._top
        if top is None or event.cursor.epoch != top.epoch or event.cursor.offset != top.offset + 1:
            self._events.clear()
            self._bytes = 0
            self._floor = event.cursor.offset - 1
        self._top = event.cursor
        self._drop_unlogged(event.id)
        earlier = self._events.pop(event.id, None)
        if earlier is not None:
            self._bytes -= earlier.full.size
        self._events[event.id] = event
        self._bytes += event.full.size
        self._floor = max(self._floor, event.cursor.offset - self._max_events)
        while self._events:
            oldest = next(iter(self._events.values()))
            if self._bytes <= self._max_bytes and oldest.cursor.offset > self._floor:
                break
            del self._events[oldest.id]
            self._bytes -= oldest.full.size
            self._floor = max(self._floor, oldest.cursor.offset)

    def add_unlogged(self, event: Event) -> None:
        """Add an event that is not in the log. Above the size limit, drop the oldest of these events."""
        self._drop_unlogged(event.id)
        self.unlogged[event.id] = event
        self._unlogged_bytes += event.full.size
        while self._unlogged_bytes > self._max_bytes:
            self._drop_unlogged(next(iter(self.unlogged)))

    def clear_unlogged(self) -> None:
        """Drop the events that are not in the log. Clients are reset, and fetch the notes again."""
        self.unlogged.clear()
        self._unlogged_bytes = 0

    def _drop_unlogged(self, id: int) -> None:
        if (event := self.unlogged.pop(id, None)) is not None:
            self._unlogged_bytes -= event.full.size

    def between(self, since: Cursor, position: Cursor) -> list[Event] | None:
        """Return the last event of each note after ``since`` and up to ``position``, in log order.

        Returns ``None`` if some of these events are not in the buffer.
        """
        if since == position:
            return []
        if self._top != position or since.epoch != position.epoch or since.offset < self._floor:
            return None
        missed: list[Event] = []
        for event in reversed(self._events.values()):
            if event.cursor.offset <= since.offset:
                break
            missed.append(event)
        missed.reverse()
        return missed
