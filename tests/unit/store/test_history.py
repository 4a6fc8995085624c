"""The history: it has all versions, and each is read as it was written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import httpx
import pytest
from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from realtime.auth.permissions import UNRESTRICTED
from realtime.errors import Unavailable
from realtime.notes.models import MAX_CONTENT_BYTES, NoteIn
from realtime.settings import Settings
from realtime.store.archiver import Archiver
from realtime.store.bson_mapping import BsonDocument
from realtime.store.connection import MongoConnection
from realtime.store.history import History, StoredContent
from realtime.store.notes import RevisionInfo
from realtime.store.texts import TextStore
from tests.support.harness import Json, ServerProcess, eventually, note_in, rest_client
from tests.unit.conftest import Part, some_text, start, write

Serve = Callable[..., ServerProcess]


async def test_every_version_is_read_as_it_was_written(worker: Part, database: Database[Json]) -> None:
    pick = random.Random(1)
    written = await start(worker, some_text(pick, 30_000))
    for _ in range(200):
        await write(worker, pick, written)
        if pick.random() < 0.2:
            await worker.outbox.archive_and_clear()
    assert await worker.versions() == sorted(written, reverse=True)
    for version, note in written.items():
        assert await worker.read(version) == note, version
    await worker.outbox.archive_and_clear()
    assert database.history.count_documents({}) == len(written)
    for version, note in written.items():
        assert await worker.read(version) == note, version


async def test_small_changes_of_a_long_text_take_little_space(worker: Part, database: Database[Json]) -> None:
    text = some_text(random.Random(1), 100_000)
    await start(worker, text)
    for number in range(50):
        await worker.patch(content=f"{text[:50_000]}{number}{text[50_000:]}")
        if number % 10 == 0:
            await worker.outbox.archive_and_clear()
    await worker.outbox.archive_and_clear()
    assert database.command("collStats", "history")["size"] < 4 * len(text.encode())


async def test_distant_changes_are_stored_without_another_keyframe(worker: Part, database: Database[Json]) -> None:
    """None of them makes the history store the entire content again."""
    pick = random.Random(2)
    text = some_text(pick, 50_000)
    written = await start(worker, f"AAAA{text}BBBB")
    places = [pick.randrange(100, 50_000) for _ in range(20)]
    for number in range(40):
        content = written[max(written)]["content"]
        content = f"A{number:03}{content[4:]}" if number % 2 else f"{content[:-4]}B{number:03}"
        for place in places[: number // 2]:
            content = f"{content[:place]}{number:02}{content[place:]}"
        written[max(written) + 1] = written[1] | {"content": content}
        await worker.patch(content=content)
        if number % 3 == 0:
            await worker.outbox.archive_and_clear()
    await worker.outbox.archive_and_clear()
    whole = database.history.count_documents({"content": {"$type": "string"}})
    assert whole == 1
    for version, note in written.items():
        assert await worker.read(version) == note, version


async def test_stored_contents_are_reported_once_with_their_authors(workers: list[Part]) -> None:
    reported: list[StoredContent] = []
    for one in workers:
        one.store.history.on_stored = reported.append
    await start(workers[0], "a" * 1000)
    await workers[0].patch(title="title only")
    await workers[0].patch(content="b" * 1000)
    await workers[0].store.notes.update(
        1,
        {"content": "b" * 1000 + "\N{GREEK SMALL LETTER ALPHA}"},
        None,
        None,
        RevisionInfo("update", "ann", {"authors": ["ben", "ann"]}),
    )
    await workers[0].patch(content="short")
    await asyncio.gather(*(one.store.archiver.archive({1}) for one in workers))
    assert sorted(reported) == [(1, [], 5), (1, [], 1000), (1, ["ann", "ben"], 2)]


async def test_no_version_is_missing_while_two_workers_archive(workers: list[Part]) -> None:
    pick = random.Random(3)
    written = await start(workers[0], some_text(pick, 5000))
    done = asyncio.Event()

    async def archive(worker: Part) -> None:
        while not done.is_set():
            await worker.store.archiver.archive({1})

    async def look(worker: Part) -> None:
        while not done.is_set():
            acknowledged = max(written) - 1
            seen = await worker.versions()
            assert seen == list(range(seen[0], 0, -1))
            assert seen[0] >= acknowledged
            version = pick.randrange(1, acknowledged + 1) if acknowledged else 1
            assert await worker.read(version) == written[version]

    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(archive(worker))
            tasks.create_task(look(worker))
        for _ in range(80):
            await write(workers[0], pick, written)
        done.set()
    await asyncio.gather(*(worker.store.archiver.archive({1}) for worker in workers))
    for version, note in written.items():
        assert await workers[1].read(version) == note, version


class _Slow(Archiver):
    """An archive that blocks before or after it stored the revisions."""

    def __init__(self, connection: MongoConnection, *, before: bool = False) -> None:
        self.history = _SlowHistory(connection, before=before)
        super().__init__(connection, self.history, TextStore(connection))


class _SlowHistory(History):
    def __init__(self, connection: MongoConnection, *, before: bool) -> None:
        super().__init__(connection)
        self._before = before
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def archive(self, notes: Sequence[BsonDocument]) -> dict[int, int]:
        """Store the revisions, before or after it is unblocked."""
        if self._before:
            self.reached.set()
            await self.go.wait()
            return await super().archive(notes)
        keyframes = await super().archive(notes)
        self.reached.set()
        await self.go.wait()
        return keyframes


@pytest.fixture
async def slow(settings: Settings) -> AsyncIterator[Callable[..., _Slow]]:
    """Return a function that creates blocking archives."""
    assert settings.mongo_url
    connection = MongoConnection(settings.mongo_url, settings.database, write_timeout=20, read_timeout=20)
    yield lambda **more: _Slow(connection, **more)
    await connection.aclose()


@pytest.mark.parametrize("before", [False, True], ids=["blocked-after-insert", "blocked-before-insert"])
async def test_slow_concurrent_archives_keep_all_versions(
    worker: Part, slow: Callable[..., _Slow], before: bool
) -> None:
    pick = random.Random(4)
    texts = [some_text(pick, 2000), some_text(pick, 2000)]
    written = await start(worker, texts[0])

    async def write(content: str) -> None:
        written[max(written) + 1] = written[1] | {"content": content}
        await worker.patch(content=content)

    first, second = slow(before=before), slow(before=before)
    async with asyncio.TaskGroup() as tasks:
        released = tasks.create_task(first.archive({1}))
        await first.history.reached.wait()
        await write(texts[1])
        await worker.outbox.archive_and_clear()
        await write(texts[1] + "a")
        tasks.create_task(second.archive({1}))
        await second.history.reached.wait()
        first.history.go.set()
        await released
        await write(texts[1] + "ab")
        await worker.outbox.archive_and_clear()
        second.history.go.set()
    await write(texts[1] + "abc")
    await worker.outbox.archive_and_clear()
    assert await worker.versions() == sorted(written, reverse=True)
    for version, note in written.items():
        assert await worker.read(version) == note, version


async def test_slow_archive_does_not_restore_a_purged_note(
    worker: Part, slow: Callable[..., _Slow], database: Database[Json]
) -> None:
    await start(worker, "secret")
    held = slow(before=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(held.archive({1}))
        await held.history.reached.wait()
        await worker.notes.delete(UNRESTRICTED, 1)
        await worker.notes.purge(UNRESTRICTED, 1)
        await worker.outbox.archive_and_clear()
        held.history.go.set()
    await worker.outbox.archive_and_clear()
    assert database.history.count_documents({}) == 0
    assert "secret" not in str(database.notes.find_one())


async def test_repeated_archiving_changes_nothing(worker: Part, database: Database[Json]) -> None:
    written = await start(worker, "a" * 1000)
    await worker.patch(content="a" * 1001)
    recent = (database.notes.find_one() or {})["recent"]
    await worker.outbox.archive_and_clear()
    rows = list(database.history.find())
    # As after an interruption before the cleanup.
    database.notes.update_one({}, {"$set": {"recent": recent}})
    assert await worker.versions() == [2, 1]
    await worker.store.archiver.archive({1})
    assert list(database.history.find()) == rows
    assert await worker.versions() == [2, 1]
    assert await worker.read(1) == written[1]


async def test_fast_writes_of_long_texts_are_all_kept(worker: Part) -> None:
    await start(worker)
    for number in range(20):
        await worker.patch(content=chr(ord("a") + number) * MAX_CONTENT_BYTES)
    assert await worker.versions() == list(range(21, 0, -1))
    for number in range(20):
        assert (await worker.read(number + 2))["content"] == chr(ord("a") + number) * MAX_CONTENT_BYTES


@pytest.mark.slow
async def test_worker_killed_after_a_commit_loses_no_revision(serve: Serve, database: Database[Json]) -> None:
    survivor, victim = serve(), serve(failpoint="after_write_before_publish:kill:3")
    async with rest_client(victim.url) as rest:
        await rest.post("/notes/", json=note_in(content="1"))
        await rest.patch("/notes/1/", json={"content": "2"})
        with suppress(httpx.TransportError):
            await rest.patch("/notes/1/", json={"content": "3"})
    assert victim.wait() == -9
    async with rest_client(survivor.url) as rest:

        async def check() -> None:
            history = (await rest.get("/notes/1/history/")).json()
            assert [revision["version"] for revision in history] == [3, 2, 1]
            for version in (1, 2, 3):
                assert (await rest.get(f"/notes/1/history/{version}/")).json()["content"] == str(version)

        await check()
        await eventually(lambda: database.history.count_documents({}) == 3)
        await eventually(lambda: database.notes.count_documents({"recent": [], "dirty": {"$exists": False}}) == 1)
        await check()


class _UnconfirmedHistory(History):
    """A history whose rows are written but not confirmed by a majority, as when the primary steps down."""

    def __init__(self, connection: MongoConnection) -> None:
        super().__init__(connection)
        self._rows = self._rows.with_options(write_concern=WriteConcern(w=2, wtimeout=50))


@pytest.fixture
async def unconfirmed(settings: Settings) -> AsyncIterator[Archiver]:
    """Yield an archiver whose inserted revisions are not confirmed."""
    assert settings.mongo_url
    connection = MongoConnection(settings.mongo_url, settings.database, write_timeout=20, read_timeout=20)
    yield Archiver(connection, _UnconfirmedHistory(connection), TextStore(connection))
    await connection.aclose()


async def test_unconfirmed_archiving_keeps_the_revisions_in_the_note(
    worker: Part, unconfirmed: Archiver, database: Database[Json]
) -> None:
    await worker.notes.create(UNRESTRICTED, NoteIn(**note_in()))
    with pytest.raises(Unavailable):
        await unconfirmed.archive([1])
    assert database.history.delete_many({}).deleted_count == 1  # the rollback
    assert await worker.versions() == [1]
    await worker.store.archiver.archive([1])
    assert (await worker.read(1))["title"] == "title"
