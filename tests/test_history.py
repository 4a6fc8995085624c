"""The history: no version is ever missing from it, and each is read back as it was written."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.write_concern import WriteConcern
from starlette.testclient import TestClient

from realtime import create_app
from realtime.bus import Bus
from realtime.embedded import Embedded
from realtime.errors import Unavailable
from realtime.failpoints import FailPoints
from realtime.housekeeping import Housekeeping
from realtime.metrics import Metrics
from realtime.models import MAX_CONTENT, NoteIn, NotePatch
from realtime.notes import Notes
from realtime.outbox import Outbox
from realtime.rooms import Rooms
from realtime.settings import Settings
from realtime.store import Store
from realtime.store.connection import Connection
from realtime.store.documents import Document
from realtime.store.history import History
from tests.harness import Json, ServerProcess, eventually, note_in, rest_client
from tests.test_merge import by_patch

Serve = Callable[..., ServerProcess]
DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@dataclass
class Part:
    """The writes and the archive of one worker, with nothing running by itself."""

    store: Store
    outbox: Outbox
    notes: Notes

    async def patch(self, **fields: Any) -> None:
        """Changes note 1."""
        await self.notes.patch(1, NotePatch(**fields), None, None, None)

    async def versions(self, id: int = 1) -> list[int]:
        """The versions that the history lists, all pages of it."""
        found: list[int] = []
        before = 2**53
        while page := await self.store.history.page(id, before, 100):
            found += [revision.version for revision in page[0]]
            if not page[1]:
                break
            before = found[-1]
        return found

    async def read(self, version: int, id: int = 1) -> Json:
        """A version, as the fields that a client writes."""
        revision = await self.store.history.read(id, version)
        assert revision is not None, version
        return revision.model_dump(include={"title", "description", "content", "tags"})


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[list[Part]]:
    """Two workers on one database."""
    assert settings.mongo_url
    assert settings.redis_url
    made: list[Part] = []
    buses: list[Bus] = []
    for _ in range(2):
        store = Store(settings.mongo_url, settings.database, write_timeout=20, read_timeout=20)
        buses.append(Bus(settings.redis_url, settings.database, keep=1000))
        buses[-1].available = False
        outbox = Outbox(store, buses[-1], FailPoints(), Metrics(), wait=0)
        rooms = Rooms(store, buses[-1], Metrics(), budget=1, stall=1, idle=1)
        made.append(Part(store, outbox, Notes(store, outbox, rooms, FailPoints(), Metrics())))
    yield made
    for bus in buses:
        await bus.aclose()
    for worker in made:
        await worker.outbox.aclose()
        worker.store.close()


@pytest.fixture
def worker(workers: list[Part]) -> Part:
    return workers[0]


@pytest.fixture
def database(settings: Settings) -> Iterator[Database[Json]]:
    """The test's database, past the program."""
    with MongoClient[Json](settings.mongo_url, tz_aware=True) as client:
        yield client[settings.database]


def _text(pick: random.Random, length: int) -> str:
    return "".join(pick.choices("abcdefghij \né🦜", k=length))


