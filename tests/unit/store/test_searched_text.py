"""The searched part of a note: bounded by its words, and added to notes of earlier releases."""

from __future__ import annotations

import asyncio
from typing import Any

from pymongo import TEXT
from pymongo.asynchronous.database import AsyncDatabase

from realtime.notes.listing import Listing
from realtime.notes.models import MAX_CONTENT_BYTES
from realtime.store.database import Store
from realtime.store.searched_text import FORMER_INDEX, INDEX, MAX_WORDS, SHORT_CONTENT_CHARACTERS, WEIGHTS
from tests.support.harness import Json, note_in

FORMER_FIELDS = ("title", "tags", "description", "content")
WORDY = " ".join(f"Word{number}" for number in range(MAX_WORDS)) + " word1 beyond the bound"
"""A content with more words than are searched. The first of the others repeats an earlier word in another case."""


def fields(content: str) -> Json:
    return note_in(content=content, tags=[])


async def search_ids(store: Store, words: str) -> list[int]:
    page = await store.lists.page(Listing(q=words, sort="id"))
    return [note["id"] for note in page.notes]


async def check_bounded(store: Store, database: AsyncDatabase[Json], id: int) -> None:
    record = await store.notes.find(id)
    assert record is not None
    assert record.note.content == WORDY
    stored: Any = await database.notes.find_one({"_id": id})
    assert stored["words"] == WORDY.removesuffix("beyond the bound")
    assert stored["words_version"] == stored["text_version"]
    assert await search_ids(store, f"word{MAX_WORDS - 1}") == [id]
    assert await search_ids(store, '"word41 word42"') == [id]
    assert await search_ids(store, "beyond") == []


async def test_new_note_is_searched_up_to_the_word_limit(store: Store, async_database: AsyncDatabase[Json]) -> None:
    await store.prepare()
    await store.notes.create(fields(WORDY), None)
    await check_bounded(store, async_database, 1)


async def test_updated_note_is_searched_up_to_the_word_limit(store: Store, async_database: AsyncDatabase[Json]) -> None:
    await store.prepare()
    await store.notes.create(fields("beyond"), None)
    assert await search_ids(store, "beyond") == [1]
    await store.notes.update(1, {"content": WORDY}, None, None)
    await store.notes.update(1, {"title": "other"}, None, None)
    await check_bounded(store, async_database, 1)


async def test_large_note_of_few_words_is_searched_to_its_end(store: Store) -> None:
    await store.prepare()
    await store.notes.create(fields(("few words " * MAX_CONTENT_BYTES)[: MAX_CONTENT_BYTES - 5] + " last"), None)
    assert await search_ids(store, '"few words" last') == [1]


async def test_concurrent_writes_with_many_words_are_all_applied(
    store: Store, async_database: AsyncDatabase[Json]
) -> None:
    await store.prepare()
    await asyncio.gather(*(store.notes.create(fields(WORDY), None, author=f"user{number % 3}") for number in range(6)))
    await asyncio.gather(*(store.notes.update(id, {"content": WORDY[1:]}, None, None) for id in range(1, 7)))
    assert await async_database.notes.count_documents({"content": WORDY[1:], "version": 2}) == 6


async def downgrade_database(database: AsyncDatabase[Json]) -> None:
    """Change the database to the format of an earlier release."""
    await database.notes.update_many({}, {"$unset": {"words": "", "words_version": ""}})
    await database.notes.drop_index(INDEX)
    await database.notes.create_index(
        [(field, TEXT) for field in FORMER_FIELDS],
        name=FORMER_INDEX,
        weights={field: WEIGHTS.get(field, 1) for field in FORMER_FIELDS},
        default_language="none",
        language_override="no_such_field",
        partialFilterExpression={"deleted": False},
    )


async def test_notes_of_an_earlier_release_are_searched_after_prepare(
    store: Store, async_database: AsyncDatabase[Json]
) -> None:
    await store.prepare()
    for content in (WORDY, "short", "long enough " * SHORT_CONTENT_CHARACTERS):
        await store.notes.create(fields(content), None)
    await downgrade_database(async_database)
    await async_database.notes.update_one({"_id": 2}, {"$set": {"words": "short", "words_version": 1}})  # interrupted
    await asyncio.gather(store.prepare(), store.prepare())
    await store.prepare()
    assert {INDEX, FORMER_INDEX} & set(await async_database.notes.index_information()) == {INDEX}
    await check_bounded(store, async_database, 1)
    assert await search_ids(store, "short") == [2]
    assert await search_ids(store, "enough") == [3]
    assert await store.searched.repair() == 0


async def test_contents_written_by_an_earlier_release_are_searched_after_repair(
    store: Store, async_database: AsyncDatabase[Json]
) -> None:
    await store.prepare()
    for _ in range(3):
        await store.notes.create(fields("before"), None)
    await async_database.notes.update_one({"_id": 1}, {"$set": {"content": WORDY}, "$inc": {"text_version": 1}})
    await async_database.notes.update_one({"_id": 2}, {"$set": {"content": "after"}, "$inc": {"text_version": 1}})
    assert await store.searched.repair() == 2
    await check_bounded(store, async_database, 1)
    assert await search_ids(store, "after") == [2]
    assert await search_ids(store, "before") == [3]
