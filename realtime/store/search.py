"""Full-text search over live notes, page by page."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout

from realtime.errors import Unavailable
from realtime.notes.listing import Listing, Page, Position
from realtime.store.bson_mapping import LIVE, WHOLE, BsonDocument, note_json_of, open_to

if TYPE_CHECKING:
    from realtime.auth.permissions import Key
    from realtime.store.connection import MongoConnection

PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early when its contents exceed this size."""
FETCH_BATCH_NOTES = 16
"""Notes that are read at a time once their order is known."""
MAX_CONCURRENT_RANKINGS = 2
"""Concurrent searches with ranking."""
RANKING_TIMEOUT_SECONDS = 2.0
"""The time limit for waiting to rank, and again for ranking."""
UNRANKED_TIMEOUT_SECONDS = 1.0
"""The time limit of a search without ranking."""


class Search:
    """Searches the live notes of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._rankings = asyncio.Semaphore(MAX_CONCURRENT_RANKINGS)

    async def page(self, listing: Listing) -> Page:
        """Return a page of the live notes that match a search. Raises :class:`Unavailable`."""
        notes: list[dict[str, Any]] = []
        size = 0
        order, complete = await self._matches(listing)
        last: Position | None = None
        for start in range(0, min(len(order), listing.limit), FETCH_BATCH_NOTES):
            batch = order[start : min(start + FETCH_BATCH_NOTES, listing.limit)]
            with self._connection.reading():
                ids = [id for _, id in batch]
                documents = await self._notes.find({"_id": {"$in": ids}, **visible(listing.keys)}, WHOLE).to_list(None)
            by_id = {document["_id"]: note_json_of(document) for document in documents}
            for position in batch:
                if size > PAGE_BYTES:
                    return Page(notes, last if complete else None, complete)
                last = position
                if (note := by_id.get(position[1])) is not None:  # else it changed after the search
                    notes.append(note)
                    size += len(note["content"].encode())
        return Page(notes, last if complete and len(order) > listing.limit else None, complete)

    async def _matches(self, listing: Listing) -> tuple[list[Position], bool]:
        """Return the sorted positions of the matches, up to one more than a page has, and whether they are complete.

        MongoDB ranks all matches before it returns the first, which takes seconds for words that are in many notes. So
        ranking is limited to :data:`MAX_CONCURRENT_RANKINGS` searches and to :data:`RANKING_TIMEOUT_SECONDS`; all other
        searches return the first matches found. Raises :class:`Unavailable`.
        """
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(RANKING_TIMEOUT_SECONDS):
                await self._rankings.acquire()
            try:
                return await self._ranked_matches(listing), True
            finally:
                self._rankings.release()
        return await self._first_matches(listing), False

    async def _first_matches(self, listing: Listing) -> list[Position]:
        """Return the matches that MongoDB finds first, sorted."""
        name, backwards = listing.sort.removeprefix("-"), listing.sort.startswith("-")
        if name == "relevance" and listing.after is not None:
            raise Unavailable  # without ranks, the content of the previous pages is not known
        key = {"$literal": 0} if name == "relevance" else _sort_key(name)
        pipeline = [{"$match": _matching(listing)}, {"$project": {"key": key}}, *_after(listing)]
        matches: list[Position] = []
        try:
            with self._connection.reading(UNRANKED_TIMEOUT_SECONDS):
                async for document in self._notes.aggregate(
                    [*pipeline, {"$limit": listing.limit}], batchSize=FETCH_BATCH_NOTES
                ):
                    matches.append((document["key"], document["_id"]))  # noqa: PERF401  # kept on a timeout
        except Unavailable as error:
            if not (matches or isinstance(error.__cause__, ExecutionTimeout)):  # else MongoDB does not answer at all
                raise
        return sorted(matches, reverse=backwards)

    async def _ranked_matches(self, listing: Listing) -> list[Position]:
        """Return the first of all matches in their order, up to one more than a page has."""
        name = listing.sort.removeprefix("-")
        step, id_step = _steps(listing)
        pipeline = [{"$match": _matching(listing)}, {"$project": {"key": _sort_key(name)}}, *_after(listing)]
        pipeline += [{"$sort": {"key": step, "_id": id_step}}, {"$limit": listing.limit + 1}]
        with self._connection.reading(RANKING_TIMEOUT_SECONDS):
            documents = await self._notes.aggregate(pipeline).to_list(None)
        return [(document["key"], document["_id"]) for document in documents]


def _matching(listing: Listing) -> BsonDocument:
    """Return the condition for the notes that match a search."""
    match: BsonDocument = {**visible(listing.keys), "$text": {"$search": listing.q}}
    return {**match, "tags": {"$all": list(listing.tags)}} if listing.tags else match


def _steps(listing: Listing) -> tuple[int, int]:
    """Return the sort directions of the sort key and of the id."""
    if listing.sort == "relevance":
        return DESCENDING, ASCENDING
    return (DESCENDING,) * 2 if listing.sort.startswith("-") else (ASCENDING,) * 2


def _after(listing: Listing) -> list[BsonDocument]:
    """Return the stage that selects the matches after the previous page, or none for the first page."""
    if listing.after is None:
        return []
    key, id = listing.after
    step, id_step = ({ASCENDING: "$gt", DESCENDING: "$lt"}[direction] for direction in _steps(listing))
    return [{"$match": {"$or": [{"key": {step: key}}, {"key": key, "_id": {id_step: id}}]}}]


def _sort_key(order: str) -> Any:
    """Return the expression of the sort key of a match."""
    keys = {"relevance": {"$meta": "textScore"}, "id": "$_id", "title": "$title_key"}
    return keys.get(order) or {"$toLong": f"${order}_date"}


def visible(keys: frozenset[Key] | None) -> BsonDocument:
    """Return the condition for live notes that one of the keys gives access to; ``None`` for all live notes."""
    return LIVE if keys is None else {**LIVE, **open_to(keys)}
