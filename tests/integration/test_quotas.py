"""Storage quotas: for every kind of write and every writer, until a note is deleted permanently."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from starlette.testclient import TestClient, WebSocketDenialResponse

from realtime import create_app
from realtime.errors import QuotaExceeded
from realtime.notes import quotas
from realtime.notes.models import StorageUsage, size_of
from realtime.notes.quotas import Quotas
from realtime.settings import Settings
from tests.support.accounts import HERE, Browser, parts_of, run, with_accounts
from tests.support.harness import Json, eventually, note_in
from tests.support.room_client import Text

MIB = 1024 * 1024
NOTES, SIZE = 3, 100_000
LARGE = "x" * 40_000
MATTER = note_in("title", "description")
BESIDES = len("titledescription")


@pytest.fixture(scope="module")
def host(module_settings: Settings) -> Iterator[TestClient]:
    """A server where users may store little."""
    settings = with_accounts(module_settings, user_notes=NOTES, user_bytes=SIZE, max_writes_per_second=1000)
    with TestClient(create_app(settings), base_url=HERE) as client:
        yield client


@pytest.fixture
def ann(host: TestClient) -> Browser:
    return Browser(host).sign_up()


@pytest.fixture
def ben(host: TestClient) -> Browser:
    return Browser(host).sign_up()


def make(who: Browser, content: str = "", status: int = 201) -> int:
    answer = who.post("/notes/", json={**MATTER, "content": content})
    assert answer.status_code == status, answer.text
    return int(answer.json().get("id", 0))


def refused(answer: Any, limit: str = "0.0953674 MiB") -> None:
    assert answer.status_code == 413, answer.text
    detail = answer.json()["detail"]
    assert f"reached the limit of {limit}" in detail
    assert "trash" in detail


def used(host: TestClient, name: str) -> StorageUsage:
    """Return the usage of a user, read from the database."""

    async def read() -> StorageUsage:
        return await parts_of(host).store.sizes.usage(name)  # type: ignore[no-any-return]  # the parts are of any kind

    return run(host, read)


def test_number_of_notes(host: TestClient, ann: Browser, ben: Browser) -> None:
    ids = [make(ann) for _ in range(NOTES)]
    refused(ann.post("/notes/", json=MATTER), "3 notes")
    make(ben)
    assert ann.delete(f"/notes/{ids[0]}/").status_code == 200
    refused(ann.post("/notes/", json=MATTER), "3 notes")  # the trash counts
    assert ann.delete(f"/trash/{ids[0]}/").status_code == 204
    make(ann)
    refused(ann.post("/notes/", json=MATTER), "3 notes")
    assert used(host, ann.name).notes == NOTES


def test_note_out_of_the_trash_counts_once(host: TestClient, ann: Browser) -> None:
    ids = [make(ann) for _ in range(NOTES)]
    ann.delete(f"/notes/{ids[0]}/")
    assert ann.post(f"/trash/{ids[0]}/restore").status_code == 200
    assert used(host, ann.name) == StorageUsage(NOTES, NOTES * BESIDES)


@pytest.mark.parametrize(
    "grow",
    [
        lambda who, id: who.put(f"/notes/{id}/", json={**MATTER, "content": "y" * 30_000}),
        lambda who, id: who.patch(f"/notes/{id}/", json={"content": "y" * 30_000}),
        lambda who, id: who.patch(f"/notes/{id}/?base_version=1", json={"content": "y" * 30_000}),
        lambda who, id: who.post(f"/notes/{id}/content", json=[{"op": "append", "text": "y" * 30_000}]),
    ],
    ids=["put", "patch", "merge", "edit"],
)
def test_size_of_notes(host: TestClient, ann: Browser, grow: Callable[[Browser, int], Any]) -> None:
    full, small = make(ann, LARGE), make(ann)
    make(ann, LARGE)
    refused(grow(ann, small))
    for answer in (
        ann.get(f"/notes/{small}/"),
        ann.patch(f"/notes/{small}/", json={"title": "other"}),
        ann.put(f"/notes/{full}/", json={**MATTER, "content": "z" * len(LARGE)}),  # not larger than before
        ann.patch(f"/notes/{full}/", json={"content": "less"}),
        grow(ann, small),  # now there is room
    ):
        assert answer.status_code == 200, answer.text
    expected = [ann.get(f"/notes/{id}/").json() for id in (full, small)]
    assert used(host, ann.name).size == sum(map(size_of, expected)) + len(LARGE) + BESIDES


def test_restored_version_counts(ann: Browser) -> None:
    first = make(ann, "x" * 60_000)
    ann.patch(f"/notes/{first}/", json={"content": ""})
    make(ann, "x" * 60_000)
    refused(ann.post(f"/notes/{first}/restore", json={"version": 1}))


@pytest.fixture
def database(module_settings: Settings) -> Iterator[Database[Json]]:
    with MongoClient[Json](module_settings.mongo_url) as mongo:
        yield mongo[module_settings.database]


def replaced(database: Database[Json], who: Browser, note: int, content: str) -> Any:
    """Replace the content of a note, and return the answer once the history has it."""
    answer = who.patch(f"/notes/{note}/", json={"content": content})
    asyncio.run(eventually(lambda: database.notes.find_one({"_id": note})["recent"] == []))  # type: ignore[index]  # it is there
    return answer


def open_to_editor(ann: Browser, ben: Browser, note: int) -> None:
    shared = {"members": [{"name": ben.name, "role": "editor"}]}
    assert ann.put(f"/notes/{note}/access", json=shared).status_code == 200


def test_text_that_is_replaced_again_and_again_is_limited(ann: Browser, ben: Browser, database: Database[Json]) -> None:
    """The history keeps it, and the owner of a note cannot delete that alone."""
    note = make(ann, "x" * 30_000)
    open_to_editor(ann, ben, note)
    answers = [replaced(database, ann, note, letter * 30_000) for letter in "abcdef"]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429, 429]
    assert "replaced too much text" in answers[4].json()["detail"]
    assert int(answers[4].headers["Retry-After"]) > 60
    assert ann.patch(f"/notes/{note}/", json={"content": "short"}).status_code == 429
    for answer in (
        ann.patch(f"/notes/{note}/", json={"title": "other"}),
        replaced(database, ben, note, "y" * 30_000),  # the others have an allowance of their own
    ):
        assert answer.status_code == 200, answer.text


def test_short_contents_count_for_the_limit_too(ann: Browser, database: Database[Json]) -> None:
    note = make(ann)
    answers = [ann.patch(f"/notes/{note}/", json={"content": f"{number:0500}"}) for number in range(SIZE // 500 + 5)]
    assert {answer.status_code for answer in answers} <= {200, 429}
    replaced(database, ann, note, "")
    assert ann.patch(f"/notes/{note}/", json={"content": "one more"}).status_code == 429


def test_typed_text_counts_for_the_limit_and_is_always_stored(
    host: TestClient, ann: Browser, ben: Browser, database: Database[Json]
) -> None:
    note = make(ann)
    open_to_editor(ann, ben, note)
    text = Text()
    with ben.websocket_connect(f"ws://127.0.0.1/sync/{note}", headers={"Origin": HERE}) as room:
        room.send_bytes(text.hello())
        while not text.synced:
            answer = text.take(room.receive_bytes())
            if answer is not None:
                room.send_bytes(answer)
        for letter in "abcdefg":
            content = letter * 25_000
            room.send_bytes(text.edit(content))
            path = f"/notes/{note}/"
            asyncio.run(eventually(lambda path=path, content=content: ann.get(path).json()["content"] == content))  # type: ignore[misc]  # the arguments are those of this turn
    asyncio.run(eventually(lambda: database.notes.find_one({"_id": note})["recent"] == []))  # type: ignore[index]  # it is there
    assert ben.patch(f"/notes/{note}/", json={"content": "refused"}).status_code == 429
    assert ann.patch(f"/notes/{note}/", json={"content": "accepted"}).status_code == 200


def test_changes_of_a_long_text_cost_their_own_size_only(ann: Browser) -> None:
    note = make(ann, "x" * 30_000)
    for length in range(30_000, 30_100):
        assert ann.patch(f"/notes/{note}/", json={"content": "x" * length + "!"}).status_code == 200


def test_note_counts_for_its_owner_whoever_writes(host: TestClient, ann: Browser, ben: Browser) -> None:
    note = make(ann, LARGE)
    shared = {"members": [{"name": ben.name, "role": "editor"}]}
    assert ann.put(f"/notes/{note}/access", json=shared).status_code == 200
    make(ben, LARGE)
    make(ben, LARGE)
    assert ben.patch(f"/notes/{note}/", json={"content": LARGE * 2}).status_code == 200
    refused(ben.patch(f"/notes/{note}/", json={"content": LARGE * 2 + "y" * 30_000}))
    assert used(host, ben.name).size == 2 * (len(LARGE) + BESIDES)


def test_note_that_is_given_away_counts_for_the_new_owner(host: TestClient, ann: Browser, ben: Browser) -> None:
    note, other = make(ann, LARGE), make(ben, LARGE)
    make(ben, LARGE)
    refused(ann.put(f"/notes/{note}/access", json={"owner": ben.name}))
    assert ann.get(f"/notes/{note}/access").json()["owner"] == ann.name
    ben.delete(f"/notes/{other}/")
    ben.delete(f"/trash/{other}/")
    assert ann.put(f"/notes/{note}/access", json={"owner": ben.name}).status_code == 200
    assert used(host, ann.name) == StorageUsage(0, 0)
    assert used(host, ben.name) == StorageUsage(2, 2 * (len(LARGE) + BESIDES))


def test_imports_count(host: TestClient, ann: Browser) -> None:
    def bring(*contents: str, key: str | None = None) -> Any:
        files = [("files", (f"{number}.md", content)) for number, content in enumerate(contents)]
        return ann.post("/import", files=files, headers={"Idempotency-Key": key} if key else {})

    refused(bring(*["one more"] * (NOTES + 1)), "3 notes")
    assert used(host, ann.name) == StorageUsage(0, 0)
    refused(bring(LARGE * 3))
    first = bring("a", "b", "c", key="import")
    assert first.status_code == 200, first.text
    assert bring("a", "b", "c", key="import").json() == first.json()  # a repeat makes nothing
    refused(bring("d"), "3 notes")


def test_repeat_of_a_write_has_its_answer_though_there_is_no_room(ann: Browser) -> None:
    key = {"Idempotency-Key": "create"}
    first = ann.post("/notes/", json=MATTER, headers=key)
    for _ in range(NOTES - 1):
        make(ann)
    assert ann.post("/notes/", json=MATTER, headers=key).json() == first.json()


def test_rooms_are_closed_to_new_writers_only(host: TestClient, ann: Browser, ben: Browser) -> None:
    """Typing in an open room always reaches the note; a new writer is refused before the handshake."""
    note = make(ann, LARGE)
    assert ann.put(f"/notes/{note}/access", json={"public": True}).status_code == 200
    room, headers = f"ws://127.0.0.1/sync/{note}", {"Origin": HERE}
    with ann.websocket_connect(room, headers=headers) as open_room:
        open_room.receive_bytes()
        make(ann, "x" * (SIZE - len(LARGE) - 2 * BESIDES))
        with pytest.raises(WebSocketDenialResponse) as denied, ann.websocket_connect(room, headers=headers):
            pass
        refused(denied.value)
        with ben.websocket_connect(room, headers=headers) as reader:
            reader.receive_bytes()
    assert ann.get(f"/notes/{note}/").status_code == 200
    assert ann.patch(f"/notes/{note}/", json={"content": "less"}).status_code == 200
    with ann.websocket_connect(room, headers=headers) as again:
        again.receive_bytes()


def test_without_accounts_there_are_no_quotas(settings: Settings) -> None:
    few = settings.model_copy(update={"user_notes": 1, "user_bytes": 1})
    with TestClient(create_app(few)) as client:
        for _ in range(3):
            assert client.post("/notes/", json=note_in(content="words")).status_code == 201


def test_zero_is_no_limit(settings: Settings) -> None:
    with TestClient(create_app(with_accounts(settings, user_notes=0, user_bytes=0)), base_url=HERE) as host:
        ann = Browser(host).sign_up()
        note = make(ann, LARGE)
        assert ann.patch(f"/notes/{note}/", json={"content": LARGE * 3}).status_code == 200
        with ann.websocket_connect(f"ws://127.0.0.1/sync/{note}", headers={"Origin": HERE}) as socket:
            socket.receive_bytes()


def test_sizes_of_other_versions_are_corrected(settings: Settings) -> None:
    """A server of an earlier version stores none, and leaves one as it is that it does not know."""
    accounts = with_accounts(settings)
    assert accounts.mongo_url
    with MongoClient[Json](accounts.mongo_url) as mongo:
        notes = mongo[accounts.database].notes
        with TestClient(create_app(accounts), base_url=HERE) as host:
            ann = Browser(host).sign_up()
            ids = [make(ann, "\N{GREEK SMALL LETTER ALPHA}" * 100) for _ in range(3)]
            right = StorageUsage(3, 3 * (200 + BESIDES))
            assert used(host, ann.name) == right
            notes.update_one({"_id": ids[0]}, {"$set": {"size": 5}})
            notes.update_one({"_id": ids[1]}, {"$unset": {"size": True}})
            assert used(host, ann.name) != right
            assert run(host, parts_of(host).store.sizes.repair) == 2
            assert used(host, ann.name) == right
            notes.update_one({"_id": ids[1]}, {"$unset": {"size": True}})
        with TestClient(create_app(accounts), base_url=HERE) as host:
            assert host.get("/readyz").status_code == 200
            run(host, lambda: eventually(parts_of(host).store.notes._connection.prepared.is_set))
            assert used(host, ann.name) == right


def test_usage_is_read_from_the_index_alone(host: TestClient, ann: Browser, module_settings: Settings) -> None:
    make(ann, LARGE)
    assert module_settings.mongo_url
    pipeline = [
        {"$match": {"access.owner": ann.name, "size": {"$gt": 0}}},
        {"$group": {"_id": None, "size": {"$sum": "$size"}}},
    ]
    with MongoClient[Json](module_settings.mongo_url) as mongo:
        command = {"aggregate": "notes", "pipeline": pipeline, "cursor": {}, "hint": "owned_sizes"}
        plan = mongo[module_settings.database].command("explain", command, verbosity="executionStats")
    assert '"totalDocsExamined": 0' in json.dumps(plan, default=str)


class Stored:
    """A database in which a user stores something, and how often that was read."""

    def __init__(self, usage: StorageUsage) -> None:
        self.usage = usage
        self.reads = 0
        self.sizes: Any = self

    async def __call__(self, owner: str) -> StorageUsage:
        self.reads += 1
        await asyncio.sleep(0)
        return self.usage


def limited(stored: Stored, limit: StorageUsage) -> Quotas:
    store: Any = stored
    stored.sizes = type("Sizes", (), {"usage": stored})
    return Quotas(store, limit)


async def test_what_is_stored_is_read_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored(StorageUsage(1, 100))
    known = limited(stored, StorageUsage(5, 1000))
    for _ in range(4):
        await known.reserve("ann", 1, 10)
    assert stored.reads == 1
    for _ in range(20):  # it is fresh enough to refuse
        with pytest.raises(QuotaExceeded):
            await known.reserve("ann", 1, 10)
    assert stored.reads == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + quotas.FRESH_SECONDS + 0.1)
    await known.reserve("ann", 1, 10)  # those that failed are not stored
    assert stored.reads == 2
    await known.reserve(None, 10, 10_000)
    assert stored.reads == 2


async def test_what_was_estimated_is_read_before_a_write_is_refused() -> None:
    stored = Stored(StorageUsage(1, 100))
    known = limited(stored, StorageUsage(0, 1000))
    await known.reserve("ann", 0, 850, estimated=True)
    await known.reserve("ann", 0, 500)
    assert stored.reads == 2
    known.forget("ann")
    await known.check("ann", 0, 900)
    assert stored.reads == 3


async def test_writes_at_the_same_time_are_all_counted() -> None:
    stored = Stored(StorageUsage(0, 0))
    known = limited(stored, StorageUsage(5, 0))
    results = await asyncio.gather(*(known.reserve("ann", 1, 1) for _ in range(20)), return_exceptions=True)
    assert sum(result is None for result in results) == 5
    assert {type(result) for result in results if result is not None} == {QuotaExceeded}
