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
from realtime.notes.preconditions import Conditions
from realtime.notes.retention import BATCH_NOTES, Retention
from realtime.settings import Settings
from realtime.store.texts import new_row
from tests.support.harness import eventually

TRASH_DAYS = 7


@pytest.fixture
async def services(settings: Settings) -> AsyncIterator[Services]:
    """Start an application, and return its services."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app.state.services


@pytest.fixture
def retention_service(services: Services) -> Retention:
    """Return the retention of this application."""
    return Retention(services.store, services.notes, history_days=30, trash_days=TRASH_DAYS)


async def _create_in_trash(services: Services, count: int) -> list[int]:
    """Create notes in the trash, and return their ids."""
    note = NoteIn(title="title", description="description", content="text")
    made = [(await services.notes.create(UNRESTRICTED, note)).id for _ in range(count)]
    await asyncio.gather(*(services.notes.delete(UNRESTRICTED, id) for id in made))
    return made


def _time_in(days: float = TRASH_DAYS, seconds: float = 0) -> datetime:
    return datetime.now(UTC) + timedelta(days=days, seconds=seconds)


async def _ids_in_trash(services: Services) -> set[int]:
    notes, _ = await services.queries.trash(UNRESTRICTED, None, 1000)
    return {note.id for note in notes}


async def test_only_notes_past_the_trash_period_are_purged(services: Services, retention_service: Retention) -> None:
    live = await services.notes.create(UNRESTRICTED, NoteIn(title="live", description="words"))
    old = await _create_in_trash(services, 2)
    between = datetime.now(UTC)
    # Dates are stored in milliseconds.
    await eventually(lambda: datetime.now(UTC) - between > timedelta(milliseconds=1))
    young = await _create_in_trash(services, 2)
    assert await retention_service.expire(_time_in(seconds=-60)) == 0
    assert await _ids_in_trash(services) == {*old, *young}
    assert await retention_service.expire(between + timedelta(days=TRASH_DAYS, milliseconds=1)) == len(old)
    assert await _ids_in_trash(services) == set(young)
    assert await services.queries.get(UNRESTRICTED, live.id) == live
    assert await retention_service.expire(_time_in(seconds=1)) == len(young)
    assert await _ids_in_trash(services) == set()
    assert await retention_service.expire(_time_in(days=10_000)) == 0


async def test_purged_note_loses_its_history_and_is_published_as_deleted(
    services: Services, retention_service: Retention
) -> None:
    (id,) = await _create_in_trash(services, 1)
    await services.outbox.flush()
    assert await services.store.history.read(id, 1)
    await retention_service.tidy(_time_in(seconds=1))
    await services.outbox.flush()
    assert await services.store.history.read(id, 1) is None
    (change,) = await services.store.notes.changes([id])
    assert (change.note.version, change.deleted, change.note.content) == (3, True, "")
    record = await services.store.notes.find(id)
    assert record
    assert record.purged
    with pytest.raises(NoteNotFound):
        await services.notes.undelete(UNRESTRICTED, id)


async def test_leftover_texts_of_purged_notes_are_removed(
    services: Services, retention_service: Retention, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_NOTES", 3)
    live = [(await services.notes.create(UNRESTRICTED, NoteIn(title="live", description="words"))).id for _ in range(3)]
    purged, trashed = await _create_in_trash(services, 5), await _create_in_trash(services, 3)
    for id in purged:
        await services.notes.purge(UNRESTRICTED, id)
    texts = services.store.texts
    async with AsyncMongoClient[dict[str, Any]](settings.mongo_url) as client:
        database = client[settings.database]
        for id in (*live, *purged, *trashed):
            await texts.journal([new_row(id, [b"x"]) for _ in range(2)])
        for id in (*live, *purged[2:], *trashed):
            await database.texts.insert_one({"note": id, "generation": 0, "state": b""})
        assert await retention_service.sweep() == len(purged)
        assert await retention_service.sweep() == 0
        for left in (database.updates, database.texts):
            assert sorted(await left.distinct("note")) == sorted([*live, *trashed])
        assert await database.updates.count_documents({}) == 2 * len([*live, *trashed])


async def test_restored_note_is_not_purged(services: Services, retention_service: Retention) -> None:
    first, second = await _create_in_trash(services, 2)
    await services.notes.undelete(UNRESTRICTED, first)
    assert await retention_service.expire(_time_in(seconds=1)) == 1
    assert (await services.queries.get(UNRESTRICTED, first)).version == 3
    assert (await services.store.notes.find(second)) is not None


async def test_note_restored_during_a_purge_is_kept(
    services: Services, retention_service: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await _create_in_trash(services, 2)
    purge = services.notes.purge

    async def purge_late(principal: Principal, id: int, conditions: Conditions) -> None:
        if id == first:
            await services.notes.undelete(UNRESTRICTED, first)
        await purge(principal, id, conditions)

    monkeypatch.setattr(services.notes, "purge", purge_late)
    assert await retention_service.expire(_time_in(seconds=1)) == 1
    assert await _ids_in_trash(services) == set()
    assert (await services.queries.get(UNRESTRICTED, first)).content == "text"
    with pytest.raises(NoteNotFound):
        await services.queries.get(UNRESTRICTED, second)


async def test_note_deleted_again_during_a_purge_stays_in_the_trash(
    services: Services, retention_service: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id,) = await _create_in_trash(services, 1)
    expired = services.store.lists.expired
    calls = []

    async def expire_and_delete_again(before: datetime, limit: int) -> Mapping[int, int]:
        calls.append(before)
        if len(calls) > 1:
            return {}
        found = await expired(before, limit)
        await services.notes.undelete(UNRESTRICTED, id)
        await services.notes.delete(UNRESTRICTED, id)
        return found

    monkeypatch.setattr(services.store.lists, "expired", expire_and_delete_again)
    assert await retention_service.expire(_time_in(seconds=1)) == 0
    assert (await services.queries.trashed(UNRESTRICTED, id)).content == "text"


async def test_concurrent_purges_delete_each_note_once(services: Services, retention_service: Retention) -> None:
    made = await _create_in_trash(services, 20)
    purged = await asyncio.gather(
        retention_service.expire(_time_in(seconds=1)), retention_service.expire(_time_in(seconds=1))
    )
    assert sum(purged) == len(made)
    versions = {change.note.id: change.note.version for change in await services.store.notes.changes(made)}
    assert versions == dict.fromkeys(made, 3)


async def test_expired_notes_over_the_batch_size_are_all_purged(
    services: Services, retention_service: Retention
) -> None:
    count = BATCH_NOTES + 5
    notes = services.store.notes
    await asyncio.gather(
        *(
            notes.insert(id, NoteIn(title="many", description="words").model_dump(), None, "create")
            for id in range(1, count + 1)
        )
    )
    await asyncio.gather(*(notes.delete(id, None, None) for id in range(1, count + 1)))
    assert await retention_service.expire(_time_in(seconds=1)) == count
    assert await _ids_in_trash(services) == set()
