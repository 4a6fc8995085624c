"""What notes hold only until it is archived: their last revisions and edits, and the mark of an unpublished change."""

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

BATCH = 50
HELD = {"version": True, "recent": True, "keyframe": True, "edits": True, "purged": True}


class Archiver:
    """Moves what notes hold to where it stays."""

    def __init__(
        self, connection: MongoConnection, history: History, texts: TextStore, failpoints: FailPoints = OFF
    ) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._history = history
        self._texts = texts
        self._failpoints = failpoints

    async def archive(self, ids: Collection[int], published: Mapping[int, int] | None = None) -> None:
        """Archives the revisions and edits that these notes hold; of purged notes, deletes what is archived.

        Those ``published`` that still are at these versions lose the mark. May be repeated, and done by several at
        once. Raises :class:`Unavailable`.
        """
        published = published or {}
        waiting = sorted({*ids, *published})
        for start in range(0, len(waiting), BATCH):
            with self._connection.reading(self._connection.write_timeout):
                some = {"_id": {"$in": waiting[start : start + BATCH]}}
                await self._move(await self._notes.find(some, HELD).to_list(None), published)

    async def _move(self, notes: Sequence[BsonDocument], published: Mapping[int, int]) -> None:
        purged = [note["_id"] for note in notes if "purged" in note]
        if purged:
            await self._history.forget(purged)
        await self._texts.fold(notes)
        keyframes = await self._history.archive([note for note in notes if note.get("recent")])
        await self._failpoints.hit("after_archive_before_clear")
        tidy = [
            UpdateOne(*update)
            for note in notes
            if (update := _tidied(note, keyframes.get(note["_id"]), published.get(note["_id"])))
        ]
        if not tidy:
            return
        # An edit that is seen in the note after it went into a snapshot would be folded once more.
        concern = MAJORITY_WRITE_CONCERN if any(note.get("edits") for note in notes) else PRIMARY_WRITE_CONCERN
        done = await self._notes.with_options(write_concern=concern).bulk_write(tidy, ordered=False)
        if done.matched_count < len(tidy):
            ids = [note["_id"] for note in notes]
            condition = {"_id": {"$in": ids}, "purged": {"$exists": True}}
            gone = await self._notes.find(condition, {"_id": True}).to_list(None)
            if gone:  # purged meanwhile
                await self._history.forget([note["_id"] for note in gone])


def _tidied(
    note: BsonDocument, keyframe: int | None, published: int | None
) -> tuple[BsonDocument, BsonDocument] | None:
    """The update that takes from a note what is archived, as condition and change; ``None`` if there is nothing."""
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
        # Never backwards: two at once would then store differences to different keyframes.
        change["$max"] = {"keyframe": keyframe}
    if published == note["version"]:
        # If it moved on, whoever did that tidies up: it holds a revision more.
        condition["version"] = published
        change["$unset"] = {"dirty": ""}
    elif "purged" not in note:
        condition["purged"] = {"$exists": False}
    return (condition, change) if change else None
