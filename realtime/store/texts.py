"""Shared texts: the journal of their updates, and what these are folded into.

A text comes to be once: its first update, made of the note's content, is stored under a name of its own, and the note
names it (``lineage``) in one compare-and-set; of several that try, one wins, and it is never made again. From then on
its updates go from the note (``edits``, those that came in over REST, in the commit of their write) to rows of their
own (collection ``updates``), and from there into the snapshot (collection ``texts``). Reads follow the same way, so
that what moves meanwhile is seen twice, and not missed.
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
from realtime.store.connection import MongoConnection, insert_again


@dataclass(frozen=True, slots=True)
class Row:
    """Updates of a text that were journaled together, and the names of those who made them."""

    id: str
    note: int
    updates: Sequence[bytes]
    people: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StoredText:
    """What is stored of a text: its snapshot at a generation, if that was asked for, and rows that it does not hold."""

    note: Note
    lineage: str | None
    generation: int
    snapshot: bytes | None
    rows: Sequence[Row]
    edited: str | None
    """The row of the last edit that came in over REST."""


def new_row(note: int, updates: Sequence[bytes], people: Sequence[str] = ()) -> Row:
    """A row under a name that no other has."""
    return Row(str(ObjectId()), note, updates, people)


class TextStore:
    """The shared texts of one database."""

    def __init__(self, connection: MongoConnection, failpoints: FailPoints = OFF) -> None:
        self._connection = connection
        self._failpoints = failpoints
        self._notes = connection.database.notes
        self._texts = connection.database.texts
        self._rows = connection.database.updates

    async def prepare(self) -> None:
        """Makes the indexes."""
        await self._rows.create_index([("note", ASCENDING), ("_id", ASCENDING)], name="note")
        await self._texts.create_index([("note", ASCENDING), ("generation", ASCENDING)], name="note")

    async def read(self, id: int, *, known: Collection[str] = (), generation: int | None = None) -> StoredText | None:
        """A live note and its text: the rows that are not known, and the snapshot if it is of another generation.

        ``None`` if there is no such note. Raises :class:`Unavailable`.
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
            wanted = {"note": id, **({"_id": {"$nin": list(known)}} if known else {})}
            rows = [_row(row) for row in await self._rows.find(wanted).to_list(None)]
            rows += [_row({**edit, "note": id}) for edit in document.get("edits", ()) if edit["_id"] not in known]
            newer = {"_id": lineage, **({} if generation is None else {"generation": {"$ne": generation}})}
            text = await self._texts.find_one(newer)
        snapshot = None if text is None else bytes(text["state"])
        at = generation or 0 if text is None else text["generation"]
        return StoredText(note_of(document), lineage, at, snapshot, rows, document.get("edited"))

    async def begin(self, id: int, version: int, genesis: bytes) -> None:
        """Makes the first update of a note's text, unless the note moved on or has one.

        Raises :class:`OutcomeUnknown`.
        """
        lineage = uuid.uuid4().hex
        with self._connection.writing():
            await self._texts.insert_one({"_id": lineage, "note": id, "generation": 0, "state": genesis})
            await self._failpoints.hit("after_genesis_before_lineage")
            won = await self._notes.update_one(
                {"_id": id, "version": version, "lineage": {"$exists": False}, **LIVE}, {"$set": {"lineage": lineage}}
            )
            if won.modified_count == 0:
                await self._texts.delete_one({"_id": lineage})

    async def journal(self, rows: Sequence[Row]) -> None:
        """Stores rows, all in one command. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            documents = [_document(row) for row in rows]
            await self._connection.line.insert(self._rows.name, documents, self._connection.write_timeout)
        await self._failpoints.hit("after_journal_before_spread")

    async def fold(self, notes: Iterable[BsonDocument]) -> None:
        """Keeps the edits that these documents of notes hold."""
        rows = [{**edit, "note": note["_id"]} for note in notes for edit in note.get("edits", ())]
        if rows:
            await insert_again(self._rows, rows)

    async def compact(self, lineage: str, generation: int, state: bytes, rows: Collection[str]) -> bool:
        """Replaces the snapshot of a generation by one that holds these rows, too, and deletes exactly these.

        False, with nothing done, if it is of another generation by now. Raises :class:`OutcomeUnknown`.
        """
        with self._connection.writing():
            done = await self._texts.update_one(
                {"_id": lineage, "generation": generation}, {"$set": {"state": state}, "$inc": {"generation": 1}}
            )
            if done.modified_count == 0:
                return False
            await self._failpoints.hit("after_snapshot_before_rows")
            await self._rows.delete_many({"_id": {"$in": list(rows)}})
        await self._failpoints.hit("after_compaction")
        return True

    async def journaled(self, ids: Collection[int]) -> tuple[set[int], dict[int, int], dict[int, set[str]]]:
        """Which of these notes are live, the generations of their snapshots, and their rows.

        Raises :class:`Unavailable`.
        """
        of = {"note": {"$in": list(ids)}}
        rows: dict[int, set[str]] = {}
        with self._connection.reading():
            # The rows first: they go from here into the snapshot.
            for row in await self._rows.find(of, {"note": True}).to_list(None):
                rows.setdefault(row["note"], set()).add(row["_id"])
            texts = await self._texts.find(of, {"_id": False, "note": True, "generation": True}).to_list(None)
            notes = await self._notes.find({"_id": of["note"], **LIVE}, {"_id": True}).to_list(None)
        generations: dict[int, int] = {}
        for text in texts:
            # One that lost against another has generation 0 until it is deleted.
            generations[text["note"]] = max(text["generation"], generations.get(text["note"], 0))
        return {note["_id"] for note in notes}, generations, rows

    async def unfinished(self, after: int, most: int) -> Mapping[int, str]:
        """The next notes with rows, by their ids, and the last row of each. Raises :class:`Unavailable`."""
        with self._connection.reading():
            found = self._rows.aggregate(
                [
                    {"$match": {"note": {"$gt": after}}},
                    {"$group": {"_id": "$note", "last": {"$max": "$_id"}, "many": {"$sum": 1}}},
                    {"$sort": {"_id": ASCENDING}},
                    {"$limit": most},
                ]
            )
            return {note["_id"]: f"{note['last']}:{note['many']}" for note in await found.to_list(None)}

    async def purged(self, after: int, most: int) -> tuple[set[int], int | None]:
        """Which of the next notes with something stored of their texts are purged, and after which to go on, if at all.

        Raises :class:`Unavailable`.
        """
        with self._connection.reading():
            of = {"note": {"$gt": after}}, {"_id": False, "note": True}
            ends = []
            ids: set[int] = set()
            for stored in (self._rows, self._texts):
                found = [one["note"] for one in await stored.find(*of).sort("note").limit(most).to_list(None)]
                ids.update(found)
                if len(found) == most:
                    ends.append(found[-1])
            end = min(ends, default=None)
            if end is not None:
                ids = {id for id in ids if id <= end}
            kept = {"_id": {"$in": list(ids)}, "purged": {"$exists": False}}
            left = await self._notes.find(kept, {"_id": True}).to_list(None)
        return ids - {note["_id"] for note in left}, end

    async def forget(self, ids: Iterable[int]) -> None:
        """Deletes all that is stored of the texts of these notes. Raises :class:`Unavailable`."""
        with self._connection.reading(self._connection.write_timeout):
            of = {"note": {"$in": list(ids)}}
            await self._rows.delete_many(of)
            await self._texts.delete_many(of)


def edit_of(row: Row) -> BsonDocument:
    """A row as it rides in the note."""
    document = _document(row)
    del document["note"]
    return document


def _document(row: Row) -> BsonDocument:
    return {"_id": row.id, "note": row.note, "updates": list(row.updates), "people": list(row.people)}


def _row(document: Mapping[str, Any]) -> Row:
    updates = [bytes(update) for update in document["updates"]]
    return Row(document["_id"], document["note"], updates, document["people"])