def _next(pick: random.Random, content: str) -> str:
    """A content that someone makes of another: mostly by a small change somewhere."""
    start = pick.randrange(len(content) + 1)
    match pick.randrange(12):
        case 0:
            return _text(pick, pick.choice([0, 10, 511, 512, 513, 30_000]))
        case 1:
            return content + content[:1000]
        case 2:
            return content[: len(content) // 2]
        case _:
            return content[:start] + _text(pick, pick.randrange(50)) + content[start + pick.randrange(50) :]


async def _write(worker: Part, pick: random.Random, written: dict[int, Json]) -> None:
    """Writes the next version, and notes what it is."""
    last = written[max(written)]
    changed: Json = {}
    if pick.random() < 0.8:
        changed["content"] = _next(pick, last["content"])
    if not changed or pick.random() < 0.1:
        changed |= {"title": _text(pick, 20), "tags": [_text(pick, 3) for _ in range(pick.randrange(3))]}
    written[max(written) + 1] = last | changed
    await worker.patch(**changed)


async def _start(worker: Part, content: str = "") -> dict[int, Json]:
    note = note_in(content=content, tags=[])
    await worker.notes.create(NoteIn(**note), None)
    return {1: note}


async def test_every_version_is_read_back_as_it_was_written(worker: Part, database: Database[Json]) -> None:
    pick = random.Random(1)
    written = await _start(worker, _text(pick, 30_000))
    for _ in range(200):
        await _write(worker, pick, written)
        if pick.random() < 0.2:
            await worker.outbox.flush()
    assert await worker.versions() == sorted(written, reverse=True)
    for version, note in written.items():
        assert await worker.read(version) == note, version
    await worker.outbox.flush()
    assert database.history.count_documents({}) == len(written)
    for version, note in written.items():
        assert await worker.read(version) == note, version


async def test_small_changes_of_a_long_text_take_little_room(worker: Part, database: Database[Json]) -> None:
    text = _text(random.Random(1), 100_000)
    await _start(worker, text)
    for number in range(50):
        await worker.patch(content=f"{text[:50_000]}{number}{text[50_000:]}")
        if number % 10 == 0:
            await worker.outbox.flush()
    await worker.outbox.flush()
    assert database.command("collStats", "history")["size"] < 4 * len(text.encode())


async def test_nothing_is_missing_while_it_is_archived_by_two(workers: list[Part]) -> None:
    pick = random.Random(3)
    written = await _start(workers[0], _text(pick, 5000))
    done = asyncio.Event()

    async def archive(worker: Part) -> None:
        while not done.is_set():
            await worker.store.history.archive({1})

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
            await _write(workers[0], pick, written)
        done.set()
    await asyncio.gather(*(worker.store.history.archive({1}) for worker in workers))
    for version, note in written.items():
        assert await workers[1].read(version) == note, version


class _Slow(History):
    """An archive that is held up, before or after it has written its rows."""

    def __init__(self, connection: Connection, *, before: bool = False) -> None:
        super().__init__(connection)
        self._before = before
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def _insert(self, rows: Sequence[Document]) -> None:
        if not self._before:
            await super()._insert(rows)
        self.reached.set()
        await self.go.wait()
        if self._before:
            await super()._insert(rows)


@pytest.fixture
async def slow(settings: Settings) -> AsyncIterator[Callable[..., _Slow]]:
    """Makes archives that are held up."""
    assert settings.mongo_url
    connection = Connection(settings.mongo_url, settings.database, write_timeout=20, read_timeout=20)
    yield lambda **more: _Slow(connection, **more)
    connection.close()


@pytest.mark.parametrize("before", [False, True], ids=["after the rows", "before the rows"])
async def test_slow_archives_spoil_no_version(worker: Part, slow: Callable[..., _Slow], before: bool) -> None:
    pick = random.Random(4)
    texts = [_text(pick, 2000), _text(pick, 2000)]
    written = await _start(worker, texts[0])

    async def write(content: str) -> None:
        written[max(written) + 1] = written[1] | {"content": content}
        await worker.patch(content=content)

    first, second = slow(before=before), slow(before=before)
    async with asyncio.TaskGroup() as tasks:
        released = tasks.create_task(first.archive({1}))
        await first.reached.wait()
        await write(texts[1])
        await worker.outbox.flush()
        await write(texts[1] + "a")
        tasks.create_task(second.archive({1}))
        await second.reached.wait()
        first.go.set()
        await released
        await write(texts[1] + "ab")
        await worker.outbox.flush()
        second.go.set()
    await write(texts[1] + "abc")
    await worker.outbox.flush()
    assert await worker.versions() == sorted(written, reverse=True)
    for version, note in written.items():
        assert await worker.read(version) == note, version


async def test_slow_archive_brings_nothing_of_a_purged_note_back(
    worker: Part, slow: Callable[..., _Slow], database: Database[Json]
) -> None:
    await _start(worker, "secret")
    held = slow(before=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(held.archive({1}))
        await held.reached.wait()
        await worker.notes.delete(1, None, None)
        await worker.notes.purge(1, None, None)
        await worker.outbox.flush()
        held.go.set()
    await worker.outbox.flush()
    assert database.history.count_documents({}) == 0
    assert "secret" not in str(database.notes.find_one())


async def test_archiving_again_changes_nothing(worker: Part, database: Database[Json]) -> None:
    written = await _start(worker, "a" * 1000)
    await worker.patch(content="a" * 1001)
    recent = (database.notes.find_one() or {})["recent"]
    await worker.outbox.flush()
    rows = list(database.history.find())
    # As if it had been cut off before it could tidy up.
    database.notes.update_one({}, {"$set": {"recent": recent}})
    assert await worker.versions() == [2, 1]
    await worker.store.history.archive({1})
    assert list(database.history.find()) == rows
    assert await worker.versions() == [2, 1]
    assert await worker.read(1) == written[1]


async def test_quick_writes_of_long_texts_find_room(worker: Part) -> None:
    await _start(worker)
    for number in range(20):
        await worker.patch(content=chr(ord("a") + number) * MAX_CONTENT)
    assert await worker.versions() == list(range(21, 0, -1))
    for number in range(20):
        assert (await worker.read(number + 2))["content"] == chr(ord("a") + number) * MAX_CONTENT


async def test_killed_after_the_commit(serve: Serve, database: Database[Json]) -> None:
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


async def _aged(worker: Part, database: Database[Json], writes: int, per_day: int) -> dict[int, Json]:
    """A note with archived versions of many days, the last of which is today; and what was written."""
    pick = random.Random(5)
    written = await _start(worker, _text(pick, 3000))
    for _ in range(writes - 1):
        await _write(worker, pick, written)
        if pick.random() < 0.2:
            await worker.outbox.flush()
    await worker.outbox.flush()
    noon = NOW.replace(hour=12, minute=0, second=0, microsecond=0)
    for version in written:
        age = (writes - version) // per_day
        moment = noon - age * DAY + timedelta(minutes=version % per_day)
        key = {"_id": {"note": 1, "version": version}}
        assert database.history.update_one(key, {"$set": {"date": moment}}).matched_count == 1
    return written


def _house(worker: Part, days: int) -> Housekeeping:
    return Housekeeping(worker.store, worker.notes, history_days=days, trash_days=30)


@pytest.mark.parametrize(("days", "old"), [(30, 5), (5, 20)])
async def test_old_versions_are_thinned_to_the_last_of_each_day(
    worker: Part, database: Database[Json], days: int, old: int
) -> None:
    per_day, writes = 2, 100
    written = await _aged(worker, database, writes, per_day)
    before = list(database.history.find())
    thinned = await _house(worker, days).thin(NOW)

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
    assert await _house(worker, days).thin(NOW) == 0
    assert {row["_id"]["version"]: row for row in database.history.find()} == rows


async def test_writes_go_on_after_thinning(worker: Part, database: Database[Json]) -> None:
    written = await _aged(worker, database, 40, 10)
    await _house(worker, 1).thin(NOW + 10 * DAY)
    kept = [row["_id"]["version"] for row in database.history.find()]
    pick = random.Random(6)
    for _ in range(20):
        await _write(worker, pick, written)
        await worker.outbox.flush()
    for version in [*kept, *range(41, 61)]:
        assert await worker.read(version) == written[version], version


async def test_thinning_at_the_same_time_does_no_harm(workers: list[Part], database: Database[Json]) -> None:
    written = await _aged(workers[0], database, 80, 10)
    await asyncio.gather(*(_house(worker, 1).thin(NOW) for worker in workers))
    versions = await workers[0].versions()
    for version in versions:
        assert await workers[0].read(version) == written[version], version
    assert len(versions) < 40


async def test_one_note_is_thinned_and_its_neighbours_are_not(worker: Part, database: Database[Json]) -> None:
    for _ in range(3):
        await worker.notes.create(NoteIn(**note_in()), None)
    for id in (1, 2, 3):
        for number in range(5):
            await worker.notes.patch(id, NotePatch.model_validate({"title": f"title {number}"}), None, None, None)
    await worker.outbox.flush()
    database.history.update_many({}, {"$set": {"date": NOW - 60 * DAY}})
    # Of titles only: the last one, and the first one for its text.
    assert await worker.store.history.thin(2, NOW) == 4
    assert [await worker.versions(id) for id in (1, 2, 3)] == [[6, 5, 4, 3, 2, 1], [6, 1], [6, 5, 4, 3, 2, 1]]


@pytest.fixture(scope="module")
def shared(embedded: Embedded) -> Iterator[TestClient]:
    settings = Settings(mongo_url=embedded.mongo_url, redis_url=embedded.redis_url, database="test-history")
    with TestClient(create_app(settings)) as client:
        yield client


TEXTS = ["# To buy\nmilk\nbuns\n", "# To buy\nmilk\nbread 🦜\n", "# To buy\nmilk\nbread 🦜\n\nno line feed"]


def _make(client: TestClient) -> str:
    """The path of a note with three versions of its content, and a fourth of its title and tags."""
    made = client.post("/notes/", json=note_in(content=TEXTS[0])).json()
    path = f"/notes/{made['id']}/"
    for text in TEXTS[1:]:
        client.patch(path, json={"content": text})
    client.patch(path, json={"title": "other title", "tags": ["a"], "description": made["description"]})
    return path


@pytest.fixture(scope="module")
def still(shared: TestClient) -> str:
    """A note that no test changes."""
    return _make(shared)


def test_history_tells_when_who_how_and_what(shared: TestClient, still: str) -> None:
    answer = shared.get(f"{still}history/")
    assert (answer.status_code, answer.links) == (200, {})
    revisions = answer.json()
    told = [(revision["version"], revision["action"], set(revision["changed"])) for revision in revisions]
    assert told == [
        (4, "update", {"title", "tags"}),
        (3, "update", {"content"}),
        (2, "update", {"content"}),
        (1, "create", set()),
    ]
    assert [revision["author"] for revision in revisions] == [None] * 4
    assert [revision["title"] for revision in revisions] == ["other title", "title", "title", "title"]
    dates = [revision["date"] for revision in revisions]
    assert dates == sorted(dates, reverse=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", date) for date in dates)
    assert not any("content" in revision for revision in revisions)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_have_every_version_once(shared: TestClient, still: str, limit: int) -> None:
    whole = shared.get(f"{still}history/").json()
    following: str | None = f"{still}history/?limit={limit}"
    pages: list[list[Json]] = []
    while following:
        answer = shared.get(following)
        assert answer.status_code == 200
        pages.append(answer.json())
        following = answer.links.get("next", {}).get("url")
    assert [revision for page in pages for revision in page] == whole
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=x", "after=1", "after=", "color=red"])
def test_malformed_query(shared: TestClient, still: str, query: str) -> None:
    answer = shared.get(f"{still}history/?{query}")
    assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "query")


def test_version_is_the_note_as_it_was(shared: TestClient, still: str) -> None:
    for version, text in enumerate(TEXTS, 1):
        read = shared.get(f"{still}history/{version}/")
        assert read.status_code == 200
        assert read.json().items() >= note_in(content=text, tags=[], version=version).items()
    assert shared.get(f"{still}history/4/").json().items() >= {"content": TEXTS[2], "tags": ["a"]}.items()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("history/5/", 404), ("history/9007199254740991/", 404), ("history/1..5/diff", 404)),
        *(("history/0/", 422), ("history/x/", 422), ("history/-1/", 422), ("history/9007199254740992/", 422)),
        *(("history/1/diff", 422), ("history/1..x/diff", 422), ("history/0..1/diff", 422), ("history/1...2/diff", 422)),
    ],
)
def test_version_that_is_not_there(shared: TestClient, still: str, path: str, status: int) -> None:
    answer = shared.get(still + path)
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize("path", ["history/", "history/1/", "history/1..2/diff"])
def test_history_of_a_missing_note(shared: TestClient, path: str) -> None:
    gone = _make(shared)
    shared.delete(gone)
    for note in ("/notes/999999/", gone):
        answer = shared.get(note + path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Note not found"})


TEXT, JSON = "text/x-diff; charset=utf-8", "application/json"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        *((None, TEXT), ("*/*", TEXT), ("text/plain", TEXT), ("text/x-diff", TEXT), ("text/*", TEXT)),
        *(("application/json", JSON), ("Application/JSON", JSON), ("application/json, */*;q=0.1", JSON)),
        *(("application/json;q=0.5, text/plain", TEXT), ("application/json;q=0, */*", TEXT), ("image/png", TEXT)),
    ],
)
def test_difference_is_what_is_asked_for(shared: TestClient, still: str, accept: str | None, kind: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = shared.get(f"{still}history/1..2/diff", headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    assert answer.headers["Vary"] == "Accept"


def test_difference_as_text(shared: TestClient, still: str) -> None:
    id = still.split("/")[2]
    assert shared.get(f"{still}history/1..2/diff").text == (
        f"--- {id}/content version 1\n+++ {id}/content version 2\n@@ -1,3 +1,3 @@\n # To buy\n milk\n-buns\n+bread 🦜\n"
    )
    assert shared.get(f"{still}history/2..2/diff").text == ""
    assert shared.get(f"{still}history/3..4/diff").text == (
        f"--- {id}/title version 3\n+++ {id}/title version 4\n@@ -1 +1 @@\n-title\n+other title\n"
        f"--- {id}/tags version 3\n+++ {id}/tags version 4\n@@ -0,0 +1 @@\n+a\n"
    )


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_patch_program_takes_the_difference(
    shared: TestClient, still: str, tmp_path: Path, before: int, after: int
) -> None:
    difference = shared.get(f"{still}history/{before}..{after}/diff").text
    if before == after:
        assert difference == ""
    else:
        assert by_patch(tmp_path, TEXTS[before - 1], difference) == TEXTS[after - 1]


def test_difference_as_json(shared: TestClient, still: str) -> None:
    answer = shared.get(f"{still}history/2..4/diff", headers={"Accept": "application/json"}).json()
    assert (answer["id"], answer["before"], answer["after"]) == (int(still.split("/")[2]), 2, 4)
    assert set(answer["fields"]) == {"title", "tags", "content"}
    assert answer["fields"]["content"] == [
        {
            "from_line": 1,
            "from_lines": 3,
            "to_line": 1,
            "to_lines": 5,
            "lines": [" # To buy\n", " milk\n", " bread 🦜\n", "+\n", "+no line feed"],
        }
    ]


def _flush(client: TestClient) -> None:
    parts: Any = client.app.state.parts  # type: ignore[attr-defined]  # an ASGI application has no state to the types
    assert client.portal
    client.portal.call(parts.outbox.flush)


@pytest.mark.parametrize("archived", [False, True])
def test_restore_makes_an_earlier_version_the_newest(
    client: TestClient, database: Database[Json], archived: bool
) -> None:
    path = _make(client)
    if archived:
        _flush(client)
        assert database.history.count_documents({}) == 4
    before = client.get(path).json()
    answer = client.post(f"{path}restore", json={"version": 1})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"v5"')
    note = answer.json()
    assert note == before | note_in(content=TEXTS[0], tags=[], version=5, updated_date=note["updated_date"])
    assert client.get(path).json() == note
    newest, *others = client.get(f"{path}history/").json()
    assert (newest["version"], newest["action"], newest["restored"]) == (5, "restore", 1)
    assert set(newest["changed"]) == {"title", "content", "tags"}
    assert [revision["restored"] for revision in others] == [None] * 4
    assert client.get(f"{path}history/3/").json()["content"] == TEXTS[2]
    assert client.post(f"{path}restore", json={"version": 4}).json()["content"] == TEXTS[2]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *(({"version": 5}, 404), ({"version": 2**53 - 1}, 404)),
        *(({"version": 0}, 422), ({"version": "1"}, 422), ({}, 422), ({"version": 1, "x": 1}, 422), ([], 422)),
        ({"version": 1.5}, 422),
    ],
)
def test_refused_restore_changes_nothing(shared: TestClient, still: str, body: Any, status: int) -> None:
    before = shared.get(still).json()
    assert shared.post(f"{still}restore", json=body).status_code == status
    assert shared.get(still).json() == before


