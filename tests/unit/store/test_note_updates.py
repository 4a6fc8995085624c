"""Batched updates: each has the same result as alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from pymongo.asynchronous.collection import AsyncCollection

from realtime.errors import OutcomeUnknown, TooManyPendingRevisions
from realtime.notes.models import NoteChange
from realtime.settings import Settings
from realtime.store.database import Store
from realtime.store.note_updates import UpdateBatcher
from realtime.store.notes import SharedTextChange
from tests.support.harness import Json, note_in

FIELDS = note_in(content="", tags=[])


class Spy:
    """Records the sizes of batches, and calls ``after`` between the updates and reading the notes."""

    def __init__(self) -> None:
        self.after: Callable[[], Awaitable[None]] | None = None
        self.sizes: list[int] = []


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy, bulk_write = Spy(), AsyncCollection.bulk_write

    async def spied(collection: AsyncCollection[Json], updates: Sequence[Any], **options: Any) -> Any:
        spy.sizes.append(len(updates))
        result = await bulk_write(collection, updates, **options)
        if spy.after is not None:
            await spy.after()
        return result

    monkeypatch.setattr(AsyncCollection, "bulk_write", spied)
    return spy


@pytest.fixture
async def stores(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Store]]:
    """Return the stores of two workers."""
    assert settings.mongo_url
    # Concurrent updates are one batch.
    monkeypatch.setattr("realtime.store.note_updates.UpdateBatcher", partial(UpdateBatcher, concurrency=1))
    stores = [Store(settings.mongo_url, settings.database, write_timeout=5, read_timeout=5) for _ in range(2)]
    await stores[0].prepare()
    for _ in range(5):
        await stores[0].notes.create(FIELDS, None)
    yield stores
    for store in stores:
        await store.aclose()


async def together(*updates: Any) -> list[NoteChange | BaseException | None]:
    """Return the outcomes of updates that run in one batch."""
    outcomes: list[NoteChange | BaseException | None] = await asyncio.gather(*updates, return_exceptions=True)
    return outcomes


async def test_batched_update_has_the_same_result_as_alone(stores: list[Store], spy: Spy) -> None:
    store = stores[0]
    assert await store.notes.update(3, {"title": "first"}, None, "key")
    outcomes = await together(
        store.notes.update(1, {"title": "any"}, None, None),
        store.notes.update(2, {"title": "stale"}, {7}, None),
        store.notes.update(3, {"title": "again"}, None, "key"),
        store.notes.update(4, {"content": "shared"}, None, None, text=SharedTextChange("other")),
        store.notes.update(5, {"title": "keyed"}, {1}, "other key"),
        store.notes.update(99, {"title": "nowhere"}, None, None),
    )
    assert spy.sizes == [6]
    assert [outcome and outcome.note.title for outcome in outcomes if not isinstance(outcome, BaseException)] == [
        *("any", None, None, None, "keyed", None),
    ]
    keyed = await store.notes.find(5)
    assert keyed
    assert (keyed.note.version, keyed.operations) == (2, ["other key"])
    assert await store.history.version_of(5, "other key") == 2


async def test_overtaken_update_returns_its_own_version(stores: list[Store], spy: Spy) -> None:
    """Another worker writes, and archives both revisions, before the notes are read."""
    store, other = stores

    async def overtake() -> None:
        for id in (1, 2):
            assert await other.notes.update(id, {"title": "theirs", "content": "theirs"}, None, None)
        await other.archiver.archive({1})

    spy.after = overtake
    one, two, three, none = await together(
        store.notes.update(1, {"title": "archived", "content": "mine"}, None, None),
        store.notes.update(2, {"title": "in the note"}, None, None),
        store.notes.update(3, {"title": "last"}, None, None),
        store.notes.update(4, {"title": "stale"}, {9}, None),
    )
    assert spy.sizes == [4]
    assert none is None
    assert [
        (change.note.id, change.note.version, change.note.title, change.note.content)
        for change in (one, two, three)
        if isinstance(change, NoteChange)
    ] == [(1, 2, "archived", "mine"), (2, 2, "in the note", ""), (3, 2, "last", "")]
    newest = await store.notes.find(1)
    assert newest
    assert (newest.note.version, newest.note.title) == (3, "theirs")


async def test_overtaken_update_without_history_raises_outcome_unknown(stores: list[Store], spy: Spy) -> None:
    """Another worker writes, archives both revisions, and the history loses them."""
    store, other = stores

    async def overtake() -> None:
        await other.notes.update(1, {"title": "theirs"}, None, None)
        await other.archiver.archive({1})
        await other.history.forget([1])

    spy.after = overtake
    one, two = await together(
        store.notes.update(1, {"title": "mine"}, None, None), store.notes.update(2, {"title": "last"}, None, None)
    )
    assert isinstance(one, OutcomeUnknown)
    assert isinstance(two, NoteChange)


async def test_concurrent_updates_return_their_own_changes(stores: list[Store]) -> None:
    answers: dict[int, dict[int, str]] = {1: {}, 2: {}, 3: {}}

    async def write(worker: int, number: int) -> None:
        id, title = number % 3 + 1, f"title {worker} {number}"
        change = await stores[worker].notes.update(id, {"title": title, "content": title}, None, None)
        assert change
        assert (change.note.title, change.note.content) == (title, title)
        answers[id][change.note.version] = title
        if number % 7 == 0:
            await stores[worker].archiver.archive({id})

    await asyncio.gather(*(write(worker, number) for number in range(60) for worker in (0, 1)))
    for id, titles in answers.items():
        assert sorted(titles) == list(range(2, 42))
        for version, title in titles.items():
            revision = await stores[0].history.read(id, version)
            assert revision
            assert (revision.title, revision.content) == (title, title)


async def test_full_note_does_not_fail_other_updates(stores: list[Store]) -> None:
    store = stores[0]
    for number in range(14):
        await store.notes.update(1, {"content": f"{number}" + "x" * 1_000_000}, None, None)
    full, other = await together(
        store.notes.update(1, {"content": "y" * 1_048_576}, None, None),
        store.notes.update(2, {"title": "other"}, None, None),
    )
    assert isinstance(full, TooManyPendingRevisions)
    assert isinstance(other, NoteChange)


async def test_missing_reply_raises_outcome_unknown_for_all_updates(stores: list[Store], spy: Spy) -> None:
    store = stores[0]

    async def fail() -> None:
        await store.aclose()

    spy.after = fail
    outcomes = await together(*(store.notes.update(id, {"title": "maybe"}, None, None) for id in (1, 2)))
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown]


async def test_notes_beyond_the_reply_limit_are_all_returned(stores: list[Store]) -> None:
    store = stores[0]
    ids = range(6, 24)
    for _ in ids:
        await store.notes.create({**FIELDS, "content": "x" * 1_000_000}, None)
    outcomes = await together(*(store.notes.update(id, {"title": "one more"}, None, None) for id in ids))
    assert [outcome.note.id for outcome in outcomes if isinstance(outcome, NoteChange)] == [*ids]
