"""Lists of notes: in every order, by tags, by words, and of the trash; each page goes on exactly where one ended."""

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
from realtime.store.bson_mapping import HEAD, LIVE, NOTE, TRASHED, WHOLE, BsonDocument, access_of, note_of, shown_of
from realtime.store.connection import MongoConnection
from realtime.store.search import PAGE_BYTES, Search, visible

PAGES = 8
"""Pages without words that are read at once; whoever asks for the same shares one."""
BATCH = 101
"""Notes that one answer of MongoDB holds."""
EXPORTED = 25
"""Notes that are read at once where all are."""
TAGGED: BsonDocument = {**LIVE, "tags.0": {"$exists": True}}
ORDERS = {"id": [], "title": ["title_key"], "created": ["created_date"], "updated": ["updated_date"]}
NEWEST_TRASH = [("deleted_date", DESCENDING), ("_id", DESCENDING)]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = 253_402_300_799_999
"""The last millisecond that a ``datetime`` can tell, since 1970."""


def indexes(*, accounts: bool) -> list[IndexModel]:
    """An index for every order, of all notes and of those with a tag; and for the trash.

    With accounts, for every order of what a key opens, too.
    """
    made = []
    for order, keys in ORDERS.items():
        key = [(name, ASCENDING) for name in (*keys, "_id")]
        made.append(IndexModel([("deleted", ASCENDING), *key], name=f"by_{order}"))
        made.append(IndexModel([("tags", ASCENDING), *key], name=f"tagged_by_{order}", partialFilterExpression=TAGGED))
        if accounts:
            opened = [("readers", ASCENDING), *key]
            made.append(IndexModel(opened, name=f"opened_by_{order}", partialFilterExpression=LIVE))
    if accounts:
        owned = [("access.owner", ASCENDING), ("deleted_date", ASCENDING), ("_id", ASCENDING)]
        made.append(IndexModel(owned, name="owned_trash", partialFilterExpression=TRASHED))
    trash = IndexModel([("deleted_date", ASCENDING), ("_id", ASCENDING)], name="trash", partialFilterExpression=TRASHED)
    return [*made, trash]


def ordered(listing: Listing, first: tuple[str, Any]) -> BsonDocument:
    """The ``find`` that reads a page of a list without words, in the order of an index and bound by its keys.

    ``first`` is the field that the index begins with, and the value that all notes of the page have there.
    """
    name, backwards = listing.sort.removeprefix("-"), listing.sort.startswith("-")
    keys = [*ORDERS[name], "_id"]
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
        "projection": {**(WHOLE if listing.content else HEAD), **dict.fromkeys(ORDERS[name], True)},
        "sort": [(key, direction) for key in (first[0], *keys)][0 if first[0] == "deleted" else 1 :],
        "hint": {"deleted": f"by_{name}", "tags": f"tagged_by_{name}", "readers": f"opened_by_{name}"}[first[0]],
        "min": dict(low),
        "max": dict(high),
    }


