"""Storage quotas: for every kind of write and every writer, until a note is deleted permanently."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime import create_app
from realtime.errors import QuotaExceeded
from realtime.notes import quotas
from realtime.notes.models import StorageUsage, size_of
from realtime.notes.quotas import Quotas
from realtime.settings import Settings
from tests.integration.accounts.conftest import ann, bob, browse, database, host, root
from tests.support.accounts import HERE, Browser, accounts_server, parts_of, run
from tests.support.harness import Json, eventually, note_in
from tests.support.http import refused_handshake
from tests.support.room_client import Text

__all__ = ["ann", "bob", "browse", "database", "host", "root"]

MIB = 1024 * 1024
NOTES, SIZE = 3, 100_000
LARGE = "x" * 40_000
CHANGES = {"user_notes": NOTES, "user_bytes": SIZE, "max_writes_per_second": 1000}
FIELDS = note_in("title", "description")
FIELDS_BYTES = len("titledescription")


def make(who: Browser, content: str = "", status: int = 201) -> int:
    answer = who.post("/notes/", json={**FIELDS, "content": content})
    assert answer.status_code == status, answer.text
    return int(answer.json().get("id", 0))


def check_refused(answer: Any, limit: str = "0.0953674 MiB") -> None:
    assert answer.status_code == 413, answer.text
    detail = answer.json()["detail"]
    assert f"reached the limit of {limit}" in detail
    assert "trash" in detail


def usage_of(host: TestClient, name: str) -> StorageUsage:
    """Return the usage of a user, read from the database."""
    usage: StorageUsage = run(host, partial(parts_of(host).store.sizes.usage, name))
    return usage


def test_note_quota_counts_the_trash_until_notes_are_purged(host: TestClient, ann: Browser, bob: Browser) -> None:
    ids = [make(ann) for _ in range(NOTES)]
    check_refused(ann.post("/notes/", json=FIELDS), "3 notes")
    make(bob)
    assert ann.delete(f"/notes/{ids[0]}/").status_code == 200
    check_refused(ann.post("/notes/", json=FIELDS), "3 notes")  # the trash counts
    assert ann.delete(f"/trash/{ids[0]}/").status_code == 204
    make(ann)
    check_refused(ann.post("/notes/", json=FIELDS), "3 notes")
    assert usage_of(host, ann.name).notes == NOTES


def test_restored_note_is_counted_once(host: TestClient, ann: Browser) -> None:
    ids = [make(ann) for _ in range(NOTES)]
    ann.delete(f"/notes/{ids[0]}/")
    assert ann.post(f"/trash/{ids[0]}/restore").status_code == 200
    assert usage_of(host, ann.name) == StorageUsage(NOTES, NOTES * FIELDS_BYTES)


@pytest.mark.parametrize(
    "grow",
    [
        lambda who, id: who.put(f"/notes/{id}/", json={**FIELDS, "content": "y" * 30_000}),
        lambda who, id: who.patch(f"/notes/{id}/", json={"content": "y" * 30_000}),
        lambda who, id: who.patch(f"/notes/{id}/?base_version=1", json={"content": "y" * 30_000}),
        lambda who, id: who.post(f"/notes/{id}/content", json=[{"op": "append", "text": "y" * 30_000}]),
    ],
    ids=["put", "patch", "merge", "edit"],
)
def test_write_beyond_the_size_quota_is_refused(
    host: TestClient, ann: Browser, grow: Callable[[Browser, int], Any]
) -> None:
    full, small = make(ann, LARGE), make(ann)
    make(ann, LARGE)
    check_refused(grow(ann, small))
    for answer in (
        ann.get(f"/notes/{small}/"),
        ann.patch(f"/notes/{small}/", json={"title": "other"}),
        ann.put(f"/notes/{full}/", json={**FIELDS, "content": "z" * len(LARGE)}),  # not larger than before
        ann.patch(f"/notes/{full}/", json={"content": "less"}),
        grow(ann, small),  # now within the quota
    ):
        assert answer.status_code == 200, answer.text
    expected = [ann.get(f"/notes/{id}/").json() for id in (full, small)]
    assert usage_of(host, ann.name).size == sum(map(size_of, expected)) + len(LARGE) + FIELDS_BYTES


def test_restore_of_a_version_counts_for_the_size_quota(ann: Browser) -> None:
    first = make(ann, "x" * 60_000)
    ann.patch(f"/notes/{first}/", json={"content": ""})
    make(ann, "x" * 60_000)
    check_refused(ann.post(f"/notes/{first}/restore", json={"version": 1}))


def replace_content(database: Database[Json], who: Browser, note: int, content: str) -> Any:
    """Replace the content of a note, and return the response once the history contains it."""
    answer = who.patch(f"/notes/{note}/", json={"content": content})
    asyncio.run(eventually(lambda: database.notes.find_one({"_id": note})["recent"] == []))  # type: ignore[index]  # it exists
    return answer


def share_with_editor(ann: Browser, bob: Browser, note: int) -> None:
    shared = {"members": [{"name": bob.name, "role": "editor"}]}
    assert ann.put(f"/notes/{note}/access", json=shared).status_code == 200


def test_repeated_replacement_of_content_is_limited(
    ann: Browser, bob: Browser, module_database: Database[Json]
) -> None:
    """The history keeps the replaced text, and the owner of a note cannot delete it separately."""
    note = make(ann, "x" * 30_000)
    share_with_editor(ann, bob, note)
    answers = [replace_content(module_database, ann, note, letter * 30_000) for letter in "abcdef"]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429, 429]
    assert "replaced too much text" in answers[4].json()["detail"]
    assert int(answers[4].headers["Retry-After"]) > 60
    assert ann.patch(f"/notes/{note}/", json={"content": "short"}).status_code == 429
    for answer in (
        ann.patch(f"/notes/{note}/", json={"title": "other"}),
        replace_content(module_database, bob, note, "y" * 30_000),  # each user has a separate limit
    ):
        assert answer.status_code == 200, answer.text


def test_replacement_limit_counts_short_contents(ann: Browser, module_database: Database[Json]) -> None:
    note = make(ann)
    answers = [ann.patch(f"/notes/{note}/", json={"content": f"{number:0500}"}) for number in range(SIZE // 500 + 5)]
    assert {answer.status_code for answer in answers} <= {200, 429}
    replace_content(module_database, ann, note, "")
    assert ann.patch(f"/notes/{note}/", json={"content": "one more"}).status_code == 429


def test_replacement_limit_counts_typed_text_but_never_refuses_it(
    host: TestClient, ann: Browser, bob: Browser, module_database: Database[Json]
) -> None:
    note = make(ann)
    share_with_editor(ann, bob, note)
    text = Text()
    with bob.open_room(note) as room:
        room.send_bytes(text.hello())
        while not text.synced:
            answer = text.take(room.receive_bytes())
            if answer is not None:
                room.send_bytes(answer)
        for letter in "abcdefg":
            content = letter * 25_000
            room.send_bytes(text.edit(content))
            path = f"/notes/{note}/"
            asyncio.run(eventually(lambda path=path, content=content: ann.get(path).json()["content"] == content))  # type: ignore[misc]  # the defaults bind the values of this iteration
    asyncio.run(eventually(lambda: module_database.notes.find_one({"_id": note})["recent"] == []))  # type: ignore[index]  # it exists
    assert bob.patch(f"/notes/{note}/", json={"content": "refused"}).status_code == 429
    assert ann.patch(f"/notes/{note}/", json={"content": "accepted"}).status_code == 200


def test_replacement_limit_counts_only_the_changed_text(ann: Browser) -> None:
    note = make(ann, "x" * 30_000)
    for length in range(30_000, 30_100):
        assert ann.patch(f"/notes/{note}/", json={"content": "x" * length + "!"}).status_code == 200


def test_note_size_counts_for_its_owner_not_the_editor(host: TestClient, ann: Browser, bob: Browser) -> None:
    note = make(ann, LARGE)
    share_with_editor(ann, bob, note)
    make(bob, LARGE)
    make(bob, LARGE)
    assert bob.patch(f"/notes/{note}/", json={"content": LARGE * 2}).status_code == 200
    check_refused(bob.patch(f"/notes/{note}/", json={"content": LARGE * 2 + "y" * 30_000}))
    assert usage_of(host, bob.name).size == 2 * (len(LARGE) + FIELDS_BYTES)


def test_transferred_note_counts_for_the_new_owner(host: TestClient, ann: Browser, bob: Browser) -> None:
    note, other = make(ann, LARGE), make(bob, LARGE)
    make(bob, LARGE)
    check_refused(ann.put(f"/notes/{note}/access", json={"owner": bob.name}))
    assert ann.get(f"/notes/{note}/access").json()["owner"] == ann.name
    bob.delete(f"/notes/{other}/")
    bob.delete(f"/trash/{other}/")
    assert ann.put(f"/notes/{note}/access", json={"owner": bob.name}).status_code == 200
    assert usage_of(host, ann.name) == StorageUsage(0, 0)
    assert usage_of(host, bob.name) == StorageUsage(2, 2 * (len(LARGE) + FIELDS_BYTES))


def test_import_beyond_the_quota_is_refused(host: TestClient, ann: Browser) -> None:
    def import_files(*contents: str, key: str | None = None) -> Any:
        files = [("files", (f"{number}.md", content)) for number, content in enumerate(contents)]
        return ann.post("/import", files=files, headers={"Idempotency-Key": key} if key else {})

    check_refused(import_files(*["one more"] * (NOTES + 1)), "3 notes")
    assert usage_of(host, ann.name) == StorageUsage(0, 0)
    check_refused(import_files(LARGE * 3))
    first = import_files("a", "b", "c", key="import")
    assert first.status_code == 200, first.text
    assert import_files("a", "b", "c", key="import").json() == first.json()  # a repeat creates nothing
    check_refused(import_files("d"), "3 notes")


def test_repeated_create_at_the_quota_returns_its_response(ann: Browser) -> None:
    key = {"Idempotency-Key": "create"}
    first = ann.post("/notes/", json=FIELDS, headers=key)
    for _ in range(NOTES - 1):
        make(ann)
    assert ann.post("/notes/", json=FIELDS, headers=key).json() == first.json()


def test_room_refuses_new_writers_when_the_quota_is_reached(host: TestClient, ann: Browser, bob: Browser) -> None:
    """Typing in an open room always reaches the note; a new writer is refused before the handshake."""
    note = make(ann, LARGE)
    assert ann.put(f"/notes/{note}/access", json={"public": True}).status_code == 200
    with ann.open_room(note) as open_room:
        open_room.receive_bytes()
        make(ann, "x" * (SIZE - len(LARGE) - 2 * FIELDS_BYTES))
        check_refused(refused_handshake(ann, f"ws://127.0.0.1/sync/{note}", Origin=HERE))
        with bob.open_room(note) as reader:
            reader.receive_bytes()
    assert ann.get(f"/notes/{note}/").status_code == 200
    assert ann.patch(f"/notes/{note}/", json={"content": "less"}).status_code == 200
    with ann.open_room(note) as again:
        again.receive_bytes()


def test_open_mode_has_no_quotas(settings: Settings) -> None:
    few = settings.model_copy(update={"user_notes": 1, "user_bytes": 1})
    with TestClient(create_app(few)) as client:
        for _ in range(3):
            assert client.post("/notes/", json=note_in(content="words")).status_code == 201


def test_quota_of_zero_means_no_limit(settings: Settings) -> None:
    with accounts_server(settings, user_notes=0, user_bytes=0) as host:
        ann = Browser(host).sign_up()
        note = make(ann, LARGE)
        assert ann.patch(f"/notes/{note}/", json={"content": LARGE * 3}).status_code == 200
        with ann.open_room(note) as socket:
            socket.receive_bytes()


def test_missing_and_wrong_note_sizes_are_repaired(settings: Settings) -> None:
    """Servers of earlier versions store no size, and do not update an existing one."""
    with MongoClient[Json](settings.mongo_url) as mongo:
        notes = mongo[settings.database].notes
        with accounts_server(settings) as host:
            ann = Browser(host).sign_up()
            ids = [make(ann, "\N{GREEK SMALL LETTER ALPHA}" * 100) for _ in range(3)]
            right = StorageUsage(3, 3 * (200 + FIELDS_BYTES))
            assert usage_of(host, ann.name) == right
            notes.update_one({"_id": ids[0]}, {"$set": {"size": 5}})
            notes.update_one({"_id": ids[1]}, {"$unset": {"size": True}})
            assert usage_of(host, ann.name) != right
            assert run(host, parts_of(host).store.sizes.repair) == 2
            assert usage_of(host, ann.name) == right
            notes.update_one({"_id": ids[1]}, {"$unset": {"size": True}})
        with accounts_server(settings) as host:
            assert host.get("/readyz").status_code == 200
            assert host.get("/notes/").status_code == 200  # waits until the database is prepared
            assert usage_of(host, ann.name) == right


def test_usage_query_reads_only_the_index(ann: Browser, database: Database[Json]) -> None:
    make(ann, LARGE)
    pipeline = [
        {"$match": {"access.owner": ann.name, "size": {"$gt": 0}}},
        {"$group": {"_id": None, "size": {"$sum": "$size"}}},
    ]
    command = {"aggregate": "notes", "pipeline": pipeline, "cursor": {}, "hint": "owned_sizes"}
    plan = database.command("explain", command, verbosity="executionStats")
    assert '"totalDocsExamined": 0' in json.dumps(plan, default=str)


class FakeStore:
    """A store with the usage of one user. It counts how often the usage is read."""

    def __init__(self, usage: StorageUsage) -> None:
        self.usage = usage
        self.reads = 0
        self.sizes: Any = self

    async def __call__(self, owner: str) -> StorageUsage:
        self.reads += 1
        await asyncio.sleep(0)
        return self.usage


def make_quotas(stored: FakeStore, limit: StorageUsage) -> Quotas:
    store: Any = stored
    stored.sizes = type("Sizes", (), {"usage": stored})
    return Quotas(store, limit)


async def test_stored_usage_is_read_again_only_when_outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = FakeStore(StorageUsage(1, 100))
    known = make_quotas(stored, StorageUsage(5, 1000))
    for _ in range(4):
        await known.reserve("ann", 1, 10)
    assert stored.reads == 1
    for _ in range(20):  # the cached usage is recent enough for a refusal
        with pytest.raises(QuotaExceeded):
            await known.reserve("ann", 1, 10)
    assert stored.reads == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + quotas.FRESH_SECONDS + 0.1)
    await known.reserve("ann", 1, 10)  # refused reservations are not counted
    assert stored.reads == 2
    await known.reserve(None, 10, 10_000)
    assert stored.reads == 2


async def test_estimated_usage_is_read_again_before_a_refusal() -> None:
    stored = FakeStore(StorageUsage(1, 100))
    known = make_quotas(stored, StorageUsage(0, 1000))
    await known.reserve("ann", 0, 850, estimated=True)
    await known.reserve("ann", 0, 500)
    assert stored.reads == 2
    known.forget("ann")
    await known.check("ann", 0, 900)
    assert stored.reads == 3


async def test_concurrent_reservations_are_all_counted() -> None:
    stored = FakeStore(StorageUsage(0, 0))
    known = make_quotas(stored, StorageUsage(5, 0))
    results = await asyncio.gather(*(known.reserve("ann", 1, 1) for _ in range(20)), return_exceptions=True)
    assert sum(result is None for result in results) == 5
    assert {type(result) for result in results if result is not None} == {QuotaExceeded}
