"""Retention: only notes that were in the trash for too long are purged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from realtime import create_app
from realtime.api.services import Services
from realtime.auth.permissions import UNRESTRICTED, Principal
from realtime.errors import NoteNotFound
from realtime.notes import retention
from realtime.notes.models import NoteIn
from realtime.notes.preconditions import Versions
from realtime.notes.retention import BATCH_NOTES, Retention
from realtime.settings import Settings
from realtime.store.texts import new_row
from tests.support.harness import eventually

TRASH_DAYS = 7


@pytest.fixture
async def parts(settings: Settings) -> AsyncIterator[Services]:
    """The parts of a running application."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app.state.services


@pytest.fixture
def cluster(parts: Services) -> Retention:
    """The housekeeping of those parts."""
    return Retention(parts.store, parts.notes, history_days=30, trash_days=TRASH_DAYS)


async def _trash(parts: Services, many: int) -> list[int]:
    """Puts new notes into the trash."""
    note = NoteIn(title="title", description="description", content="text")
    made = [(await parts.notes.create(UNRESTRICTED, note, None)).id for _ in range(many)]
    await asyncio.gather(*(parts.notes.delete(UNRESTRICTED, id, None, None) for id in made))
    return made


def _later(days: float = TRASH_DAYS, seconds: float = 0) -> datetime:
    return datetime.now(UTC) + timedelta(days=days, seconds=seconds)


async def _left(parts: Services) -> set[int]:
    notes, _ = await parts.queries.trash(UNRESTRICTED, None, 1000)
    return {note.id for note in notes}


async def test_purges_only_what_is_old_enough(parts: Services, cluster: Retention) -> None:
    live = await parts.notes.create(UNRESTRICTED, NoteIn(title="live", description="words"), None)
    old = await _trash(parts, 2)
    between = datetime.now(UTC)
    await eventually(lambda: datetime.now(UTC) - between > timedelta(milliseconds=1))  # what dates are told in
    young = await _trash(parts, 2)
    assert await cluster.expire(_later(seconds=-60)) == 0
    assert await _left(parts) == {*old, *young}
    assert await cluster.expire(between + timedelta(days=TRASH_DAYS, milliseconds=1)) == len(old)
    assert await _left(parts) == set(young)
    assert await parts.queries.get(UNRESTRICTED, live.id) == live
    assert await cluster.expire(_later(seconds=1)) == len(young)
    assert await _left(parts) == set()
    assert await cluster.expire(_later(days=10_000)) == 0


async def test_purged_with_its_history_and_told_on_the_feed(parts: Services, cluster: Retention) -> None:
    (id,) = await _trash(parts, 1)
    await parts.outbox.flush()
    assert await parts.store.history.read(id, 1)
    await cluster.tidy(_later(seconds=1))
    await parts.outbox.flush()
    assert await parts.store.history.read(id, 1) is None
    (change,) = await parts.store.notes.changes([id])
    assert (change.note.version, change.deleted, change.note.content) == (3, True, "")
    record = await parts.store.notes.find(id)
    assert record
    assert record.purged
    with pytest.raises(NoteNotFound):
        await parts.notes.undelete(UNRESTRICTED, id, None, None)


async def test_what_is_left_of_the_texts_of_purged_notes_goes(
    parts: Services, cluster: Retention, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_NOTES", 3)
    live = [
        (await parts.notes.create(UNRESTRICTED, NoteIn(title="live", description="words"), None)).id for _ in range(3)
    ]
    purged, trashed = await _trash(parts, 5), await _trash(parts, 3)
    for id in purged:
        await parts.notes.purge(UNRESTRICTED, id, None, None)
    texts = parts.store.texts
    async with AsyncMongoClient[dict[str, Any]](settings.mongo_url) as client:
        database = client[settings.database]
        for id in (*live, *purged, *trashed):
            await texts.journal([new_row(id, [b"x"]) for _ in range(2)])
        for id in (*live, *purged[2:], *trashed):
            await database.texts.insert_one({"note": id, "generation": 0, "state": b""})
        assert await cluster.sweep() == len(purged)
        assert await cluster.sweep() == 0
        for left in (database.updates, database.texts):
            assert sorted(await left.distinct("note")) == sorted([*live, *trashed])
        assert await database.updates.count_documents({}) == 2 * len([*live, *trashed])


async def test_restored_note_is_not_purged(parts: Services, cluster: Retention) -> None:
    first, second = await _trash(parts, 2)
    await parts.notes.undelete(UNRESTRICTED, first, None, None)
    assert await cluster.expire(_later(seconds=1)) == 1
    assert (await parts.queries.get(UNRESTRICTED, first)).version == 3
    assert (await parts.store.notes.find(second)) is not None


async def test_note_that_is_restored_while_others_are_purged_stays(
    parts: Services, cluster: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await _trash(parts, 2)
    purge = parts.notes.purge

    async def purge_late(principal: Principal, id: int, versions: Versions, operation: None) -> None:
        if id == first:
            await parts.notes.undelete(UNRESTRICTED, first, None, None)
        await purge(principal, id, versions, operation)

    monkeypatch.setattr(parts.notes, "purge", purge_late)
    assert await cluster.expire(_later(seconds=1)) == 1
    assert await _left(parts) == set()
    assert (await parts.queries.get(UNRESTRICTED, first)).content == "text"
    with pytest.raises(NoteNotFound):
        await parts.queries.get(UNRESTRICTED, second)


async def test_note_that_is_deleted_anew_meanwhile_stays_in_the_trash(
    parts: Services, cluster: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id,) = await _trash(parts, 1)
    expired = parts.store.lists.expired
    asked = []

    async def deleted_anew(before: datetime, most: int) -> Mapping[int, int]:
        asked.append(before)
        if len(asked) > 1:
            return {}
        found = await expired(before, most)
        await parts.notes.undelete(UNRESTRICTED, id, None, None)
        await parts.notes.delete(UNRESTRICTED, id, None, None)
        return found

    monkeypatch.setattr(parts.store.lists, "expired", deleted_anew)
    assert await cluster.expire(_later(seconds=1)) == 0
    assert (await parts.queries.trashed(UNRESTRICTED, id)).content == "text"


async def test_two_at_once_purge_each_note_once(parts: Services, cluster: Retention) -> None:
    made = await _trash(parts, 20)
    purged = await asyncio.gather(cluster.expire(_later(seconds=1)), cluster.expire(_later(seconds=1)))
    assert sum(purged) == len(made)
    versions = {change.note.id: change.note.version for change in await parts.store.notes.changes(made)}
    assert versions == dict.fromkeys(made, 3)


async def test_purges_in_batches_until_nothing_is_left(parts: Services, cluster: Retention) -> None:
    many = BATCH_NOTES + 5
    notes = parts.store.notes
    await asyncio.gather(
        *(
            notes.insert(id, NoteIn(title="many", description="words").model_dump(), None, "create")
            for id in range(1, many + 1)
        )
    )
    await asyncio.gather(*(notes.delete(id, None, None) for id in range(1, many + 1)))
    assert await cluster.expire(_later(seconds=1)) == many
    assert await _left(parts) == set()
