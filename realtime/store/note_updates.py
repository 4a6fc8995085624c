"""Batched updates to notes: updates that arrive while others are in progress are sent as one command.

For an ``update`` command with several updates, MongoDB returns only how many were applied. Therefore, each update adds
a unique mark to the revision that it creates, and the notes are read afterwards. If another write changed the note in
between, the result is read from the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bson
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from realtime.errors import OutcomeUnknown, TooManyPendingRevisions, Unavailable
from realtime.store.batcher import Batcher
from realtime.store.bson_mapping import NOTE, BsonDocument
from realtime.store.connection import MongoConnection
from realtime.store.raw_connection import Command

if TYPE_CHECKING:
    from realtime.store.history import History

TOO_LARGE_CODES = {10334, 17419, 17420}
"""MongoDB's error codes for a document that would grow beyond 16 MiB."""
NOTE_WITH_MARKS = {name: False for name in NOTE if name != "recent"} | {
    f"recent.{name}": False for name in ("title", "description", "tags", "content")
}
"""The projection of a note with the marks of its unarchived revisions."""
MAX_COMMAND_BYTES = 16 * 1024 * 1024
"""Maximum size of the updates in one command, a third of MongoDB's limit for a message."""


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
        self._local = self._notes.with_options(read_concern=ReadConcern("local"))
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
        command = Command(
            {
                "findAndModify": self._notes.name,
                "query": {"_id": update.id, **update.condition},
                "update": update.pipeline,
                "new": True,
                "fields": NOTE,
            }
        )
        with self._connection.writing():
            try:
                (reply,) = await self._connection.update_connections.write(command, self._connection.write_timeout)
            except OperationFailure as error:
                if error.code in TOO_LARGE_CODES:
                    raise TooManyPendingRevisions from None
                raise
        note: BsonDocument | None = reply["value"]
        return note

    async def _apply_batch(self, updates: Sequence[NoteUpdate]) -> list[BsonDocument | Exception | None]:
        if len(updates) == 1:
            return [await self.apply_alone(updates[0])]
        results: list[BsonDocument | Exception | None] = []
        try:
            with self._connection.writing():
                for batch, encoded in _split(updates):
                    results += await self._apply_together(batch, encoded)
        except OutcomeUnknown:
            raise
        except Unavailable:  # raised by a read after the updates
            raise OutcomeUnknown from None
        return results

    async def _apply_together(
        self, updates: Sequence[NoteUpdate], encoded: Sequence[bytes]
    ) -> list[BsonDocument | Exception | None]:
        ids = [update.id for update in updates]
        find = {"find": self._notes.name, "filter": {"_id": {"$in": ids}}, "projection": NOTE_WITH_MARKS}
        find |= {"readConcern": self._local.read_concern.document, "batchSize": len(ids), "singleBatch": True}
        command = Command({"update": self._notes.name, "ordered": False}, encoded, "updates")
        write, found = await self._connection.update_connections.write(
            command, self._connection.write_timeout, Command(find)
        )
        applied = write["n"]
        failed = {
            error["index"]: TooManyPendingRevisions() if error["code"] in TOO_LARGE_CODES else OutcomeUnknown()
            for error in write.get("writeErrors", ())
        }
        notes = {note["_id"]: note for note in found.get("cursor", {}).get("firstBatch", ())}
        if len(notes) < len(ids):  # some do not exist, the reply had no space for all, or the read failed
            missing = self._local.find({"_id": {"$in": [id for id in ids if id not in notes]}}, NOTE_WITH_MARKS)
            notes |= {note["_id"]: note for note in await missing.to_list(None)}
        results: list[BsonDocument | Exception | None] = []
        for index, update in enumerate(updates):
            note = notes.get(update.id)
            is_result = note is not None and note["recent"] and note["recent"][-1].get("mark") == update.mark
            results.append(note if is_result else failed.get(index))
        unmatched_count = applied - sum(isinstance(result, dict) for result in results)
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


def _split(updates: Sequence[NoteUpdate]) -> Iterator[tuple[list[NoteUpdate], list[bytes]]]:
    """Yield the updates of each command, and their encoded form, within :data:`MAX_COMMAND_BYTES`."""
    batch: list[NoteUpdate] = []
    encoded: list[bytes] = []
    size = 0
    for update in updates:
        data = bson.encode({"q": {"_id": update.id, **update.condition}, "u": update.pipeline})
        if batch and size + len(data) > MAX_COMMAND_BYTES:
            yield batch, encoded
            batch, encoded, size = [], [], 0
        batch.append(update)
        encoded.append(data)
        size += len(data)
    yield batch, encoded