class Lists:
    """The lists of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        # A time zone for every date would take as long as all else of a document; all are in UTC.
        self._quick: Any = self._notes.with_options(codec_options=CodecOptions())
        self._pages: Batcher[Listing, Page] = Batcher(
            self._read,
            lambda listing: listing,
            share=True,
            timeout=2 * connection.read_timeout,  # one may wait for the one before
            error=Unavailable,
            most=1,
            under_way=PAGES,
        )
        self._tags: Batcher[tuple[frozenset[Key] | None, int], list[TagCount]] = Batcher(
            self._count_tags,
            lambda wanted: wanted,
            share=True,
            timeout=4 * connection.read_timeout,
            error=Unavailable,
            most=1,
        )
        self._search = Search(connection)

    async def page(self, listing: Listing) -> Page:
        """A page of live notes, read after it was asked for. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        return await (self._pages.put(listing) if listing.q is None else self._search.page(listing))

    async def _read(self, listings: Sequence[Listing]) -> list[Page | Exception]:
        (listing,) = listings
        documents, after = await self._ordered(listing)
        return [Page([shown_of(document) for document in documents], after)]

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
        """The notes of a list as they come, one more than a page may have."""
        if listing.keys is None:
            first = ("tags", listing.tags[0]) if listing.tags else ("deleted", False)
            return self._scan(ordered(listing, first), listing.limit + 1)
        scans = [ordered(listing, ("readers", key)) for key in listing.keys]
        return merged([self._scan(one, listing.limit + 1) for one in scans], scans[0]["sort"])

    async def _scan(self, find: BsonDocument, many: int) -> AsyncGenerator[BsonDocument]:
        with self._connection.reading():
            cursor = self._quick.find(**find, limit=many, batch_size=min(many, BATCH))
            try:
                while cursor.alive:
                    for document in await cursor.to_list(BATCH):
                        yield document
            finally:
                if cursor.alive:
                    await cursor.close()

    async def tags(self, keys: frozenset[Key] | None, limit: int) -> list[TagCount]:
        """The tags of live notes and how many notes have each, the most frequent first. Raises :class:`Unavailable`.

        All notes are read for it, so those who ask for the same at once share the answer.
        """
        await self._connection.until_prepared()
        return await self._tags.put((keys, limit))

    async def _count_tags(self, wanted: Sequence[tuple[frozenset[Key] | None, int]]) -> list[list[TagCount]]:
        ((keys, limit),) = wanted
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
            found = await self._notes.aggregate(pipeline, hint=hint).to_list(None)
        return [[TagCount(tag=document["_id"], count=document["count"]) for document in found]]

    async def trash(
        self, owners: frozenset[str | None] | None, after: Position | None, limit: int
    ) -> tuple[list[Trashed], Position | None]:
        """Notes in the trash, of these owners or of all, the last deleted first, and where the page ends.

        Raises :class:`Unavailable`.
        """
        await self._connection.until_prepared()
        firsts = [{}] if owners is None else [{"access.owner": owner} for owner in owners]
        scans = [_trash_scan(first, after) for first in firsts]
        notes: list[Trashed] = []
        size = 0
        found = merged([self._scan(one, limit + 1) for one in scans], NEWEST_TRASH)
        async with contextlib.aclosing(found) as documents:
            async for document in documents:
                if len(notes) == limit or size > PAGE_BYTES:
                    return notes, (_milliseconds(notes[-1].deleted_date), notes[-1].id)
                size += len(document["content"].encode())
                notes.append(_trashed(document))
        return notes, None

    async def trashed(self, id: int) -> tuple[Trashed, Access] | None:
        """A note in the trash, and who may do what with it. Raises :class:`Unavailable`."""
        with self._connection.reading():
            document = await self._notes.find_one({"_id": id, **TRASHED}, NOTE)
        return None if document is None else (_trashed(document), access_of(document))

    async def expired(self, before: datetime, most: int) -> Mapping[int, int]:
        """Notes that went into the trash before a date: id and version. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        with self._connection.reading():
            cursor = self._notes.find({"deleted_date": {"$lt": before}}, {"version": True}, hint="trash", limit=most)
            return {document["_id"]: document["version"] async for document in cursor}

    async def count(self, keys: frozenset[Key] | None) -> int:
        """How many live notes there are, that one of the keys opens. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        with self._connection.reading():
            hint = "by_id" if keys is None else "opened_by_id"
            count: int = await self._notes.count_documents(visible(keys), hint=hint)
        return count

    async def every(self, keys: frozenset[Key] | None) -> AsyncIterator[Sequence[Note]]:
        """All live notes by id, some at a time. Raises :class:`Unavailable`."""
        await self._connection.until_prepared()
        after: Position | None = None
        while True:
            documents, after = await self._ordered(Listing(limit=EXPORTED, after=after, keys=keys))
            yield [note_of(document) for document in documents]
            if after is None:
                return


def _trash_scan(first: BsonDocument, after: Position | None) -> BsonDocument:
    """The ``find`` that reads a page of the trash, of one owner or of all."""
    ends = [MaxKey(), MaxKey()] if after is None else [_moment(after[0]), after[1]]
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
    """What several scans in one order bring, in that order, and each document once."""
    pick = max if sort[-1][1] == DESCENDING else min
    try:
        heads = [(scan, document) for scan in scans if (document := await anext(scan, None)) is not None]
        last = None
        while heads:
            scan, document = found = pick(heads, key=lambda head: [head[1][name] for name, _ in sort])
            heads.remove(found)
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


def _moment(milliseconds: float | str) -> datetime:
    # A position comes from a client: it may be any number, and only some are times.
    return EPOCH + timedelta(milliseconds=min(max(0, int(milliseconds)), LAST))


def _milliseconds(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


def _position(listing: Listing, document: Mapping[str, Any]) -> Position:
    match listing.sort.removeprefix("-"):
        case "title":
            return document["title_key"], document["_id"]
        case "id":
            return document["_id"], document["_id"]
        case name:
            return _milliseconds(document[f"{name}_date"]), document["_id"]
