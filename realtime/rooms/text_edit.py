"""Edits of a shared text that are part of writes to its note over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime.store.texts import new_row

if TYPE_CHECKING:
    from realtime.notes.models import NoteChange
    from realtime.rooms.contributors import TextSnapshot
    from realtime.rooms.drafts import DraftBase
    from realtime.rooms.projector import Projector
    from realtime.rooms.room import Room
    from realtime.store.texts import Row


class RoomEdit:
    """An edit of a room's text that is part of a write to its note (:meth:`Rooms.edit`)."""

    def __init__(self, room: Room, projector: Projector, snapshot: TextSnapshot, base: DraftBase) -> None:
        self.snapshot = snapshot
        """The text that the edit is based on."""
        self._room = room
        self._projector = projector
        self._base = base
        self._content = snapshot.text
        self._row: Row | None = None
        self.committed: Row | None = None
        """The update of the text that was stored, if any."""

    async def propose(self, content: str) -> Row | None:
        """Return the update that turns the snapshot into this content, or ``None`` if they are equal.

        The update preserves changes that are made to the text in the meantime.
        """
        self._content = content
        if content != self.snapshot.text:
            self._row = new_row(self._room.id, [await self._room.drafts.edit(self._base, content)])
        return self._row

    def commit(self, change: NoteChange) -> None:
        """Apply the proposed update, which was committed together with this change to the note."""
        self._room.mark_stored(change.note.version, self.snapshot.change_count)
        if self._row is not None:
            self._room.drafts.mark_stored()
            self._room.apply_committed(self._row, self._base, self._content)
            self.committed = self._row

    def abandon(self) -> None:
        """Forget the proposed update, whose outcome is unknown."""
        self._room.drafts.rotate_client_id()

    async def project(self) -> None:
        """Store the text as a version of the note now. Raises :class:`NoteNotFound` or :class:`Unavailable`."""
        await self._projector.project(self._room)
