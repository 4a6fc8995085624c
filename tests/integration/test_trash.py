"""The trash: deleted notes can be read and restored until they are purged, which leaves no data."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime import create_app
from realtime.api.pagination import encode_page_token
from realtime.auth.permissions import UNRESTRICTED
from realtime.notes.models import MAX_ID
from realtime.settings import MIB, Settings
from tests.support.harness import Json, create_note, eventually, note_in
from tests.support.http import pages_of

NOT_FOUND = {"detail": "Note not found"}
BOOKKEEPING = {"operations", "text_version", "deleted", "dirty", "recent", "created_date", "updated_date", "title_key"}
BOOKKEEPING |= {"words_version"}
SECRET = "xyzzy"


def _trashed(client: TestClient, *args: str, **more: Any) -> Json:
    """Create a note in the trash, at version 2."""
    note = create_note(client, *args, **more)
    assert client.delete(f"/notes/{note['id']}/").status_code == 200
    trashed: Json = client.get(f"/trash/{note['id']}/").json()
    return trashed


def _restore(client: TestClient, note: Json, **headers: str) -> Any:
    return client.post(f"/trash/{note['id']}/restore", headers=_headers(headers))


def _purge(client: TestClient, note: Json, **headers: str) -> Any:
    return client.delete(f"/trash/{note['id']}/", headers=_headers(headers))


def _headers(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _listed(client: TestClient, path: str = "/trash/?limit=1000") -> list[int]:
    return [note["id"] for page in pages_of(client, path) for note in page]


def _feed(client: TestClient, since: str) -> list[Json]:
    """Return the changes of the feed since a cursor."""
    answer = client.get("/changes", params={"since": since, "timeout": 5}).json()
    assert not answer["reset"]
    changes: list[Json] = answer["changes"]
    return changes


def _cursor(client: TestClient) -> str:
    cursor: str = client.get("/notes/?limit=1").headers["X-Cursor"]
    return cursor


WRITES: list[Callable[..., Any]] = [_restore, _purge]


def test_deleted_note_is_in_the_trash(shared: TestClient) -> None:
    note = create_note(shared, "title", "words", content="text", tags=["a"])
    shared.delete(f"/notes/{note['id']}/")
    answer = shared.get(f"/trash/{note['id']}/")
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"v2"')
    trashed = answer.json()
    deleted = trashed.pop("deleted_date")
    assert trashed == note | {"version": 2}
    assert datetime.fromisoformat(deleted) >= datetime.fromisoformat(note["updated_date"])
    assert shared.get("/trash/").json()[0] == answer.json()
    assert shared.get(f"/trash/{note['id']}").json() == answer.json()


def test_trash_lists_the_last_deleted_note_first(client: TestClient) -> None:
    for _ in range(5):
        create_note(client)
    for id in (3, 1, 5, 2):
        client.delete(f"/notes/{id}/")
    assert _listed(client) == [2, 5, 1, 3]
    assert _listed(client, "/trash/?limit=1") == [2, 5, 1, 3]
    assert "link" not in client.get("/trash/?limit=4").headers
    _restore(client, {"id": 1})
    client.delete("/notes/1/")
    assert _listed(client, "/trash?limit=3") == [1, 2, 5, 3]


def test_trash_pages_are_stable_with_equal_deletion_dates(client: TestClient, database: Database[Json]) -> None:
    _trashed(client)
    note = database.notes.find_one() or {}
    moments = [note["deleted_date"] + timedelta(days=day) for day in (-2, -1)]
    database.notes.insert_many([{**note, "_id": id, "deleted_date": moments[id % 2]} for id in range(2, 302)])
    in_order = [1, *range(301, 1, -2), *range(300, 0, -2)]
    assert _listed(client, "/trash/?limit=101") == in_order
    answer = client.get("/trash/?limit=50")
    _purge(client, {"id": in_order[49]})
    _restore(client, {"id": in_order[60]})
    client.delete(f"/notes/{in_order[61]}/")
    _trashed(client)
    assert _listed(client, answer.links["next"]["url"]) == in_order[50:60] + in_order[61:]


def test_trash_page_ends_early_with_large_notes(client: TestClient) -> None:
    for _ in range(10):
        _trashed(client, content="x" * (MIB - 2000))
    sizes = [len(client.get("/trash/").json())]
    assert sizes[0] < 10
    assert _listed(client, "/trash/") == list(range(10, 0, -1))


def test_restored_note_equals_the_deleted_note(shared: TestClient) -> None:
    note = create_note(shared, "restored", content="plover text", tags=["restored"])
    path = f"/notes/{note['id']}/"
    shared.delete(path)
    cursor = _cursor(shared)
    answer = _restore(shared, note)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"v3"')
    restored = answer.json()
    assert restored == note | {"version": 3, "updated_date": restored["updated_date"]}
    assert restored["updated_date"] > note["updated_date"]
    assert shared.get(path).json() == restored
    for query in ("q=plover", "tag=restored", "sort=-title&limit=1000"):
        assert restored["id"] in [found["id"] for found in shared.get(f"/notes/?{query}").json()]
    assert shared.get(f"/trash/{note['id']}/").status_code == 404
    assert note["id"] not in _listed(shared)
    (event,) = _feed(shared, cursor)
    assert (event["type"], event["version"], event["note"]) == ("note.updated", 3, restored)
    assert shared.patch(path, json={"title": "goes on"}).json()["version"] == 4
    assert [entry["action"] for entry in shared.get(f"{path}history/").json()] == [
        *("update", "undelete", "delete", "create"),
    ]


def test_trashed_note_is_in_no_other_list(shared: TestClient) -> None:
    note = _trashed(shared, "frotz", content="frotz", tags=["frotz"])
    path = f"/notes/{note['id']}/"
    assert shared.get("/notes/?q=frotz").json() == shared.get("/notes/?tag=frotz").json() == []
    assert "frotz" not in shared.get("/tags/?limit=10000").text
    assert note["id"] not in _listed(shared, "/notes/?sort=-updated&limit=1000")
    for gone in (path, f"{path}history/", f"{path}history/1/"):
        assert (shared.get(gone).status_code, shared.get(gone).json()) == (404, NOT_FOUND), gone


async def test_purged_note_leaves_only_its_id_and_version(shared: TestClient, module_database: Database[Json]) -> None:
    note = create_note(shared, f"{SECRET} title", f"{SECRET} words", content=f"{SECRET} text", tags=[SECRET])
    id, path = note["id"], f"/notes/{note['id']}/"
    shared.patch(path, json={"content": f"{SECRET} " * 200})
    await eventually(lambda: module_database.history.count_documents({"_id.note": id}) == 2)
    shared.delete(path)
    cursor = _cursor(shared)
    answer = _purge(shared, note)
    assert (answer.status_code, answer.content) == (204, b"")
    (event,) = _feed(shared, cursor)
    assert (event["type"], event["id"], event["version"]) == ("note.deleted", id, 4)
    assert SECRET not in json.dumps(event)
    await eventually(lambda: "dirty" not in (module_database.notes.find_one({"_id": id}) or {"dirty": True}))
    assert module_database.history.count_documents({"_id.note": id}) == 0
    document = module_database.notes.find_one({"_id": id}) or {}
    assert SECRET not in str(document)
    assert {name for name, value in document.items() if value} - BOOKKEEPING == {"_id", "version", "purged"}
    assert document["version"] == 4

    for method, url in (
        *(("GET", path), ("PUT", path), ("PATCH", path), ("DELETE", path), ("POST", f"{path}content")),
        *(("GET", f"{path}history/"), ("GET", f"{path}history/1/"), ("POST", f"{path}restore")),
        *(("GET", f"/trash/{id}/"), ("DELETE", f"/trash/{id}/"), ("POST", f"/trash/{id}/restore")),
    ):
        bodies: Json = {f"{path}content": [{"op": "append", "text": "x"}], f"{path}restore": {"version": 1}}
        body = bodies.get(url, note_in() if method in ("PUT", "PATCH") else None)
        for headers in ({}, {"If-Match": '"v4"'}, {"If-Match": "*"}, {"Idempotency-Key": f"{method}{url}"}):
            answer = shared.request(method, url, json=body, headers=headers)
            assert (answer.status_code, answer.json()) == (404, NOT_FOUND), (method, url, headers)
    assert id not in _listed(shared)
    assert id not in _listed(shared, "/notes/?sort=title&limit=1000")
    assert shared.get("/notes/", params={"q": SECRET}).json() == shared.get("/notes/", params={"tag": SECRET}).json()
    assert shared.get("/notes/", params={"q": SECRET}).json() == []
    assert module_database.notes.count_documents({"_id": id, "version": 4}) == 1


async def test_purge_directly_after_delete_leaves_no_history(
    shared: TestClient, module_database: Database[Json]
) -> None:
    notes = [_trashed(shared, content=SECRET * 200)["id"] for _ in range(5)]
    for id in notes:
        _purge(shared, {"id": id})
    # Dirty notes are not archived yet.
    await eventually(lambda: module_database.notes.count_documents({"dirty": True}) == 0)
    assert module_database.history.count_documents({"_id.note": {"$in": notes}}) == 0


async def test_purge_during_archiving_leaves_no_history(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        store = app.state.services.store
        await store.prepare()
        await store.notes.create(note_in(content=SECRET, tags=[]), None)
        await store.notes.delete(1, None, None)
        archive = store.history.archive

        async def archive_after_purge(notes: Any) -> Any:
            monkeypatch.setattr(store.history, "archive", archive)
            await app.state.services.notes.purge(UNRESTRICTED, 1)
            await app.state.services.outbox.archive_and_clear()
            return await archive(notes)

        monkeypatch.setattr(store.history, "archive", archive_after_purge)
        await store.archiver.archive({1})
        assert await store.history.read(1, 1) is None


def test_id_of_a_purged_note_is_not_reused(client: TestClient, database: Database[Json]) -> None:
    _purge(client, _trashed(client))
    assert create_note(client)["id"] == 2
    database.counters.drop()
    assert create_note(client)["id"] == 3


@pytest.mark.parametrize("write", WRITES)
def test_restore_and_purge_require_a_trashed_note(shared: TestClient, write: Callable[..., Any]) -> None:
    live = create_note(shared)
    restored = _trashed(shared)
    _restore(shared, restored)
    for note in (live, restored, {"id": 10**6}, {"id": MAX_ID}):
        for headers in (
            {},
            {"If_Match": '"v1"'},
            {"If_Match": "*"},
            {"Idempotency_Key": f"{write.__name__}{note['id']}"},
        ):
            answer = write(shared, note, **headers)
            assert (answer.status_code, answer.json()) == (404, NOT_FOUND)
        assert shared.get(f"/trash/{note['id']}/").status_code == 404
    assert shared.get(f"/notes/{live['id']}/").json() == live


@pytest.mark.parametrize("id", ["0", "-1", "abc", "9007199254740992", "1.0", "%00", "01"])
def test_invalid_trash_id_returns_422(shared: TestClient, id: str) -> None:
    answers = [shared.get(f"/trash/{id}/"), shared.post(f"/trash/{id}/restore"), shared.delete(f"/trash/{id}/")]
    for answer in answers:
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["path", "id"])


@pytest.mark.parametrize("write", WRITES)
def test_restore_and_purge_check_if_match(shared: TestClient, write: Callable[..., Any]) -> None:
    note = _trashed(shared)
    current = {name: value for name, value in note.items() if name != "deleted_date"}
    for tags in ('"v1"', '"v3"', 'W/"v2"', '""'):
        answer = write(shared, note, If_Match=tags)
        assert (answer.status_code, answer.headers["ETag"], answer.json()["note"]) == (412, '"v2"', current)
    answer = write(shared, note, If_Match="v2")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "if-match"])
    assert shared.get(f"/trash/{note['id']}/").json() == note
    assert write(shared, note, If_Match='"v1", "v2"').is_success


@pytest.mark.parametrize("write", WRITES)
def test_repeated_write_returns_the_same_response_and_changes_nothing(
    shared: TestClient, write: Callable[..., Any]
) -> None:
    note, other = _trashed(shared), _trashed(shared)
    key = f"repeat-{write.__name__}"
    first = write(shared, note, Idempotency_Key=key)
    assert first.is_success
    cursor = _cursor(shared)
    for _ in range(2):
        repeat = write(shared, note, Idempotency_Key=key)
        assert (repeat.status_code, repeat.content) == (first.status_code, first.content)
        assert repeat.headers.get("ETag") == first.headers.get("ETag")
    reused = write(shared, other, Idempotency_Key=key)
    assert reused.status_code == 422
    assert shared.get(f"/trash/{other['id']}/").json() == other
    written = _restore(shared, other).json()
    assert [event["note"] for event in _feed(shared, cursor)] == [written]  # the repeats published no event


def test_repeated_restore_does_not_undo_a_later_delete(shared: TestClient) -> None:
    note = _trashed(shared)
    first = _restore(shared, note, Idempotency_Key="later")
    shared.delete(f"/notes/{note['id']}/")
    assert _restore(shared, note, Idempotency_Key="later").content == first.content
    assert shared.get(f"/trash/{note['id']}/").json()["version"] == 4


def test_refused_write_releases_its_idempotency_key(shared: TestClient) -> None:
    note = create_note(shared)
    assert _purge(shared, note, Idempotency_Key="freed").status_code == 404
    shared.delete(f"/notes/{note['id']}/")
    assert _purge(shared, note, Idempotency_Key="freed").status_code == 204


@pytest.mark.parametrize("write", WRITES)
def test_repeated_write_is_recognized_without_its_stored_response(
    shared: TestClient, module_database: Database[Json], write: Callable[..., Any]
) -> None:
    note = _trashed(shared)
    key = f"lost-{write.__name__}"
    first = write(shared, note, Idempotency_Key=key)
    assert module_database.operations.update_one({"_id": key}, {"$unset": {"answer": ""}}).modified_count == 1
    again = write(shared, note, Idempotency_Key=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)


DATE = 1_767_268_800_000


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=", "limit")),
        *(("q=a", "q"), ("sort=id", "sort"), ("tag=a", "tag"), ("content=false", "content"), ("%00=1", "\0")),
        *(("after=", "after"), ("after=xyz", "after"), ("after=%00", "after"), ("after=%2B", "after")),
        (f"after={encode_page_token('id', 1, 1)}", "after"),
        (f"after={encode_page_token('trash', '2026-01-01', 1)}", "after"),
        (f"after={encode_page_token('trash', None, 1)}", "after"),
        (f"after={encode_page_token('trash', float('nan'), 1)}", "after"),
        (f"after={encode_page_token('trash', float('-inf'), 1)}", "after"),
        (f"after={encode_page_token('trash', 10**40, 1)}", "after"),
        (f"after={encode_page_token('trash', DATE, 2**63)}", "after"),
        (f"after={encode_page_token('trash', DATE, -1)}", "after"),
        (f"after={encode_page_token('trash', DATE, 1, 1)}", "after"),
        (f"after={encode_page_token('trash', DATE)}", "after"),
    ],
)
def test_invalid_trash_query_returns_422(shared: TestClient, query: str, field: str) -> None:
    answer = shared.get(f"/trash/?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["query", field]


@pytest.mark.parametrize("place", [(0, 0), (MAX_ID, MAX_ID), (-1, 1), (1.5, 1), (DATE, 0)])
def test_page_token_with_any_date_is_accepted(shared: TestClient, place: tuple[float, int]) -> None:
    assert shared.get(f"/trash/?after={encode_page_token('trash', *place)}").status_code == 200
