"""Shared texts in MongoDB: they are created once, and no data is lost between note, rows and snapshot."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from realtime.store.database import Store
from realtime.store.notes import SharedTextChange
from realtime.store.texts import new_row
from tests.support.harness import Json, note_in


@pytest.fixture
async def store(store: Store) -> Store:
    await store.prepare()
    await store.notes.create(note_in(content="text", tags=[]), None)
    return store


async def begin_text(store: Store) -> str:
    await store.texts.begin(1, 1, b"first")
    stored = await store.texts.read(1)
    assert stored
    assert stored.lineage
    return stored.lineage


async def edit_text(store: Store, lineage: str, content: str, update: bytes) -> str:
    row = new_row(1, [update])
    assert await store.notes.update(1, {"content": content}, None, None, text=SharedTextChange(lineage, row))
    return row.id


async def test_concurrent_begins_store_one_genesis(store: Store, async_database: AsyncDatabase[Json]) -> None:
    assert (await store.texts.read(1)).lineage is None  # type: ignore[union-attr]
    await asyncio.gather(*(store.texts.begin(1, 1, f"{number}".encode()) for number in range(20)))
    stored = await store.texts.read(1)
    assert stored
    assert await async_database.texts.count_documents({}) == 1
    await store.texts.begin(1, 1, b"late")
    again = await store.texts.read(1)
    assert again == stored


async def test_begin_at_an_outdated_version_stores_nothing(store: Store, async_database: AsyncDatabase[Json]) -> None:
    await store.notes.update(1, {"content": "other"}, None, None)
    await store.texts.begin(1, 1, b"text")
    assert (await store.texts.read(1)).lineage is None  # type: ignore[union-attr]
    assert await async_database.texts.count_documents({}) == 0
    assert await store.texts.read(2) is None


async def test_content_write_with_a_shared_text_requires_its_lineage(store: Store) -> None:
    lineage = await begin_text(store)
    assert await store.notes.update(1, {"content": "past it"}, None, None) is None
    assert await store.notes.update(1, {"content": "past it"}, None, None, text=SharedTextChange("another")) is None
    assert await store.notes.update(1, {"title": "other"}, None, None)
    assert await store.notes.update(1, {"content": "through"}, None, None, text=SharedTextChange(lineage))


async def test_edit_moves_from_the_note_to_row_to_snapshot(store: Store, async_database: AsyncDatabase[Json]) -> None:
    lineage = await begin_text(store)
    row = await edit_text(store, lineage, "one", b"edit")
    for _ in range(3):
        stored = await store.texts.read(1)
        assert stored
        assert [(one.id, one.updates) for one in stored.rows] == [(row, [b"edit"])]
        assert stored.edited == row
        await asyncio.gather(*(store.archiver.archive([1]) for _ in range(3)))
        assert (await async_database.notes.find_one({"_id": 1}) or {})["edits"] == []
        assert await async_database.updates.count_documents({}) == 1
    assert await store.texts.compact(lineage, 0, b"folded", {row})
    stored = await store.texts.read(1)
    assert stored
    assert (stored.rows, stored.snapshot, stored.generation) == ([], b"folded", 1)


async def test_piece_count_belongs_to_one_snapshot(store: Store, async_database: AsyncDatabase[Json]) -> None:
    lineage = await begin_text(store)
    for generation, pieces in enumerate((7, None, 9)):
        assert await store.texts.compact(lineage, generation, b"state", set(), pieces)
        stored = await store.texts.read(1)
        assert stored
        assert stored.pieces == pieces
    # An older server replaces the snapshot without counting its pieces.
    await async_database.texts.update_one({"_id": lineage}, {"$set": {"state": b"new"}, "$inc": {"generation": 1}})
    stored = await store.texts.read(1)
    assert stored
    assert stored.pieces is None


async def test_compact_succeeds_once_per_generation_and_deletes_its_rows(store: Store) -> None:
    lineage = await begin_text(store)
    rows = [new_row(1, [f"{number}".encode()]) for number in range(3)]
    await store.texts.journal(rows)
    compactions = [
        store.texts.compact(lineage, 0, f"{number}".encode(), {rows[0].id, rows[1].id}) for number in range(5)
    ]
    assert sorted(await asyncio.gather(*compactions)) == [False] * 4 + [True]
    stored = await store.texts.read(1)
    assert stored
    assert [row.id for row in stored.rows] == [rows[2].id]
    assert not await store.texts.compact(lineage, 0, b"late", {rows[2].id})
    assert not await store.texts.compact("another", 1, b"late", {rows[2].id})
    known = await store.texts.read(1, known=[rows[2].id], generation=1)
    assert known
    assert (known.rows, known.snapshot, known.generation) == ([], None, 1)
    older = await store.texts.read(1, known=[rows[2].id], generation=0)
    assert older
    assert older.snapshot is not None
    assert await store.texts.journaled([1, 2]) == ({1}, {1: 1}, {1: {rows[2].id}})


async def test_unfinished_returns_the_texts_with_rows(store: Store) -> None:
    assert await store.texts.unfinished(0, 10) == {}
    rows = [new_row(note, [b"x"]) for note in (3, 1, 2, 1)]
    await store.texts.journal(rows)
    assert await store.texts.unfinished(0, 2) == {1: f"{rows[3].id}:2", 2: f"{rows[2].id}:1"}
    assert await store.texts.unfinished(2, 2) == {3: f"{rows[0].id}:1"}


async def test_purged_note_leaves_no_data_of_its_text(store: Store, async_database: AsyncDatabase[Json]) -> None:
    lineage = await begin_text(store)
    await edit_text(store, lineage, "one", b"edit")
    await store.texts.journal([new_row(1, [b"x"])])
    await store.notes.delete(1, None, None)
    assert await store.texts.read(1) is None
    await store.notes.purge(1, None, None)
    await store.texts.forget([1])
    assert await async_database.texts.count_documents({}) == await async_database.updates.count_documents({}) == 0
    note: dict[str, Any] = await async_database.notes.find_one({"_id": 1}) or {}
    assert not {"lineage", "edits", "edited"} & set(note)
