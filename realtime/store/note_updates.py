"""Updates of notes: one alone is one command, and those that come while others are under way go together.

Of many, MongoDB tells only how many applied. So each leaves its mark in the revision that it makes, and the notes are
read afterwards. If another worker overtook one meanwhile, what it left is read from the history.
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

TOO_LARGE = {10334, 17419, 17420}
"""MongoDB's codes for a document that would grow beyond 16 MiB."""
MARKED = {name: False for name in NOTE if name != "recent"} | {
    f"recent.{name}": False for name in ("title", "description", "tags", "content")
}
"""The projection to a note and the marks of its last revisions."""
COMMAND_BYTES = 16 * 1024 * 1024
"""Of updates that go together; MongoDB takes three times as much."""


@dataclass(frozen=True, slots=True)
class NoteUpdate:
    """An update of the note with this id, if it meets a condition. The revision that it makes has the mark."""

    id: int
    condition: BsonDocument
    pipeline: list[BsonDocument]
    mark: bytes


class NoteUpdates:
    """The updates of the notes of one database, acknowledged at ``w: majority, j: true``."""

    def __init__(self, connection: MongoConnection, history: History) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        # What was just acknowledged is there, though a majority's snapshot may be behind.
        self._local = self._notes.with_options(read_concern=ReadConcern("local"))
        self._history = history
        self._batches = Batcher(
            self._apply, lambda one: one.id, share=False, timeout=connection.write_timeout, error=OutcomeUnknown
        )

    async def put(self, update: NoteUpdate) -> BsonDocument | None:
        """The live note as the update left it; ``None``, with nothing written, if it does not meet the condition.

        Raises :class:`OutcomeUnknown`, :class:`TooManyPendingRevisions`.
        """
        return await self._batches.put(update)

    async def alone(self, update: NoteUpdate) -> BsonDocument | None:
        """As :meth:`put`, by a command of its own: for what does not leave a live note with a revision."""
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
                (answer,) = await self._connection.lines.write(command, self._connection.write_timeout)
            except OperationFailure as error:
                if error.code in TOO_LARGE:
                    raise TooManyPendingRevisions from None
                raise
        note: BsonDocument | None = answer["value"]
        return note

    async def _apply(self, updates: Sequence[NoteUpdate]) -> list[BsonDocument | Exception | None]:
        if len(updates) == 1:
            return [await self.alone(updates[0])]
        left: list[BsonDocument | Exception | None] = []
        try:
            with self._connection.writing():
                for some, encoded in _commands(updates):
                    left += await self._together(some, encoded)
        except OutcomeUnknown:
            raise
        except Unavailable:  # of what was read after the updates
            raise OutcomeUnknown from None
        return left

    async def _together(
        self, updates: Sequence[NoteUpdate], encoded: Sequence[bytes]
    ) -> list[BsonDocument | Exception | None]:
        failed: dict[int, Exception] = {}
        ids = [one.id for one in updates]
        wanted = {"find": self._notes.name, "filter": {"_id": {"$in": ids}}, "projection": MARKED}
        wanted |= {"readConcern": self._local.read_concern.document, "batchSize": len(ids), "singleBatch": True}
        command = Command({"update": self._notes.name, "ordered": False}, encoded, "updates")
        done, found = await self._connection.lines.write(command, self._connection.write_timeout, Command(wanted))
        applied = done["n"]
        for one in done.get("writeErrors", ()):
            failed[one["index"]] = TooManyPendingRevisions() if one["code"] in TOO_LARGE else OutcomeUnknown()
        notes = {note["_id"]: note for note in found.get("cursor", {}).get("firstBatch", ())}
        if len(notes) < len(ids):  # some are not there, or all are more than an answer holds, or it failed
            rest = self._local.find({"_id": {"$in": [id for id in ids if id not in notes]}}, MARKED)
            notes |= {note["_id"]: note for note in await rest.to_list(None)}
        left: list[BsonDocument | Exception | None] = []
        for number, one in enumerate(updates):
            note = notes.get(one.id)
            ours = note is not None and note["recent"] and note["recent"][-1].get("mark") == one.mark
            left.append(note if ours else failed.get(number))
        overtaken = applied - sum(isinstance(one, dict) for one in left)
        for number, one in enumerate(updates):
            if overtaken and left[number] is None:
                left[number] = await self._left(one)
                overtaken -= left[number] is not None
        if overtaken:  # one of the rest was applied, and its revision is gone: nobody may take it for refused
            left = [OutcomeUnknown() if one is None else one for one in left]
        return left

    async def _left(self, update: NoteUpdate) -> BsonDocument | None:
        """The note as an update left it that others overtook, as far as the history tells; ``None`` if it did not."""
        version = await self._history.marked(update.id, update.mark)
        revision = None if version is None else await self._history.read(update.id, version)
        note: BsonDocument | None = await self._notes.find_one({"_id": update.id}, NOTE)
        if revision is None or note is None:
            return None
        fields = {name: getattr(revision, name) for name in ("title", "description", "content", "tags", "version")}
        return {**note, **fields, "updated_date": revision.date, "deleted": False}


def _commands(updates: Sequence[NoteUpdate]) -> Iterator[tuple[list[NoteUpdate], list[bytes]]]:
    """Updates with what they are in a command, as many at a time as one holds."""
    some: list[NoteUpdate] = []
    encoded: list[bytes] = []
    size = 0
    for one in updates:
        data = bson.encode({"q": {"_id": one.id, **one.condition}, "u": one.pipeline})
        if some and size + len(data) > COMMAND_BYTES:
            yield some, encoded
            some, encoded, size = [], [], 0
        some.append(one)
        encoded.append(data)
        size += len(data)
    yield some, encoded
