"""Thinning keeps the last version of each past day, and every kept version is read as it was written."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.database import Database

from realtime.auth.permissions import UNRESTRICTED
from realtime.notes.models import NoteIn, NotePatch
from realtime.notes.retention import Retention
from tests.support.harness import Json, note_in
from tests.unit.conftest import Part, some_text, start, write

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


async def _create_aged_note(worker: Part, database: Database[Json], writes: int, per_day: int) -> dict[int, Json]:
    """Create a note with archived versions of many days until today, and return the written fields by version."""
    pick = random.Random(5)
    written = await start(worker, some_text(pick, 3000))
    for _ in range(writes - 1):
        await write(worker, pick, written)
        if pick.random() < 0.2:
            await worker.outbox.archive_and_clear()
    await worker.outbox.archive_and_clear()
    noon = NOW.replace(hour=12, minute=0, second=0, microsecond=0)
    for version in written:
        age = (writes - version) // per_day
        moment = noon - age * DAY + timedelta(minutes=version % per_day)
        key = {"_id": {"note": 1, "version": version}}
        assert database.history.update_one(key, {"$set": {"date": moment}}).matched_count == 1
    return written


def _retention(worker: Part, days: int) -> Retention:
    return Retention(worker.store, worker.notes, history_days=days, trash_days=30)


@pytest.mark.parametrize(("days", "old"), [(30, 5), (5, 20)])
async def test_old_versions_are_thinned_to_the_last_of_each_day(
    worker: Part, database: Database[Json], days: int, old: int
) -> None:
    per_day, writes = 2, 100
    written = await _create_aged_note(worker, database, writes, per_day)
    before = list(database.history.find())
    thinned = await _retention(worker, days).thin(NOW)

    rows = {row["_id"]["version"]: row for row in database.history.find()}
    border = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - days * DAY
    last = {row["date"].date(): row["_id"]["version"] for row in before if row["date"] < border}
    wanted = set(last.values()) | {row["_id"]["version"] for row in before if row["date"] >= border}
    assert wanted <= rows.keys()
    assert thinned == writes - len(rows)
    assert thinned > old
    note = database.notes.find_one() or {}
    needed = {note["text_version"], note["keyframe"]}
    for row in rows.values():
        needed |= {row["text_version"], row.get("base")}
    assert rows.keys() - wanted <= needed

    for version in rows:
        assert await worker.read(version) == written[version], version
    assert await worker.versions() == sorted(rows, reverse=True)
    assert await _retention(worker, days).thin(NOW) == 0
    assert {row["_id"]["version"]: row for row in database.history.find()} == rows


async def test_writes_after_thinning_are_readable(worker: Part, database: Database[Json]) -> None:
    written = await _create_aged_note(worker, database, 40, 10)
    await _retention(worker, 1).thin(NOW + 10 * DAY)
    kept = [row["_id"]["version"] for row in database.history.find()]
    pick = random.Random(6)
    for _ in range(20):
        await write(worker, pick, written)
        await worker.outbox.archive_and_clear()
    for version in [*kept, *range(41, 61)]:
        assert await worker.read(version) == written[version], version


async def test_concurrent_thinning_keeps_remaining_versions_readable(
    workers: list[Part], database: Database[Json]
) -> None:
    written = await _create_aged_note(workers[0], database, 80, 10)
    await asyncio.gather(*(_retention(worker, 1).thin(NOW) for worker in workers))
    versions = await workers[0].versions()
    for version in versions:
        assert await workers[0].read(version) == written[version], version
    assert len(versions) < 40


async def test_thinning_a_note_does_not_affect_other_notes(worker: Part, database: Database[Json]) -> None:
    for _ in range(3):
        await worker.notes.create(UNRESTRICTED, NoteIn(**note_in()))
    for id in (1, 2, 3):
        for number in range(5):
            await worker.notes.patch(UNRESTRICTED, id, NotePatch.model_validate({"title": f"title {number}"}))
    await worker.outbox.archive_and_clear()
    database.history.update_many({}, {"$set": {"date": NOW - 60 * DAY}})
    # Only titles changed. The last version is kept, and the first one for its text.
    assert await worker.store.history.thin(2, NOW) == 4
    assert [await worker.versions(id) for id in (1, 2, 3)] == [[6, 5, 4, 3, 2, 1], [6, 1], [6, 5, 4, 3, 2, 1]]
