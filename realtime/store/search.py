"""Full-text search over live notes, page by page."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout

from realtime.errors import Unavailable
from realtime.notes.listing import Listing, Page, Position
from realtime.store.bson_mapping import LIVE, WHOLE, BsonDocument, open_to, shown_of

if TYPE_CHECKING:
    from realtime.auth.permissions import Key
    from realtime.store.connection import MongoConnection

PAGE_BYTES = 8 * 1024 * 1024
"""A page ends early when its texts grow beyond this."""
FETCH = 16
"""Notes that are read at once when their order is known."""
RANKINGS = 2
"""Searches whose matches are ranked at once."""
RANKING_SECONDS = 2.0
"""Seconds that a search may wait to be ranked, and that ranking may take."""
FIRST_SECONDS = 1.0
"""Time limit in seconds of a search that is not ranked."""


class Search:
    """The searches of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._rankings = asyncio.Semaphore(RANKINGS)

    async def page(self, listing: Listing) -> Page:
        """Return a page of the live notes with the words of a list. Raises :class:`Unavailable`."""
        notes: list[dict[str, Any]] = []
        size = 0
        order, complete = await self._matches(listing)
        last: Position | None = None
        for start in range(0, min(len(order), listing.limit), FETCH):
            batch = order[start : min(start + FETCH, listing.limit)]
            with self._connection.reading():
                ids = [id for _, id in batch]
                documents = await self._notes.find({"_id": {"$in": ids}, **visible(listing.keys)}, WHOLE).to_list(None)
            found = {document["_id"]: shown_of(document) for document in documents}
            for position in batch:
                if size > PAGE_BYTES:
                    return Page(notes, last if complete else None, complete)
                last = position
                if position[1] in found:
                    notes.append(found[position[1]])
                    size += len(found[position[1]]["content"].encode())
        return Page(notes, last if complete and len(order) > listing.limit else None, complete)

    async def _matches(self, listing: Listing) -> tuple[list[Position], bool]:
        """Return the sorted positions of the matches, one more than the page holds, and whether they are complete.

        MongoDB ranks all matches before it returns the first, which takes seconds for words in very many notes. So
        ranking is limited to :data:`RANKINGS` searches at a time and to :data:`RANKING_SECONDS`; all other searches
        return the first matches found. Raises :class:`Unavailable`.
        """
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(RANKING_SECONDS):
                await self._rankings.acquire()
            try:
                return await self._ranked_matches(listing), True
            finally:
                self._rankings.release()
        return await self._first_matches(listing), False

    async def _first_matches(self, listing: Listing) -> list[Position]:
        """Return some matches, in order among themselves: those that MongoDB finds first."""
        name, backwards = listing.sort.removeprefix("-"), listing.sort.startswith("-")
        if name == "relevance" and listing.after is not None:
            raise Unavailable  # without ranks, what is on the pages before is not known
        key = {"$literal": 0} if name == "relevance" else _sort_key(name)
        pipeline = [{"$match": _matching(listing)}, {"$project": {"key": key}}, *_after(listing)]
        found: list[Position] = []
        try:
            with self._connection.reading(FIRST_SECONDS):
                async for document in self._notes.aggregate([*pipeline, {"$limit": listing.limit}], batchSize=FETCH):
                    found.append((document["key"], document["_id"]))  # noqa: PERF401  # what there is when time is up
        except Unavailable as error:
            if not (found or isinstance(error.__cause__, ExecutionTimeout)):  # else MongoDB does not answer at all
                raise
        return sorted(found, reverse=backwards)

    async def _ranked_matches(self, listing: Listing) -> list[Position]:
        """Return all matches in their order, as many as a page holds and one more."""
        name = listing.sort.removeprefix("-")
        step, id_step = _steps(listing)
        pipeline = [{"$match": _matching(listing)}, {"$project": {"key": _sort_key(name)}}, *_after(listing)]
        pipeline += [{"$sort": {"key": step, "_id": id_step}}, {"$limit": listing.limit + 1}]
        with self._connection.reading(RANKING_SECONDS):
            found = await self._notes.aggregate(pipeline).to_list(None)
        return [(document["key"], document["_id"]) for document in found]


def _matching(listing: Listing) -> BsonDocument:
    """Return the condition for the notes of a list with words."""
    match: BsonDocument = {**visible(listing.keys), "$text": {"$search": listing.q}}
    return {**match, "tags": {"$all": list(listing.tags)}} if listing.tags else match


def _steps(listing: Listing) -> tuple[int, int]:
    """Return the directions in which matches are ordered: by what they are sorted by, and then by their ids."""
    if listing.sort == "relevance":
        return DESCENDING, ASCENDING
    return (DESCENDING,) * 2 if listing.sort.startswith("-") else (ASCENDING,) * 2


def _after(listing: Listing) -> list[BsonDocument]:
    """Return the stage that leaves only what comes after the page before, if there is one."""
    if listing.after is None:
        return []
    key, id = listing.after
    step, id_step = ({ASCENDING: "$gt", DESCENDING: "$lt"}[direction] for direction in _steps(listing))
    return [{"$match": {"$or": [{"key": {step: key}}, {"key": key, "_id": {id_step: id}}]}}]


def _sort_key(order: str) -> Any:
    """Return the expression for what notes with words are ordered by."""
    keys = {"relevance": {"$meta": "textScore"}, "id": "$_id", "title": "$title_key"}
    return keys.get(order) or {"$toLong": f"${order}_date"}


def visible(keys: frozenset[Key] | None) -> BsonDocument:
    """The condition for live notes that one of the keys opens."""
    return LIVE if keys is None else {**LIVE, **open_to(keys)}
