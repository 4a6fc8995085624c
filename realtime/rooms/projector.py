"""Writes the shared texts of rooms to their notes. Text that is typed within a short time becomes one version."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Protocol

from realtime.errors import NoteNotFound, TooManyPendingRevisions, TooManyWrites, Unavailable
from realtime.store.notes import RevisionInfo, SharedTextChange

if TYPE_CHECKING:
    from realtime.notes.publisher import ChangePublisher
    from realtime.rooms.contributors import TextSnapshot
    from realtime.store.bson_mapping import Record
    from realtime.store.database import Store

DELAY_SECONDS = (0.6, 0.8)
"""Range of the delay before changes made at this worker are written to the note."""
REMOTE_DELAY_SECONDS = (2.0, 3.0)
"""Range of the delay before this worker writes changes made at another worker, unless that worker writes them first."""
DELAY_PER_READ = 200
"""Minimum delay in multiples of the time that it takes to read the text, so that large texts do not use up a worker."""
TIMEOUT_SECONDS = 15.0
"""The time for which a projection is retried after concurrent writes to its note.

Equal to ``APPLY_TIMEOUT_SECONDS`` of :mod:`realtime.notes.executor`, which limits the retries of other writes.
"""


class ProjectedText(Protocol):
    """A shared text that is written to a note."""

    id: int
    closed: bool
    read_seconds: float
    """The processing time of the last :meth:`snapshot`."""

    async def snapshot(self, record: Record) -> TextSnapshot:
        """Return the text once it is durable and includes every change in this record of the note."""

    def mark_stored(self, version: int, change_count: int) -> None:
        """Record that a version of the note has the first ``change_count`` changes, and names their authors."""


class Projector:
    """Writes shared texts to their notes, and keeps the schedule of when each is due."""

    def __init__(self, store: Store, publisher: ChangePublisher) -> None:
        self._store = store
        self._publisher = publisher
        self._due: dict[ProjectedText, float] = {}

    def schedule(self, text: ProjectedText, *, remote: bool = False) -> None:
        """Write a text to its note after a short random delay, or a longer one if another worker should do it first."""
        delay = random.uniform(*(REMOTE_DELAY_SECONDS if remote else DELAY_SECONDS))
        due = time.monotonic() + max(delay, DELAY_PER_READ * text.read_seconds)
        if not text.closed:
            self._due[text] = min(due, self._due.get(text, due))

    def is_scheduled(self, text: ProjectedText) -> bool:
        """Return whether a text is scheduled to be written to its note."""
        return text in self._due

    def is_due(self, text: ProjectedText, now: float) -> bool:
        """Return whether a text should be written to its note now."""
        return self._due.get(text, now + 1) <= now

    def forget(self, text: ProjectedText) -> None:
        """Remove a text from the schedule."""
        self._due.pop(text, None)

    async def project(self, text: ProjectedText) -> None:
        """Write a text to its note, as one version that names the users who typed it.

        Raises:
            NoteNotFound: The note was deleted.
            Unavailable: The database is unavailable, or concurrent writes prevented this write for too long.
        """
        self.forget(text)
        try:
            version, change_count = await self._store_text(text)
        except Unavailable:
            self.schedule(text)
            raise
        self.forget(text)
        text.mark_stored(version, change_count)

    async def _store_text(self, text: ProjectedText) -> tuple[int, int]:
        """Store the text as a version, unless the note already has it.

        Returns:
            The version, and the number of changes in the text.
        """
        started = time.monotonic()
        while time.monotonic() - started < TIMEOUT_SECONDS:
            record = await self._store.notes.find(text.id)
            if record is None or record.deleted:
                raise NoteNotFound
            # The text is read after the note, so that it includes everything that the note has.
            content, change_count, authors = await text.snapshot(record)
            version = record.note.version
            if content != record.note.content:
                revision = RevisionInfo("type", details={"authors": list(authors)})
                text_change = SharedTextChange(record.lineage)
                try:
                    change = await self._store.notes.update(
                        text.id, {"content": content}, {version}, None, revision, text_change
                    )
                except TooManyPendingRevisions:
                    await self._store.archiver.archive({text.id})
                    continue
                if change is None:
                    continue
                version = change.note.version
                await self._publisher.publish("type", change, authors)
            return version, change_count
        raise TooManyWrites
