"""Batched updates: each has the same result as alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from realtime.errors import OutcomeUnknown, TooManyPendingRevisions
from realtime.notes.models import NoteChange
from realtime.settings import Settings
from realtime.store.database import Store
from realtime.store.raw_connection import Command
from tests.support.harness import Json, note_in

FIELDS = note_in(content="", tags=[])


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[list[Store]]:
    """Those of two workers."""
    assert settings.mongo_url
    stores = [Store(settings.mongo_url, settings.database, write_timeout=5, read_timeout=5) for _ in range(2)]
    for store in stores:
        store.notes._updates._batches._concurrency = 1  # what comes at once is one batch
    await stores[0].prepare()
    for _ in range(5):
        await stores[0].notes.create(FIELDS, None)
    yield stores
    for store in stores:
        await store.aclose()


class Spy:
    """Lines that count batches, with something done between the updates of one and the reading of what they left."""

    def __init__(self, store: Store, after: Any = None) -> None:
        connection: Any = store.notes._updates._connection
        self._lines = connection.raw_connections
        self._after = after
        self.sizes: list[int] = []
        connection.raw_connections = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lines, name)

    async def write(self, command: Command, timeout: float, then: Command | None = None) -> list[Json]:
        if then is not None:
            self.sizes.append(len(command.documents))
        answers: list[Json] = await self._lines.write(command, timeout, None if self._after else then)
        if then is None or self._after is None:
            return answers
        await self._after()
        return [*answers, {"ok": 0}]


async def together(*updates: Any) -> list[NoteChange | BaseException | None]:
    """The outcomes of updates that go into one batch."""
    outcomes: list[NoteChange | BaseException | None] = await asyncio.gather(*updates, return_exceptions=True)
    return outcomes


async def test_each_is_applied_as_it_would_be_alone(stores: list[Store]) -> None:
    store = stores[0]
    spy = Spy(store)
    assert await store.notes.update(3, {"title": "first"}, None, "key")
    outcomes = await together(
        store.notes.update(1, {"title": "any"}, None, None),
        store.notes.update(2, {"title": "stale"}, {7}, None),
        store.notes.update(3, {"title": "again"}, None, "key"),
        store.notes.update(4, {"content": "shared"}, None, None, lineage="other"),
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


async def test_who_is_overtaken_hears_of_their_own_version(stores: list[Store]) -> None:
    """Another worker writes, and archives both revisions, before the notes are read again."""
    store, other = stores

    async def overtake() -> None:
        for id in (1, 2):
            assert await other.notes.update(id, {"title": "theirs", "content": "theirs"}, None, None)
        await other.archiver.archive({1})

    spy = Spy(store, overtake)
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


async def test_who_is_overtaken_and_forgotten_is_not_told_that_nothing_was_written(stores: list[Store]) -> None:
    """Another worker writes, archives both revisions, and the history loses them."""
    store, other = stores

    async def overtake() -> None:
        await other.notes.update(1, {"title": "theirs"}, None, None)
        await other.archiver.archive({1})
        await other.history.forget([1])

    Spy(store, overtake)
    one, two = await together(
        store.notes.update(1, {"title": "mine"}, None, None), store.notes.update(2, {"title": "last"}, None, None)
    )
    assert isinstance(one, OutcomeUnknown)
    assert isinstance(two, NoteChange)


async def test_no_answer_is_that_of_another_s_write(stores: list[Store]) -> None:
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


async def test_note_without_room_holds_no_other_up(stores: list[Store]) -> None:
    store = stores[0]
    for number in range(14):
        await store.notes.update(1, {"content": f"{number}" + "x" * 1_000_000}, None, None)
    full, other = await together(
        store.notes.update(1, {"content": "y" * 1_048_576}, None, None),
        store.notes.update(2, {"title": "other"}, None, None),
    )
    assert isinstance(full, TooManyPendingRevisions)
    assert isinstance(other, NoteChange)


async def test_outcome_is_unknown_to_all_if_the_answer_did_not_come(stores: list[Store]) -> None:
    store = stores[0]

    async def fail() -> None:
        await store.aclose()

    Spy(store, fail)
    outcomes = await together(*(store.notes.update(id, {"title": "maybe"}, None, None) for id in (1, 2)))
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown]


async def test_what_is_too_much_for_one_command_goes_in_more(
    stores: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.store.note_updates.MAX_COMMAND_BYTES", 2_000_000)
    store = stores[0]
    spy = Spy(store)
    texts = {id: f"{id}" + "x" * 900_000 for id in range(1, 6)}
    outcomes = await together(*(store.notes.update(id, {"content": text}, None, None) for id, text in texts.items()))
    assert sum(spy.sizes) == 5
    assert max(spy.sizes) == 2
    for outcome, (id, text) in zip(outcomes, texts.items(), strict=True):
        assert isinstance(outcome, NoteChange)
        assert (outcome.note.id, outcome.note.content) == (id, text)


async def test_what_they_left_is_more_than_an_answer_holds(stores: list[Store]) -> None:
    store = stores[0]
    ids = range(6, 24)
    for _ in ids:
        await store.notes.create({**FIELDS, "content": "x" * 1_000_000}, None)
    outcomes = await together(*(store.notes.update(id, {"title": "one more"}, None, None) for id in ids))
    assert [outcome.note.id for outcome in outcomes if isinstance(outcome, NoteChange)] == [*ids]
