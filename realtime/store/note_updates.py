"""Batched updates to notes: updates that arrive while others are in progress are sent as one command.

For an ``update`` command with several updates, MongoDB returns only how many were applied. Therefore, each update adds
a unique mark to the revision that it creates, and the notes are read afterwards. If another write changed the note in
between, the result is read from the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.read_concern import ReadConcern

from realtime.errors import OutcomeUnknown, TooManyPendingRevisions, Unavailable
from realtime.store.batcher import Batcher
from realtime.store.bson_mapping import NOTE, BsonDocument
from realtime.store.connection import MongoConnection

if TYPE_CHECKING:
    from realtime.store.history import History

TOO_LARGE_CODES = {10334, 17419, 17420}
"""MongoDB's error codes for a document that would grow beyond 16 MiB."""
NOTE_WITH_MARKS = {name: False for name in NOTE if name != "recent"} | {
    f"recent.{name}": False for name in ("title", "description", "tags", "content")
}
"""The projection of a note with the marks of its unarchived revisions."""


@dataclass(frozen=True, slots=True)
class NoteUpdate:
    """A conditional update of one note.

    Attributes:
        id: The id of the note.
        condition: The filter that the note must match, besides its id.
        pipeline: The update, as an aggregation pipeline.
        mark: A unique value that the pipeline stores in the revision that it creates.
    """

    id: int
    condition: BsonDocument
    pipeline: list[BsonDocument]
    mark: bytes


class UpdateBatcher(Batcher[NoteUpdate, BsonDocument | None]):
    """Batches updates to notes, with at most one update to each note in a batch."""

    def key_of(self, update: NoteUpdate) -> int:
        """Return the id of the note: two updates to it go into different batches."""
        return update.id


class NoteUpdates:
    """Applies updates to the notes of one database, acknowledged at ``w: majority, j: true``."""

    def __init__(self, connection: MongoConnection, history: History) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        # Acknowledged writes are visible at once; the majority snapshot may lag behind.
        self._async_notes = connection.async_database.notes.with_options(read_concern=ReadConcern("local"))
        self._history = history
        self._batches = UpdateBatcher(
            self._apply_batch, share=False, timeout=connection.write_timeout, error=OutcomeUnknown
        )

    async def apply(self, update: NoteUpdate) -> BsonDocument | None:
        """Apply an update that leaves a live note with a new revision, together with others if any are waiting.

        Returns:
            The updated document of the note, or ``None``, with nothing written, if it did not meet the condition.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
            TooManyPendingRevisions: The document would grow beyond 16 MiB.
        """
        return await self._batches.put(update)

    async def apply_alone(self, update: NoteUpdate) -> BsonDocument | None:
        """Apply any update in a separate command; otherwise like :meth:`apply`."""
        with self._connection.writing():
            try:
                return await self._async_notes.find_one_and_update(
                    {"_id": update.id, **update.condition}, update.pipeline, NOTE, return_document=ReturnDocument.AFTER
                )
            except OperationFailure as error:
                if error.code in TOO_LARGE_CODES:
                    raise TooManyPendingRevisions from None
                raise

    async def _apply_batch(self, updates: Sequence[NoteUpdate]) -> list[BsonDocument | Exception | None]:
        if len(updates) == 1:
            return [await self.apply_alone(updates[0])]
        try:
            with self._connection.writing():
                return await self._apply_together(updates)
        except OutcomeUnknown:
            raise
        except Unavailable:  # raised by a read after the updates
            raise OutcomeUnknown from None

    async def _apply_together(self, updates: Sequence[NoteUpdate]) -> list[BsonDocument | Exception | None]:
        operations = [UpdateOne({"_id": update.id, **update.condition}, update.pipeline) for update in updates]
        failed: dict[int, Exception] = {}
        try:
            matched_count = (await self._async_notes.bulk_write(operations, ordered=False)).matched_count
        except BulkWriteError as error:
            if error.details["writeConcernErrors"]:
                raise
            matched_count = error.details["nMatched"]
            failed = {
                item["index"]: TooManyPendingRevisions() if item["code"] in TOO_LARGE_CODES else OutcomeUnknown()
                for item in error.details["writeErrors"]
            }
        found = self._async_notes.find({"_id": {"$in": [update.id for update in updates]}}, NOTE_WITH_MARKS)
        notes = {note["_id"]: note for note in await found.to_list()}
        results: list[BsonDocument | Exception | None] = []
        for index, update in enumerate(updates):
            note = notes.get(update.id)
            is_result = note is not None and note["recent"] and note["recent"][-1].get("mark") == update.mark
            results.append(note if is_result else failed.get(index))
        unmatched_count = matched_count - sum(isinstance(result, dict) for result in results)
        for index, update in enumerate(updates):
            if unmatched_count and results[index] is None:
                results[index] = await self._result_from_history(update)
                unmatched_count -= results[index] is not None
        if unmatched_count:  # applied, but the revision is gone: it must not be reported as rejected
            results = [OutcomeUnknown() if result is None else result for result in results]
        return results

    async def _result_from_history(self, update: NoteUpdate) -> BsonDocument | None:
        """Return the note as an update left it before later writes, or ``None`` if the history has no such revision."""
        version = await self._history.version_marked(update.id, update.mark)
        revision = None if version is None else await self._history.read(update.id, version)
        note: BsonDocument | None = await self._notes.find_one({"_id": update.id}, NOTE)
        if revision is None or note is None:
            return None
        fields = {name: getattr(revision, name) for name in ("title", "description", "content", "tags", "version")}
        return {**note, **fields, "updated_date": revision.date, "deleted": False}
