"""The part of each content that can be searched: its beginning, up to a number of different words.

MongoDB makes one index key for each different word of a note, all in the transaction of the write. 100,000 keys fill
its cache, and then all writes wait for minutes. So the index does not have the content but ``words``, which is the same
text up to :data:`MAX_WORDS`, and writes with many words take turns. ``words_version`` is the ``text_version`` that
``words`` was made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any, NamedTuple

from pymongo import TEXT, IndexModel
from pymongo.errors import OperationFailure

from realtime.store.bson_mapping import LIVE, BsonDocument
from realtime.store.connection import MongoConnection

MAX_WORDS = 5_000
"""Different words of a content that can be searched."""
WORDY = 2_000
"""Different words from which on writes take turns."""
SHORT = 2 * MAX_WORDS
"""Characters up to which a content cannot have too many words."""
WORD = re.compile(r"[^\W_\u2e2f]+")
"""A run of characters that MongoDB never splits. It splits others less often, so that it counts no more words."""
WEIGHTS = {"title": 10, "tags": 5, "description": 5, "words": 1}
INDEX = "searched_text"
FORMER_INDEX = "words"
"""The index of earlier versions, of whole contents. There can be one text index only."""
REPAIR_TIMEOUT = 24 * 3600.0
BATCH = 16
STALE: BsonDocument = {
    "$expr": {"$or": [{"$ne": ["$words_version", "$text_version"]}, {"$eq": [{"$type": "$words"}, "missing"]}]}
}


def index() -> IndexModel:
    """Return the index of the words of live notes."""
    return IndexModel(
        [(field, TEXT) for field in WEIGHTS],
        name=INDEX,
        weights=WEIGHTS,
        default_language="none",  # all words count, as they are written: notes are in any language
        language_override="no_such_field",
        partialFilterExpression=LIVE,
    )


class SearchedPart(NamedTuple):
    """The part of a content that can be searched, and whether it has so many different words that writes take turns."""

    text: str
    wordy: bool


async def searched_part(content: str) -> SearchedPart:
    """Return the part of a content that can be searched. Words are counted in a thread if there may be too many."""
    return SearchedPart(content, False) if len(content) <= SHORT else await asyncio.to_thread(_part, content)


def _part(content: str) -> SearchedPart:
    words: set[str] = set()
    for word in WORD.finditer(content):
        words.add(word[0].lower())
        if len(words) > MAX_WORDS:
            return SearchedPart(content[: word.start()], wordy=True)
    return SearchedPart(content, len(words) > WORDY)


class SearchedText:
    """The searched parts of the notes of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes

    async def prepare(self) -> None:
        """Make the index. With the one of an earlier version, first add the searched part to all notes.

        If it is interrupted, it continues the next time. The search works until the former index is dropped, and again
        when the new one is built.
        """
        if FORMER_INDEX in await self._notes.index_information():
            await self.repair()
            with contextlib.suppress(OperationFailure):  # another worker dropped it
                await self._notes.drop_index(FORMER_INDEX)
        await self._notes.create_indexes([index()])

    async def repair(self) -> int:
        """Correct searched parts that are missing or of another content, and return how many were.

        A server of an earlier version that runs beside this one writes contents alone.
        """
        short = {**STALE, "$and": [{"$expr": {"$lte": [{"$strLenBytes": "$content"}, SHORT]}}]}
        same: list[BsonDocument] = [{"$set": {"words": "$content", "words_version": "$text_version"}}]
        with self._connection.reading(REPAIR_TIMEOUT):
            result = await self._notes.update_many(short, same)
            repaired = int(result.modified_count)
            fields = {"content": True, "text_version": True}
            async for note in self._notes.find(STALE, fields, batch_size=BATCH):
                repaired += await self._set(note)
        return repaired

    async def _set(self, note: BsonDocument) -> int:
        version: Any = note.get("text_version")
        words, _ = await searched_part(note["content"])
        unchanged = {"_id": note["_id"], "text_version": version}
        result = await self._notes.update_one(unchanged, {"$set": {"words": words, "words_version": version}})
        return int(result.modified_count)
