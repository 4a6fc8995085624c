"""The latest events, kept at hand: most who come back are told from here what they missed, without asking Redis."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from realtime.eventlog.cursor import Cursor
    from realtime.eventlog.event import Event


class ReplayBuffer:
    """The last event of each note that changed within the last ``most`` events, of at most so many bytes in all."""

    def __init__(self, most: int = 10_000, *, most_bytes: int = 16 * 1024 * 1024) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._bytes = 0
        self.aside: dict[int, Event] = {}
        """Events that came around the log, by note, until it has them; those told last, of as many bytes."""
        self._aside_bytes = 0
        self._top: Cursor | None = None
        self._floor = 0

    def add(self, event: Event) -> None:
        """Takes the next event. If it does not follow the last one, what came before is forgotten."""
        top = self._top
        if top is None or event.cursor.epoch != top.epoch or event.cursor.offset != top.offset + 1:
            self._events.clear()
            self._bytes = 0
            self._floor = event.cursor.offset - 1
        self._top = event.cursor
        self._forget_aside(event.id)
        earlier = self._events.pop(event.id, None)
        if earlier is not None:
            self._bytes -= earlier.full.size
        self._events[event.id] = event
        self._bytes += event.full.size
        self._floor = max(self._floor, event.cursor.offset - self._most)
        while self._events:
            oldest = next(iter(self._events.values()))
            if self._bytes <= self._most_bytes and oldest.cursor.offset > self._floor:
                break
            del self._events[oldest.id]
            self._bytes -= oldest.full.size
            self._floor = max(self._floor, oldest.cursor.offset)

    def add_unlogged(self, event: Event) -> None:
        """Takes an event that the log does not have."""
        self._forget_aside(event.id)
        self.aside[event.id] = event
        self._aside_bytes += event.full.size
        while self._aside_bytes > self._most_bytes:
            self._forget_aside(next(iter(self.aside)))

    def clear_unlogged(self) -> None:
        """Drop the events that are not in the log. Clients are reset, and fetch the notes again."""
        self.aside.clear()
        self._aside_bytes = 0

    def _forget_aside(self, id: int) -> None:
        if (event := self.aside.pop(id, None)) is not None:
            self._aside_bytes -= event.full.size

    def between(self, since: Cursor, position: Cursor) -> list[Event] | None:
        """The last event of each note after a cursor and up to a position, in order; ``None`` if not all are here."""
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
