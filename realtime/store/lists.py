"""Lists of notes: in every order, by tags, by words, and of the trash; each page goes on exactly where one ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import ASCENDING, DESCENDING, TEXT, IndexModel

from realtime.models import Listing, Note, NoteHead, Page, Position, TagCount, Trashed
from realtime.store.connection import Connection
from realtime.store.documents import HEAD, LIVE, NOTE, TRASHED, Document, head_of, note_of

PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early when its texts grow beyond this."""
FETCH = 16
"""Notes that are read at once where their order comes from elsewhere."""
EXPORTED = 25
"""Notes that are read at once where all are."""
WEIGHTS = {"title": 10, "tags": 5, "description": 5, "content": 1}
TAGGED: Document = {**LIVE, "tags.0": {"$exists": True}}
ORDERS = {"id": [], "title": ["title_key"], "created": ["created_date"], "updated": ["updated_date"]}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = 253_402_300_799_999
"""The last millisecond that a ``datetime`` can tell, since 1970."""


def indexes() -> list[IndexModel]:
    """An index for every order, of all notes and of those with a tag; for words, and for the trash."""
    made = []
    for order, keys in ORDERS.items():
        key = [(name, ASCENDING) for name in (*keys, "_id")]
        made.append(IndexModel([("deleted", ASCENDING), *key], name=f"by_{order}"))
        made.append(IndexModel([("tags", ASCENDING), *key], name=f"tagged_by_{order}", partialFilterExpression=TAGGED))
    words = IndexModel(
        [(field, TEXT) for field in WEIGHTS],
        name="words",
        weights=WEIGHTS,
        default_language="none",  # all words count, as they are written: notes are in any language
        language_override="no_such_field",
        partialFilterExpression=LIVE,
    )
    trash = IndexModel([("deleted_date", ASCENDING), ("_id", ASCENDING)], name="trash", partialFilterExpression=TRASHED)
    return [*made, words, trash]


def ordered(listing: Listing) -> Document:
    """The ``find`` that reads a page of a list without words, in the order of an index and bound by its keys."""
    name, backwards = listing.sort.removeprefix("-"), listing.sort.startswith("-")
    keys = [*ORDERS[name], "_id"]
    first = ("tags", listing.tags[0]) if listing.tags else ("deleted", False)
    low: list[tuple[str, Any]] = [first, *((key, MinKey()) for key in keys)]
    high: list[tuple[str, Any]] = [first, *((key, MaxKey()) for key in keys)]
    if listing.after is not None:
        key, id = listing.after
        value = [_moment(key)] if name in ("created", "updated") else [key]
        # The lower bound of an index scan is included, the upper one is not.
        at = [first, *zip(keys, [*value[: len(keys) - 1], id if backwards else id + 1], strict=True)]
        low, high = (low, at) if backwards else (at, high)
    direction = DESCENDING if backwards else ASCENDING
    return {
        "filter": {**TAGGED, "tags": {"$all": list(listing.tags)}} if listing.tags else LIVE,
        "projection": NOTE if listing.content else HEAD,
        "sort": [(key, direction) for key in (first[0], *keys)][1 if listing.tags else 0 :],
        "hint": f"tagged_by_{name}" if listing.tags else f"by_{name}",
        "min": dict(low),
        "max": dict(high),
    }


