"""The searchable part of each content: its beginning, up to a number of different words.

MongoDB creates one index key for each different word of a note, in the transaction of the write. 100,000 keys fill its
cache, and all writes then wait for minutes. So the index covers ``words`` instead of the content, which is the
beginning of the content with at most :data:`MAX_WORDS` different words, and writes with many different words take
turns. ``words_version`` is the ``text_version`` of the content that ``words`` is from.
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
"""The maximum number of different words of a content that can be searched."""
MANY_WORDS = 2_000
"""Writes with more than this number of different words take turns."""
SHORT_CONTENT_CHARACTERS = 2 * MAX_WORDS
"""A content with up to this number of characters cannot have more than :data:`MAX_WORDS` words."""
WORD = re.compile(r"[^\W_\u2e2f]+")
"""A word as counted here. MongoDB splits text at fewer characters, and so never finds more words."""
WEIGHTS = {"title": 10, "tags": 5, "description": 5, "words": 1}
INDEX = "searched_text"
FORMER_INDEX = "words"
"""The index of earlier versions, of whole contents. A collection can have only one text index."""
REPAIR_TIMEOUT_SECONDS = 24 * 3600.0
REPAIR_BATCH_NOTES = 16
STALE: BsonDocument = {
    "$expr": {"$or": [{"$ne": ["$words_version", "$text_version"]}, {"$eq": [{"$type": "$words"}, "missing"]}]}
}


def index() -> IndexModel:
    """Return the text index of live notes."""
    return IndexModel(
        [(field, TEXT) for field in WEIGHTS],
        name=INDEX,
        weights=WEIGHTS,
        default_language="none",  # no stop words and no stemming, since notes may be in any language
        language_override="no_such_field",
        partialFilterExpression=LIVE,
    )


class SearchedPart(NamedTuple):
    """The part of a content that can be searched, and whether it has more than :data:`MANY_WORDS` different words."""

    text: str
    has_many_words: bool


async def searched_part(content: str) -> SearchedPart:
    """Return the part of a content that can be searched. The words of long contents are counted in a thread."""
    return (
        SearchedPart(content, False)
        if len(content) <= SHORT_CONTENT_CHARACTERS
        else await asyncio.to_thread(_part, content)
    )


def _part(content: str) -> SearchedPart:
    words: set[str] = set()
    for word in WORD.finditer(content):
        words.add(word[0].lower())
        if len(words) > MAX_WORDS:
            return SearchedPart(content[: word.start()], has_many_words=True)
    return SearchedPart(content, len(words) > MANY_WORDS)


class SearchedText:
    """Maintains the text index and the searched parts of the notes of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes

    async def prepare(self) -> None:
        """Create the index. If there is the index of an earlier version, first add the searched part to all notes.

        An interrupted migration continues at the next start. Search is unavailable between the removal of the former
        index and the completion of the new one.
        """
        if FORMER_INDEX in await self._notes.index_information():
            await self.repair()
            with contextlib.suppress(OperationFailure):  # another worker dropped it
                await self._notes.drop_index(FORMER_INDEX)
        await self._notes.create_indexes([index()])

    async def repair(self) -> int:
        """Correct searched parts that are missing or outdated, and return their number.

        A server of an earlier version that runs at the same time writes contents without them.
        """
        short = {**STALE, "$and": [{"$expr": {"$lte": [{"$strLenBytes": "$content"}, SHORT_CONTENT_CHARACTERS]}}]}
        copy_content: list[BsonDocument] = [{"$set": {"words": "$content", "words_version": "$text_version"}}]
        with self._connection.reading(REPAIR_TIMEOUT_SECONDS):
            result = await self._notes.update_many(short, copy_content)
            repaired = int(result.modified_count)
            fields = {"content": True, "text_version": True}
            async for note in self._notes.find(STALE, fields, batch_size=REPAIR_BATCH_NOTES):
                repaired += await self._set(note)
        return repaired

    async def _set(self, note: BsonDocument) -> int:
        version: Any = note.get("text_version")
        words, _ = await searched_part(note["content"])
        unchanged = {"_id": note["_id"], "text_version": version}
        result = await self._notes.update_one(unchanged, {"$set": {"words": words, "words_version": version}})
        return int(result.modified_count)
