"""Moves revisions and edits out of the note document, where the write committed them, and clears the outbox flag."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pymongo import UpdateOne

from realtime.failpoints import OFF, FailPoints
from realtime.store.bson_mapping import BsonDocument
from realtime.store.connection import MAJORITY_WRITE_CONCERN, PRIMARY_WRITE_CONCERN, MongoConnection

if TYPE_CHECKING:
    from realtime.store.history import History
    from realtime.store.texts import TextStore

BATCH_NOTES = 50
MOVED_FIELDS = {"version": True, "recent": True, "keyframe": True, "edits": True, "purged": True}


class Archiver:
    """Moves the revisions of notes to the history, and their edits to the journal."""

    def __init__(
        self, connection: MongoConnection, history: History, texts: TextStore, failpoints: FailPoints = OFF
    ) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._history = history
        self._texts = texts
        self._failpoints = failpoints

    async def archive(self, ids: Collection[int], published: Mapping[int, int] | None = None) -> None:
        """Archive the revisions and edits of these notes, and delete the archived data of purged notes.

        The operation is idempotent, and several workers may perform it concurrently.

        Args:
            ids: The ids of the notes.
            published: Further notes, by id, with the version that was published. Their ``dirty`` flag is cleared if
                they are still at that version.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        published = published or {}
        pending = sorted({*ids, *published})
        for start in range(0, len(pending), BATCH_NOTES):
            with self._connection.reading(self._connection.write_timeout):
                batch = {"_id": {"$in": pending[start : start + BATCH_NOTES]}}
                await self._move(await self._notes.find(batch, MOVED_FIELDS).to_list(None), published)

    async def _move(self, notes: Sequence[BsonDocument], published: Mapping[int, int]) -> None:
        purged = [note["_id"] for note in notes if "purged" in note]
        if purged:
            await self._history.forget(purged)
        await self._texts.fold(notes)
        keyframes = await self._history.archive([note for note in notes if note.get("recent")])
        await self._failpoints.hit("after_archive_before_clear")
        updates = [
            UpdateOne(*update)
            for note in notes
            if (update := _cleanup(note, keyframes.get(note["_id"]), published.get(note["_id"])))
        ]
        if not updates:
            return
        # A lost removal of an edit that is already in a snapshot would store the edit a second time.
        concern = MAJORITY_WRITE_CONCERN if any(note.get("edits") for note in notes) else PRIMARY_WRITE_CONCERN
        result = await self._notes.with_options(write_concern=concern).bulk_write(updates, ordered=False)
        if result.matched_count < len(updates):
            # A note that was purged during the move must not leave revisions in the history.
            ids = [note["_id"] for note in notes]
            condition = {"_id": {"$in": ids}, "purged": {"$exists": True}}
            purged_since = await self._notes.find(condition, {"_id": True}).to_list(None)
            if purged_since:
                await self._history.forget([note["_id"] for note in purged_since])


def _cleanup(
    note: BsonDocument, keyframe: int | None, published: int | None
) -> tuple[BsonDocument, BsonDocument] | None:
    """Return the update that removes archived data from a note, as condition and change, or ``None``."""
    condition: BsonDocument = {"_id": note["_id"]}
    change: BsonDocument = {}
    pull: BsonDocument = {}
    if note.get("recent"):
        pull["recent"] = {"version": {"$lte": note["recent"][-1]["version"]}}
    if note.get("edits"):
        pull["edits"] = {"_id": {"$in": [edit["_id"] for edit in note["edits"]]}}
    if pull:
        change["$pull"] = pull
    if keyframe is not None:
        # The keyframe never moves backwards: concurrent archivers would store differences to different keyframes.
        change["$max"] = {"keyframe": keyframe}
    if published == note["version"]:
        # A newer version has another revision; the outbox archives it after publishing that version.
        condition["version"] = published
        change["$unset"] = {"dirty": ""}
    elif "purged" not in note:
        condition["purged"] = {"$exists": False}
    return (condition, change) if change else None