class Lists:
    """The lists of one database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._notes = connection.database.notes

    async def page(self, listing: Listing) -> Page:
        """A page of live notes. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        return await (self._ordered(listing) if listing.q is None else self._found(listing))

    async def _ordered(self, listing: Listing) -> Page:
        make = note_of if listing.content else head_of
        notes: list[NoteHead] = []
        size = 0
        last: Mapping[str, Any] = {}
        many = listing.limit + 1
        with self._connection.reading():
            cursor: Any = self._notes.find(**ordered(listing), limit=many, batch_size=min(many, 101))
            async for document in cursor:
                if len(notes) == listing.limit or size > PAGE_BYTES:
                    await cursor.close()
                    return Page(notes, _position(listing, last))
                size += len(document.get("content", "").encode())
                notes.append(make(document))
                last = document
        return Page(notes, None)

    async def _found(self, listing: Listing) -> Page:
        notes: list[NoteHead] = []
        size = 0
        order = await self._matches(listing)
        last: Position | None = None
        for start in range(0, min(len(order), listing.limit), FETCH):
            batch = order[start : min(start + FETCH, listing.limit)]
            with self._connection.reading():
                ids = [id for _, id in batch]
                documents = await self._notes.find({"_id": {"$in": ids}, **LIVE}, NOTE).to_list(None)
            found = {document["_id"]: note_of(document) for document in documents}
            for position in batch:
                if size > PAGE_BYTES:
                    return Page(notes, last)
                last = position
                if position[1] in found:
                    notes.append(found[position[1]])
                    size += len(found[position[1]].content.encode())
        return Page(notes, last if len(order) > listing.limit else None)

    async def _matches(self, listing: Listing) -> list[Position]:
        """Where the notes with the words stand in the order, one more of them than the page holds."""
        name, backwards = listing.sort.removeprefix("-"), listing.sort.startswith("-")
        keys = {"relevance": {"$meta": "textScore"}, "id": "$_id", "title": "$title_key"}
        key = keys.get(name) or {"$toLong": f"${name}_date"}
        step, id_step = (DESCENDING, ASCENDING) if name == "relevance" else (2 * (not backwards) - 1,) * 2
        match: Document = {**LIVE, "$text": {"$search": listing.q}}
        if listing.tags:
            match["tags"] = {"$all": list(listing.tags)}
        pipeline: list[Document] = [{"$match": match}, {"$project": {"key": key}}]
        if listing.after is not None:
            after, id = listing.after
            further = {ASCENDING: "$gt", DESCENDING: "$lt"}
            pipeline.append(
                {"$match": {"$or": [{"key": {further[step]: after}}, {"key": after, "_id": {further[id_step]: id}}]}}
            )
        pipeline += [{"$sort": {"key": step, "_id": id_step}}, {"$limit": listing.limit + 1}]
        with self._connection.reading():
            found = await self._notes.aggregate(pipeline).to_list(None)
        return [(document["key"], document["_id"]) for document in found]

    async def tags(self, limit: int) -> list[TagCount]:
        """The tags of live notes and how many notes have each, the most frequent first. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        pipeline: list[Document] = [
            {"$match": TAGGED},
            {"$project": {"tags": {"$setUnion": ["$tags", []]}}},
            {"$unwind": "$tags"},
            {"$group": {"_id": "$tags", "count": {"$sum": 1}}},
            {"$sort": {"count": DESCENDING, "_id": ASCENDING}},
            {"$limit": limit},
        ]
        with self._connection.reading():
            found = await self._notes.aggregate(pipeline, hint="tagged_by_id").to_list(None)
        return [TagCount(tag=document["_id"], count=document["count"]) for document in found]

    async def trash(self, after: Position | None, limit: int) -> tuple[list[Trashed], Position | None]:
        """Notes in the trash, the last deleted first, and where the page ends. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        bounds: Document = {}
        if after is not None:
            bounds = {
                "min": {"deleted_date": MinKey(), "_id": MinKey()},
                "max": {"deleted_date": _moment(after[0]), "_id": after[1]},
            }
        notes: list[Trashed] = []
        size = 0
        sort = [("deleted_date", DESCENDING), ("_id", DESCENDING)]
        with self._connection.reading():
            cursor: Any = self._notes.find(TRASHED, NOTE, sort=sort, hint="trash", limit=limit + 1, **bounds)
            async for document in cursor:
                if len(notes) == limit or size > PAGE_BYTES:
                    await cursor.close()
                    return notes, (_milliseconds(notes[-1].deleted_date), notes[-1].id)
                size += len(document["content"].encode())
                notes.append(_trashed(document))
        return notes, None

    async def trashed(self, id: int) -> Trashed | None:
        """A note in the trash. Raises :class:`Unavailable`."""
        with self._connection.reading():
            document = await self._notes.find_one({"_id": id, **TRASHED}, NOTE)
        return None if document is None else _trashed(document)

    async def expired(self, before: datetime, most: int) -> Mapping[int, int]:
        """Notes that went into the trash before a date: id and version. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        with self._connection.reading():
            cursor = self._notes.find({"deleted_date": {"$lt": before}}, {"version": True}, hint="trash", limit=most)
            return {document["_id"]: document["version"] async for document in cursor}

    async def count(self) -> int:
        """How many live notes there are. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        with self._connection.reading():
            count: int = await self._notes.count_documents(LIVE, hint="by_id")
        return count

    async def every(self) -> AsyncIterator[Sequence[Note]]:
        """All live notes by id, some at a time. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        after: Position | None = None
        while True:
            page = await self._ordered(Listing(limit=EXPORTED, after=after))
            yield [note for note in page.notes if isinstance(note, Note)]
            if page.after is None:
                return
            after = page.after


def _trashed(document: Mapping[str, Any]) -> Trashed:
    return Trashed.model_construct(**dict(note_of(document)), deleted_date=document["deleted_date"])


def _moment(milliseconds: float | str) -> datetime:
    # A position comes from a client: it may be any number, and only some are times.
    return EPOCH + timedelta(milliseconds=min(max(0, int(milliseconds)), LAST))


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _position(listing: Listing, document: Mapping[str, Any]) -> Position:
    match listing.sort.removeprefix("-"):
        case "title":
            return document["title_key"], document["_id"]
        case "id":
            return document["_id"], document["_id"]
        case name:
            return _milliseconds(document[f"{name}_date"]), document["_id"]
