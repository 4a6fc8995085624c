"""Storage of shared texts: the journal of their updates, and snapshots.

A shared text is created once. Its first update, the genesis, is created from the note's content and stored under a new
lineage; a compare-and-set then sets ``lineage`` in the note, so that exactly one of several concurrent attempts
succeeds. Updates made over REST are first stored in the note (``edits``), in the atomic update of their write. The
archiver moves them to journal rows (collection ``updates``), where updates from rooms are stored directly. Compaction
merges rows into the snapshot (collection ``texts``). Reads follow the same order: an update that is moved between reads
is seen twice rather than missed.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId
from pymongo import ASCENDING

from realtime.failpoints import OFF, FailPoints
from realtime.notes.models import Note
from realtime.store.bson_mapping import LIVE, BsonDocument, note_of
from realtime.store.connection import MongoConnection, insert_missing


@dataclass(frozen=True, slots=True)
class Row:
    """A journal row: updates of a text that were stored together, and the names of their authors."""

    id: str
    note: int
    updates: Sequence[bytes]
    authors: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StoredText:
    """A note and its stored text.

    Attributes:
        note: The note.
        lineage: The name of the text, or ``None`` if the note has none yet.
        generation: The generation of the snapshot.
        snapshot: The snapshot, or ``None`` if the caller has this generation.
        pieces: The number of pieces in the snapshot if all of them are in the text; ``None`` if some are pending.
        rows: Journal rows that the caller does not have and that the snapshot may not include.
        edited: The id of the row of the last edit made over REST.
    """

    note: Note
    lineage: str | None
    generation: int
    snapshot: bytes | None
    rows: Sequence[Row]
    edited: str | None
    pieces: int | None = None


def new_row(note: int, updates: Sequence[bytes], authors: Sequence[str] = ()) -> Row:
    """Return a row with a new, unique id."""
    return Row(str(ObjectId()), note, updates, authors)


class TextStore:
    """Reads and writes the shared texts of one database."""

    def __init__(self, connection: MongoConnection, failpoints: FailPoints = OFF) -> None:
        self._connection = connection
        self._failpoints = failpoints
        self._notes = connection.database.notes
        self._texts = connection.database.texts
        self._rows = connection.database.updates
        self._async_rows = connection.async_database.updates

    async def prepare(self) -> None:
        """Create the indexes."""
        await self._rows.create_index([("note", ASCENDING), ("_id", ASCENDING)], name="note")
        await self._texts.create_index([("note", ASCENDING), ("generation", ASCENDING)], name="note")

    async def read(self, id: int, *, known: Collection[str] = (), generation: int | None = None) -> StoredText | None:
        """Return a live note and its text, or ``None`` if there is no such note.

        Args:
            id: The id of the note.
            known: The ids of rows to leave out.
            generation: The generation of the snapshot that the caller has; it is not read again.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        with self._connection.reading():
            document = await self._notes.find_one(
                {"_id": id, **LIVE}, {"recent": False, "operations": False, "words": False}
            )
            if document is None:
                return None
            lineage = document.get("lineage")
            if lineage is None:
                return StoredText(note_of(document), None, 0, None, (), None)
            unknown = {"note": id, **({"_id": {"$nin": list(known)}} if known else {})}
            rows = [_row(row) for row in await self._rows.find(unknown).to_list(None)]
            rows += [_row({**edit, "note": id}) for edit in document.get("edits", ()) if edit["_id"] not in known]
            newer = {"_id": lineage, **({} if generation is None else {"generation": {"$ne": generation}})}
            text = await self._texts.find_one(newer)
        snapshot = None if text is None else bytes(text["state"])
        generation = generation or 0 if text is None else text["generation"]
        # Older servers replace the snapshot without counting its pieces.
        pieces = None if text is None or text.get("counted") != text["generation"] else text["pieces"]
        return StoredText(note_of(document), lineage, generation, snapshot, rows, document.get("edited"), pieces)

    async def begin(self, id: int, version: int, genesis: bytes) -> None:
        """Create the shared text of a note, unless the note changed since ``version`` or already has one.

        Raises :class:`OutcomeUnknown`.
        """
        lineage = uuid.uuid4().hex
        with self._connection.writing():
            await self._texts.insert_one({"_id": lineage, "note": id, "generation": 0, "state": genesis})
            await self._failpoints.hit("after_genesis_before_lineage")
            result = await self._notes.update_one(
                {"_id": id, "version": version, "lineage": {"$exists": False}, **LIVE}, {"$set": {"lineage": lineage}}
            )
            if result.modified_count == 0:
                await self._texts.delete_one({"_id": lineage})

    async def journal(self, rows: Sequence[Row]) -> None:
        """Store journal rows in one command. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._async_rows.insert_many([_document(row) for row in rows], ordered=False)
        await self._failpoints.hit("after_journal_before_spread")

    async def fold(self, notes: Iterable[BsonDocument]) -> None:
        """Copy the edits in these documents of notes to journal rows."""
        rows = [{**edit, "note": note["_id"]} for note in notes for edit in note.get("edits", ())]
        if rows:
            await insert_missing(self._rows, rows)

    async def compact(
        self, lineage: str, generation: int, state: bytes, rows: Collection[str], pieces: int | None = None
    ) -> bool:
        """Replace the snapshot of a text with one that includes these rows, and delete the rows.

        Args:
            lineage: The name of the text.
            generation: The generation of the snapshot to replace.
            state: The new snapshot.
            rows: The ids of the rows that the new snapshot includes.
            pieces: The number of pieces in the new snapshot, or ``None`` if some are pending.

        Returns:
            Whether the snapshot was replaced. It is not, and no row is deleted, if its generation has changed.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
        """
        with self._connection.writing():
            result = await self._texts.update_one(
                {"_id": lineage, "generation": generation},
                {"$set": {"state": state, "pieces": pieces, "counted": generation + 1}, "$inc": {"generation": 1}},
            )
            if result.modified_count == 0:
                return False
            await self._failpoints.hit("after_snapshot_before_rows")
            await self._rows.delete_many({"_id": {"$in": list(rows)}})
        await self._failpoints.hit("after_compaction")
        return True

    async def journaled(self, ids: Collection[int]) -> tuple[set[int], dict[int, int], dict[int, set[str]]]:
        """Return the stored state of the texts of these notes.

        Returns:
            The ids of the live notes, the generations of the snapshots, and the ids of the journal rows.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        of_notes = {"note": {"$in": list(ids)}}
        rows: dict[int, set[str]] = {}
        with self._connection.reading():
            # Read the rows first: compaction moves them into the snapshot.
            for row in await self._rows.find(of_notes, {"note": True}).to_list(None):
                rows.setdefault(row["note"], set()).add(row["_id"])
            texts = await self._texts.find(of_notes, {"_id": False, "note": True, "generation": True}).to_list(None)
            notes = await self._notes.find({"_id": of_notes["note"], **LIVE}, {"_id": True}).to_list(None)
        generations: dict[int, int] = {}
        for text in texts:
            # If two workers create the text concurrently, the unused one has generation 0 until it is deleted.
            generations[text["note"]] = max(text["generation"], generations.get(text["note"], 0))
        return {note["_id"] for note in notes}, generations, rows

    async def unfinished(self, after: int, limit: int) -> Mapping[int, str]:
        """Return notes with journal rows, in the order of their ids.

        Args:
            after: Only notes with greater ids are returned.
            limit: The maximum number of notes.

        Returns:
            By note id, a value that changes whenever the rows of the note change.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        with self._connection.reading():
            groups = self._rows.aggregate(
                [
                    {"$match": {"note": {"$gt": after}}},
                    {"$group": {"_id": "$note", "last": {"$max": "$_id"}, "count": {"$sum": 1}}},
                    {"$sort": {"_id": ASCENDING}},
                    {"$limit": limit},
                ]
            )
            return {group["_id"]: f"{group['last']}:{group['count']}" for group in await groups.to_list(None)}

    async def purged(self, after: int, limit: int) -> tuple[set[int], int | None]:
        """Find purged notes whose shared texts are not completely deleted.

        Args:
            after: Only notes with greater ids are examined.
            limit: The maximum number of rows and of snapshots to examine.

        Returns:
            The ids of the purged notes, and the ``after`` of the next call; ``None`` at the end.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        with self._connection.reading():
            query = {"note": {"$gt": after}}, {"_id": False, "note": True}
            ends = []
            ids: set[int] = set()
            for collection in (self._rows, self._texts):
                documents = await collection.find(*query).sort("note").limit(limit).to_list(None)
                ids.update(document["note"] for document in documents)
                if len(documents) == limit:
                    ends.append(documents[-1]["note"])
            end = min(ends, default=None)
            if end is not None:
                ids = {id for id in ids if id <= end}
            not_purged = {"_id": {"$in": list(ids)}, "purged": {"$exists": False}}
            notes = await self._notes.find(not_purged, {"_id": True}).to_list(None)
        return ids - {note["_id"] for note in notes}, end

    async def forget(self, ids: Iterable[int]) -> None:
        """Delete the journal rows and snapshots of these notes. Raises :class:`Unavailable`."""
        with self._connection.reading(self._connection.write_timeout):
            of_notes = {"note": {"$in": list(ids)}}
            await self._rows.delete_many(of_notes)
            await self._texts.delete_many(of_notes)


def edit_of(row: Row) -> BsonDocument:
    """Return a row as it is stored in ``edits`` of a note."""
    document = _document(row)
    del document["note"]
    return document


def _document(row: Row) -> BsonDocument:
    return {"_id": row.id, "note": row.note, "updates": list(row.updates), "people": list(row.authors)}


def _row(document: Mapping[str, Any]) -> Row:
    updates = [bytes(update) for update in document["updates"]]
    return Row(document["_id"], document["note"], updates, document["people"])