def test_restore_of_a_missing_note(shared: TestClient) -> None:
    path = _make(shared)
    shared.delete(path)
    for gone in (path, "/notes/999999/"):
        assert shared.post(f"{gone}restore", json={"version": 1}).status_code == 404


def test_restore_at_another_version(shared: TestClient, still: str) -> None:
    answer = shared.post(f"{still}restore", json={"version": 1}, headers={"If-Match": '"v3"'})
    assert (answer.status_code, answer.json()["note"]) == (412, shared.get(still).json())


def test_repeated_restore_is_applied_once(shared: TestClient) -> None:
    path = _make(shared)
    headers = {"Idempotency-Key": f"restore{path}"}
    answers = [shared.post(f"{path}restore", json={"version": 1}, headers=headers) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert shared.get(path).json()["version"] == 5


def test_deleting_and_taking_back_are_versions(shared: TestClient) -> None:
    path = _make(shared)
    id = path.split("/")[2]
    shared.delete(path)
    assert shared.post(f"/trash/{id}/restore").status_code == 200
    history = shared.get(f"{path}history/").json()
    assert [revision["action"] for revision in history] == [
        *("undelete", "delete", "update", "update", "update", "create"),
    ]
    assert shared.get(f"{path}history/5/").json()["content"] == TEXTS[2]


def test_history_of_a_purged_note_is_gone(client: TestClient, database: Database[Json]) -> None:
    path = _make(client)
    _flush(client)
    client.delete(path)
    assert client.delete(f"/trash/{path.split('/')[2]}/").is_success
    _flush(client)
    assert database.history.count_documents({}) == 0


async def test_nothing_leaves_the_note_before_a_majority_has_it(worker: Part) -> None:
    await worker.notes.create(NoteIn(**note_in()), None)
    rows = worker.store.history._rows
    # As when the primary steps down: the rows are written, and no majority confirms it.
    worker.store.history._rows = rows.with_options(write_concern=WriteConcern(w=2, wtimeout=50))
    with pytest.raises(Unavailable):
        await worker.store.history.archive([1])
    await rows.delete_many({})  # the rollback
    worker.store.history._rows = rows
    assert await worker.versions() == [1]
    await worker.store.history.archive([1])
    assert (await worker.read(1))["title"] == "title"
