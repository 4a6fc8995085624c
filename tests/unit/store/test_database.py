"""Notes in MongoDB: versions, marks, idempotency keys, and translated driver errors."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from realtime.errors import OutcomeUnknown, Unavailable
from realtime.notes.listing import Listing, Page
from realtime.notes.preconditions import KEPT_OPERATIONS, Operation
from realtime.store.bootstrap import check_url
from realtime.store.claims import CLAIM_SECONDS
from realtime.store.database import Store
from tests.support.harness import Json, eventually, note_in

FIELDS = note_in(content="", tags=[])


async def test_every_change_increments_the_version_by_one(store: Store) -> None:
    await store.prepare()
    made = await store.notes.create(FIELDS, None)
    changed = await store.notes.update(1, {"title": "other"}, None, None)
    deleted = await store.notes.delete(1, {2}, None)
    assert made
    assert changed
    assert deleted
    assert [change.note.version for change in (made, changed, deleted)] == [1, 2, 3]
    assert [change.deleted for change in (made, changed, deleted)] == [False, False, True]
    assert changed.note.created_date == made.note.created_date == made.note.updated_date < changed.note.updated_date
    assert made.note.created_date.utcoffset() == timedelta(0)

    assert await store.notes.update(1, {"title": "late"}, None, None) is None
    assert await store.notes.delete(1, None, None) is None
    assert await store.lists.page(Listing()) == Page([], None)
    tombstone = await store.notes.find(1)
    assert tombstone
    assert tombstone.deleted
    assert tombstone.note == deleted.note


async def test_update_or_delete_at_another_version_is_rejected(store: Store) -> None:
    await store.notes.create(FIELDS, None)
    for versions in (set[int](), {2}, {2, 3}):
        assert await store.notes.update(1, {"title": "other"}, versions, None) is None
        assert await store.notes.delete(1, versions, None) is None
    found = await store.notes.find(1)
    assert found
    assert found.note.version == 1


async def test_new_id_is_above_existing_notes_after_counter_loss(
    store: Store, async_database: AsyncDatabase[Json]
) -> None:
    for _ in range(3):
        await store.notes.create(FIELDS, None)
    await async_database.counters.drop()
    made = await store.notes.create(FIELDS, None)
    assert made
    assert made.note.id == 4


async def test_counter_that_is_far_behind_is_corrected_at_once(
    store: Store, async_database: AsyncDatabase[Json], caplog: pytest.LogCaptureFixture
) -> None:
    await store.notes.create(FIELDS, None)
    last = await async_database.notes.find_one({"_id": 1}) or {}
    await async_database.notes.insert_many({**last, "_id": id} for id in range(2, 2000))
    made = await asyncio.gather(*(store.notes.create(FIELDS, None) for _ in range(10)))
    assert sorted(change.note.id for change in made if change) == list(range(2000, 2010))
    assert len(caplog.records) <= 20


async def test_notes_created_at_the_same_time_do_not_affect_each_other(store: Store) -> None:
    await store.prepare()
    await store.notes.create(FIELDS, "used")
    tokens = [None, "used", "a", None, "a", "used", *[None] * 100]
    made = await asyncio.gather(*(store.notes.create(FIELDS | {"title": f"note {n}"}, t) for n, t in enumerate(tokens)))
    assert [change is not None for change in made].count(False) == 3
    ids = [change.note.id for change in made if change]
    assert len(set(ids)) == len(ids) == len(tokens) - 3
    for change in made:
        if change:
            found = await store.notes.find(change.note.id)
            assert found
            assert found.note == change.note


async def test_idempotency_key_is_applied_once_per_note(store: Store) -> None:
    await store.prepare()
    assert await store.notes.create(FIELDS, "create")
    assert await store.notes.create(FIELDS, "create") is None
    assert await store.notes.update(1, {"title": "other"}, None, "update")
    assert await store.notes.update(1, {"title": "other"}, None, "update") is None
    assert await store.notes.update(1, {"title": "other"}, None, "create") is None
    assert await store.notes.delete(1, None, "update") is None
    origin = await store.notes.find_origin("create")
    assert origin
    assert origin.operations == ["create", "update"]


async def test_note_keeps_its_last_operations(store: Store) -> None:
    await store.notes.create(FIELDS, None)
    for number in range(KEPT_OPERATIONS + 1):
        await store.notes.update(1, {"title": "other"}, None, f"key-{number}")
    found = await store.notes.find(1)
    assert found
    assert found.operations == [f"key-{number}" for number in range(1, KEPT_OPERATIONS + 1)]


async def test_dirty_mark_is_cleared_only_at_the_archived_version(store: Store) -> None:
    for _ in range(3):
        await store.notes.create(FIELDS, None)
    await store.notes.update(2, {"title": "other"}, None, None)
    assert await store.notes.dirty(10) == {1: 1, 2: 2, 3: 1}
    assert len(await store.notes.dirty(2)) == 2
    await store.archiver.archive([1, 2])
    assert await store.notes.dirty(10) == {1: 1, 2: 2, 3: 1}
    await store.archiver.archive([], {1: 1, 2: 1, 3: 1})

    async def cleared() -> bool:  # the majority snapshot lags a little
        return await store.notes.dirty(10) == {2: 2}

    await eventually(cleared)
    await store.notes.delete(1, None, None)
    assert await store.notes.dirty(10) == {1: 2, 2: 2}
    changes = await store.notes.changes([1, 2, 9])
    assert {(change.note.id, change.note.version, change.deleted) for change in changes} == {
        (1, 2, True),
        (2, 2, False),
    }


async def test_claim_belongs_to_the_first_request(store: Store) -> None:
    await store.prepare()
    mine, other = Operation("key", b"mine"), Operation("key", b"other")
    made = await store.notes.create(FIELDS, "key")
    assert made
    for operation in (mine, mine, other):
        claim = await store.claims.claim(operation)
        assert (claim.fingerprint, claim.response) == (b"mine", None)
    await store.claims.store_response("key", made.note)
    await store.claims.release("key")
    assert (await store.claims.claim(other)).response == made.note


async def test_released_claim_can_be_claimed_again(store: Store) -> None:
    await store.claims.claim(Operation("key", b"mine"))
    await store.claims.release("key")
    assert (await store.claims.claim(Operation("key", b"other"))).fingerprint == b"other"


async def test_prepare_creates_expiry_and_dirty_indexes(store: Store, async_database: AsyncDatabase[Json]) -> None:
    await store.prepare(accounts=True)
    await store.prepare(accounts=True)
    claims = await async_database.operations.index_information()
    assert claims["expiry"]["expireAfterSeconds"] == CLAIM_SECONDS
    audit = await async_database.audit.index_information()
    assert audit["expiry"]["expireAfterSeconds"] == 90 * 24 * 3600
    plan = await async_database.notes.find({"dirty": True}).explain()
    assert "dirty" in str(plan["queryPlanner"]["winningPlan"])


@pytest.mark.parametrize("url", ["mongodb://127.0.0.1:1/?directConnection=true", "mongodb://127.0.0.1:1/?replicaSet=x"])
async def test_unreachable_mongodb_raises_outcome_unknown_or_unavailable(url: str) -> None:
    store = Store(url, "test", write_timeout=0.1, read_timeout=0.1)
    writes = (
        store.notes.create(FIELDS, None),
        store.notes.update(1, {}, None, None),
        store.claims.claim(Operation("key", b"")),
    )
    reads = (store.notes.find(1), store.lists.page(Listing()), store.notes.dirty(1), store.prepare(), store.ping(0.1))
    outcomes = await asyncio.gather(*writes, *reads, return_exceptions=True)
    await store.aclose()
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * len(writes) + [Unavailable] * len(reads)


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://localhost", "mongodb://", "mongodb://host:0", "mongodb://a:b:c@h"]
)
def test_invalid_mongodb_url_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="MongoDB URL"):
        check_url(url)


def test_valid_mongodb_url_is_accepted() -> None:
    check_url("mongodb://one:27017,two:27018/?replicaSet=set")


async def test_invalid_document_does_not_fail_reads_of_other_notes(
    store: Store, async_database: AsyncDatabase[Json]
) -> None:
    made = await store.notes.create(note_in(content="", tags=[]), None)
    assert made
    await async_database.notes.insert_one({"_id": 99})
    for read in (store.notes.state, store.notes.find):
        ids = (made.note.id, 99, 98)
        found, broken, none = await asyncio.gather(*(read(id) for id in ids), return_exceptions=True)
        assert found is not None
        assert not isinstance(found, BaseException)
        assert isinstance(broken, KeyError)
        assert none is None
