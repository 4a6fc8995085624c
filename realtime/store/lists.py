"""Paginated lists of live notes and of the trash. A page starts exactly at the end of the previous page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import ASCENDING, DESCENDING, IndexModel

from realtime.auth.permissions import Access, Key
from realtime.errors import Unavailable
from realtime.notes.listing import Listing, Page, Position
from realtime.notes.models import Note, TagCount, Trashed
from realtime.store.batcher import Batcher
from realtime.store.bson_mapping import HEAD, LIVE, NOTE, TRASHED, WHOLE, BsonDocument, access_of, note_json_of, note_of
from realtime.store.connection import MongoConnection
from realtime.store.search import PAGE_BYTES, Search, visible

MAX_CONCURRENT_PAGES = 8
"""Concurrent reads of pages without a search; concurrent requests for the same page share one read."""
SCAN_BATCH_NOTES = 101
"""Notes in one batch of a MongoDB cursor."""
EXPORT_BATCH_NOTES = 25
"""Notes that an export reads at a time."""
TAGGED: BsonDocument = {**LIVE, "tags.0": {"$exists": True}}
ORDERS = {"id": [], "title": ["title_key"], "created": ["created_date"], "updated": ["updated_date"]}
NEWEST_TRASH = [("deleted_date", DESCENDING), ("_id", DESCENDING)]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_MILLISECONDS = 253_402_300_799_999
"""The latest time of a ``datetime``, in milliseconds since 1970."""


def indexes(*, accounts: bool) -> list[IndexModel]:
    """Return an index for each sort order, of all notes and by tag; and one for the trash.

    With accounts, there is also one by access key for each sort order, and one for the trash of each owner.
    """
    models = []
    for order, keys in ORDERS.items():
        key = [(name, ASCENDING) for name in (*keys, "_id")]
        tagged = [("tags", ASCENDING), *key]
        models.append(IndexModel([("deleted", ASCENDING), *key], name=f"by_{order}"))
        models.append(IndexModel(tagged, name=f"tagged_by_{order}", partialFilterExpression=TAGGED))
        if accounts:
            opened = [("readers", ASCENDING), *key]
            models.append(IndexModel(opened, name=f"opened_by_{order}", partialFilterExpression=LIVE))
    if accounts:
        owned = [("access.owner", ASCENDING), ("deleted_date", ASCENDING), ("_id", ASCENDING)]
        models.append(IndexModel(owned, name="owned_trash", partialFilterExpression=TRASHED))
    trash = IndexModel([("deleted_date", ASCENDING), ("_id", ASCENDING)], name="trash", partialFilterExpression=TRASHED)
    return [*models, trash]


def page_query(listing: Listing, first: tuple[str, Any]) -> BsonDocument:
    """Return the arguments of the ``find`` for a page of a list without a search, which scans a range of one index.

    Args:
        listing: The list and the position after which the page starts.
        first: The first field of the index, ``deleted``, ``tags`` or ``readers``, and the value that the notes of the
            page have in it.
    """
    name, backwards = listing.sort.removeprefix("-"), listing.sort.startswith("-")
    keys = [*ORDERS[name], "_id"]
    low: list[tuple[str, Any]] = [first, *((key, MinKey()) for key in keys)]
    high: list[tuple[str, Any]] = [first, *((key, MaxKey()) for key in keys)]
    if listing.after is not None:
        key, id = listing.after
        value = [_datetime(key)] if name in ("created", "updated") else [key]
        # The lower bound of an index scan is inclusive, the upper bound is exclusive.
        bound = [first, *zip(keys, [*value[: len(keys) - 1], id if backwards else id + 1], strict=True)]
        low, high = (low, bound) if backwards else (bound, high)
    direction = DESCENDING if backwards else ASCENDING
    return {
        "filter": {**TAGGED, "tags": {"$all": list(listing.tags)}} if listing.tags else LIVE,
        "projection": {**(WHOLE if listing.content else HEAD), **dict.fromkeys(ORDERS[name], True)},
        "sort": [(key, direction) for key in (first[0], *keys)][0 if first[0] == "deleted" else 1 :],
        "hint": {"deleted": f"by_{name}", "tags": f"tagged_by_{name}", "readers": f"opened_by_{name}"}[first[0]],
        "min": dict(low),
        "max": dict(high),
    }


class Lists:
    """Reads lists of the notes of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        # Without time zones, decoding takes half the time; all dates are in UTC.
        self._naive_notes: Any = self._notes.with_options(codec_options=CodecOptions())
        self._pages: Batcher[Listing, Page] = Batcher(
            self._read,
            share=True,
            timeout=2 * connection.read_timeout,  # a read may have to wait for the previous one
            error=Unavailable,
            limit=1,
            concurrency=MAX_CONCURRENT_PAGES,
        )
        self._tags: Batcher[tuple[frozenset[Key] | None, int], list[TagCount]] = Batcher(
            self._count_tags,
            share=True,
            timeout=4 * connection.read_timeout,
            error=Unavailable,
            limit=1,
        )
        self._search = Search(connection)

    async def page(self, listing: Listing) -> Page:
        """Return a page of live notes, from a read that started after this call. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        return await (self._pages.put(listing) if listing.q is None else self._search.page(listing))

    async def _read(self, listings: Sequence[Listing]) -> list[Page | Exception]:
        (listing,) = listings
        documents, after = await self._ordered(listing)
        return [Page([note_json_of(document) for document in documents], after)]

    async def _ordered(self, listing: Listing) -> tuple[list[BsonDocument], Position | None]:
        notes: list[BsonDocument] = []
        size = 0
        async with contextlib.aclosing(self._in_order(listing)) as documents:
            async for document in documents:
                if len(notes) == listing.limit or size > PAGE_BYTES:
                    return notes, _position(listing, notes[-1])
                size += len(document.get("content", "").encode())
                notes.append(document)
        return notes, None

    def _in_order(self, listing: Listing) -> AsyncGenerator[BsonDocument]:
        """Yield the notes of a list in its order, up to one more than a page has."""
        if listing.keys is None:
            first = ("tags", listing.tags[0]) if listing.tags else ("deleted", False)
            return self._scan(page_query(listing, first), listing.limit + 1)
        scans = [page_query(listing, ("readers", key)) for key in listing.keys]
        return merged([self._scan(scan, listing.limit + 1) for scan in scans], scans[0]["sort"])

    async def _scan(self, find: BsonDocument, limit: int) -> AsyncGenerator[BsonDocument]:
        with self._connection.reading():
            cursor = self._naive_notes.find(**find, limit=limit, batch_size=min(limit, SCAN_BATCH_NOTES))
            try:
                while cursor.alive:
                    for document in await cursor.to_list(SCAN_BATCH_NOTES):
                        yield document
            finally:
                if cursor.alive:
                    await cursor.close()

    async def tags(self, keys: frozenset[Key] | None, limit: int) -> list[TagCount]:
        """Return the tags of live notes with the number of notes of each, most frequent first.

        Raises :class:`Unavailable`.
        """
        # This scans all tagged notes, so concurrent calls with the same arguments share the result.
        await self._connection.until_prepared()
        return await self._tags.put((keys, limit))

    async def _count_tags(self, requests: Sequence[tuple[frozenset[Key] | None, int]]) -> list[list[TagCount]]:
        ((keys, limit),) = requests
        pipeline: list[BsonDocument] = [
            {"$match": {**TAGGED, **visible(keys)}},
            {"$project": {"tags": {"$setUnion": ["$tags", []]}}},
            {"$unwind": "$tags"},
            {"$group": {"_id": "$tags", "count": {"$sum": 1}}},
            {"$sort": {"count": DESCENDING, "_id": ASCENDING}},
            {"$limit": limit},
        ]
        with self._connection.reading(2 * self._connection.read_timeout):
            hint = "tagged_by_id" if keys is None else "opened_by_id"
            documents = await self._notes.aggregate(pipeline, hint=hint).to_list(None)
        return [[TagCount(tag=document["_id"], count=document["count"]) for document in documents]]

    async def trash(
        self, owners: frozenset[str | None] | None, after: Position | None, limit: int
    ) -> tuple[list[Trashed], Position | None]:
        """Return a page of the notes in the trash, the most recently deleted first.

        Args:
            owners: Only notes of these owners are returned; ``None`` for all.
            after: The position after which the page starts.
            limit: The maximum number of notes.

        Returns:
            The notes, and the position of the last one if there may be more.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        await self._connection.until_prepared()
        firsts = [{}] if owners is None else [{"access.owner": owner} for owner in owners]
        scans = [_trash_query(first, after) for first in firsts]
        notes: list[Trashed] = []
        size = 0
        ordered = merged([self._scan(scan, limit + 1) for scan in scans], NEWEST_TRASH)
        async with contextlib.aclosing(ordered) as documents:
            async for document in documents:
                if len(notes) == limit or size > PAGE_BYTES:
                    return notes, (_milliseconds(notes[-1].deleted_date), notes[-1].id)
                size += len(document["content"].encode())
                notes.append(_trashed(document))
        return notes, None

    async def trashed(self, id: int) -> tuple[Trashed, Access] | None:
        """Return a note in the trash and its access rights. Raises :class:`Unavailable`."""
        with self._connection.reading():
            document = await self._notes.find_one({"_id": id, **TRASHED}, NOTE)
        return None if document is None else (_trashed(document), access_of(document))

    async def expired(self, before: datetime, limit: int) -> Mapping[int, int]:
        """Return the versions, by id, of up to ``limit`` notes that were deleted before a date.

        Raises :class:`Unavailable`.
        """
        await self._connection.until_prepared()
        with self._connection.reading():
            cursor = self._notes.find({"deleted_date": {"$lt": before}}, {"version": True}, hint="trash", limit=limit)
            return {document["_id"]: document["version"] async for document in cursor}

    async def count(self, keys: frozenset[Key] | None) -> int:
        """Return the number of live notes that one of the keys gives access to. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        with self._connection.reading():
            hint = "by_id" if keys is None else "opened_by_id"
            count: int = await self._notes.count_documents(visible(keys), hint=hint)
        return count

    async def export(self, keys: frozenset[Key] | None) -> AsyncIterator[Sequence[Note]]:
        """Yield all live notes that one of the keys gives access to, in batches, in the order of their ids.

        Raises :class:`Unavailable`.
        """
        await self._connection.until_prepared()
        after: Position | None = None
        while True:
            documents, after = await self._ordered(Listing(limit=EXPORT_BATCH_NOTES, after=after, keys=keys))
            yield [note_of(document) for document in documents]
            if after is None:
                return


def _trash_query(first: BsonDocument, after: Position | None) -> BsonDocument:
    """Return the arguments of the ``find`` for a page of the trash, of one owner or of all."""
    ends = [MaxKey(), MaxKey()] if after is None else [_datetime(after[0]), after[1]]
    names = [name for name, _ in NEWEST_TRASH]
    return {
        "filter": TRASHED,
        "projection": NOTE,
        "sort": NEWEST_TRASH,
        "hint": "owned_trash" if first else "trash",
        "min": {**first, **dict.fromkeys(names, MinKey())},
        "max": {**first, **dict(zip(names, ends, strict=True))},
    }


async def merged(
    scans: Sequence[AsyncGenerator[BsonDocument]], sort: Sequence[tuple[str, int]]
) -> AsyncGenerator[BsonDocument]:
    """Merge scans with the same sort order, and yield each document once."""
    pick = max if sort[-1][1] == DESCENDING else min
    try:
        heads = [(scan, document) for scan in scans if (document := await anext(scan, None)) is not None]
        last = None
        while heads:
            scan, document = head = pick(heads, key=lambda head: [head[1][name] for name, _ in sort])
            heads.remove(head)
            following = await anext(scan, None)
            if following is not None:
                heads.append((scan, following))
            if document["_id"] != last:
                last = document["_id"]
                yield document
    finally:
        for scan in scans:
            await scan.aclose()


def _trashed(document: Mapping[str, Any]) -> Trashed:
    return Trashed.model_construct(**dict(note_of(document)), deleted_date=document["deleted_date"])


def _datetime(milliseconds: float | str) -> datetime:
    # A position comes from a client and may be any number.
    return EPOCH + timedelta(milliseconds=min(max(0, int(milliseconds)), MAX_MILLISECONDS))


def _milliseconds(date: datetime) -> int:
    return (date.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def _position(listing: Listing, document: Mapping[str, Any]) -> Position:
    match listing.sort.removeprefix("-"):
        case "title":
            return document["title_key"], document["_id"]
        case "id":
            return document["_id"], document["_id"]
        case name:
            return _milliseconds(document[f"{name}_date"]), document["_id"]
