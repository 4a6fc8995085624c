"""The REST API of notes: accepted and rejected requests, and their responses."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime import create_app
from realtime.settings import MIB, Settings
from tests.support.harness import Json, ServerProcess, all_notes, create_note, note_in
from tests.support.http import pages_of
from tests.support.websocket import sent_request

ANY_NOTE = ["GET", "PUT", "PATCH", "DELETE"]
WRITES = ["PUT", "PATCH", "DELETE"]
NOT_FOUND = {"detail": "Note not found"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def unchanged_note(shared: TestClient) -> Json:
    """Create a note at version 2 that no test changes."""
    note: Json = shared.put(_path(create_note(shared)), json=note_in("unchanged", content="text", tags=["a"])).json()
    return note


def _path(note: Json) -> str:
    return f"/notes/{note['id']}/"


def _call(client: TestClient, method: str, path: str, **headers: str) -> Any:
    """Send a request, with a body if the method has one. Underscores in header names stand for hyphens."""
    body = None if method in ("GET", "DELETE") else note_in("other", "another")
    return client.request(
        method, path, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def test_created_notes_are_numbered_from_one(client: TestClient) -> None:
    for number in (1, 2, 3):
        made = client.post("/notes/", json=note_in(f"note {number}", "words", content="text", tags=["a", "b"]))
        assert made.status_code == 201
        assert (made.headers["Location"], made.headers["ETag"]) == (f"/notes/{number}/", '"v1"')
        note = made.json()
        assert note["created_date"] == note["updated_date"]
        assert MOMENT.fullmatch(note.pop("created_date"))
        assert MOMENT.fullmatch(note.pop("updated_date"))
        assert note == {
            "id": number,
            "version": 1,
            **note_in(f"note {number}", "words", content="text", tags=["a", "b"]),
        }
        read = client.get(made.headers["Location"])
        assert (read.content, read.headers["ETag"]) == (made.content, '"v1"')


def test_content_and_tags_are_empty_by_default(shared: TestClient) -> None:
    note = create_note(shared)
    assert (note["content"], note["tags"]) == ("", [])


def test_note_keeps_every_unicode_character(shared: TestClient) -> None:
    text = "🦜 \u0001\u007f\u2028\ufeff\uffff é\u0301 \\ \" '\r\n\t </script>"
    note = create_note(shared, text[:50], content=text * 100, tags=[text[:50]])
    path = _path(note)
    assert (note["title"], note["content"], note["tags"]) == (text[:50], text * 100, [text[:50]])
    assert shared.get(path).json() == note


@pytest.mark.parametrize("method", ANY_NOTE)
@pytest.mark.parametrize("id", [10**6, 2**53 - 1])
def test_request_for_a_missing_note_returns_404(shared: TestClient, method: str, id: int) -> None:
    answer = _call(shared, method, f"/notes/{id}/")
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    "id",
    [
        "0",
        "-1",
        "9007199254740992",
        "9" * 5000,
        "abc",
        "1.5",
        "1.0",
        "1e3",
        "1_0",
        "+1",
        "%201",
        "%00",
        "1%ff",
        "%D9%A1",
    ],
    ids=lambda id: id[:20],
)
def test_invalid_note_id_returns_422(shared: TestClient, id: str) -> None:
    for method in ANY_NOTE:
        answer = _call(shared, method, f"/notes/{id}/")
        assert answer.status_code == 422, method
        assert answer.json()["detail"][0]["loc"] == ["path", "id"]


INVALID_BODIES: dict[str, str | bytes] = {
    "nothing": "",
    "half": '{"title": "abc", "descr',
    "array": json.dumps([note_in()]),
    "null": "null",
    "text": '"title"',
    "number": "12345",
    "nan": "NaN",
    "infinite": "1e999",
    "nan title": '{"title": NaN, "description": "abc"}',
    "infinite title": '{"title": "abc", "description": -Infinity}',
    "huge title": '{"title": %s, "description": "abc"}' % ("9" * 5000),
    "deep array": "[" * 100_000,
    "deep object": '{"title":' * 100_000,
    "deep title": '{"title": %s, "description": "abc"}' % ("[" * 50_000 + "]" * 50_000),
    "latin-1": '{"title": "été", "description": "abc"}'.encode("latin-1"),
    "raw surrogate": b'{"title": "abc\xed\xa0\x80", "description": "abc"}',
    "NUL byte": b'{"title": "abc\0", "description": "abc"}',
    "unknown field": json.dumps(note_in(color="red")),
    "surrogate name": json.dumps(note_in() | {"\ud800": 1}),
    "surrogate title": json.dumps(note_in("abc\ud800")),
    "surrogate content": json.dumps(note_in(content="\udfff")),
    "surrogate tag": json.dumps(note_in(tags=["\ud800"])),
    "NUL title": json.dumps(note_in("ab\0c")),
    "NUL content": json.dumps(note_in(content="\0")),
    "NUL name": json.dumps(note_in() | {"\0": 1}),
    "number title": '{"title": 123, "description": "abc"}',
    "null title": '{"title": null, "description": "abc"}',
    "short title": json.dumps(note_in("ab")),
    "long title": json.dumps(note_in("🦜" * 51)),
    "text tags": json.dumps(note_in(tags="abc")),
    "33 tags": json.dumps(note_in(tags=["x"] * 33)),
    "empty tag": json.dumps(note_in(tags=[""])),
    "long tag": json.dumps(note_in(tags=["x" * 51])),
}


@pytest.mark.parametrize("body", INVALID_BODIES.values(), ids=INVALID_BODIES)
def test_invalid_body_is_refused_and_changes_nothing(
    shared: TestClient, unchanged_note: Json, body: str | bytes
) -> None:
    before = shared.get("/notes/?limit=1000").json()
    for method, path in (("POST", "/notes/"), ("PUT", _path(unchanged_note)), ("PATCH", _path(unchanged_note))):
        answer = shared.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), method
        assert answer.json()["detail"], method
    assert shared.get("/notes/?limit=1000").json() == before


@pytest.mark.parametrize("kind", [None, "application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_body_is_accepted_with_or_without_content_type(shared: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = shared.post("/notes/", content=json.dumps(note_in()), headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "?", ";;"])
def test_other_content_type_is_refused(shared: TestClient, kind: str) -> None:
    answer = shared.post("/notes/", content=json.dumps(note_in()), headers={"Content-Type": kind})
    assert answer.status_code in (415, 422)
    assert answer.json()["detail"]


def test_content_is_limited_to_one_mebibyte(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_body": 8 * MIB}))) as client:
        assert client.post("/notes/", json=note_in(content="é" * (MIB // 2))).status_code == 201
        too_long = client.post("/notes/", json=note_in(content="é" * (MIB // 2) + "x"))
        assert (too_long.status_code, too_long.json()["detail"][0]["loc"]) == (422, ["body", "content"])


@pytest.mark.parametrize("method", ["POST", *WRITES])
@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_body_is_refused_and_changes_nothing(shared: TestClient, method: str, chunked: bool) -> None:
    path = "/notes/" if method == "POST" else _path(create_note(shared))
    before = shared.get("/notes/?limit=1000").json()
    body = json.dumps(note_in("other")).encode() + b" " * MIB
    content = iter([body[:1000], body[1000:]]) if chunked else body
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"{method}-large"} if chunked else {}
    answer = shared.request(method, path, content=content, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["detail"]
    assert shared.get("/notes/?limit=1000").json() == before


def test_body_is_limited_to_one_mebibyte(client: TestClient) -> None:
    body = json.dumps(note_in()).encode().ljust(MIB)
    assert client.post("/notes/", content=body).status_code == 201
    assert client.post("/notes/", content=body + b" ").status_code == 413


async def _response_head(server: ServerProcess, head: str, body: bytes) -> bytes:
    """Return the head of the response to a request whose body never ends."""
    request = f"POST /notes/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n\r\n".encode() + body
    async with sent_request(server.port, request) as (reader, _):
        return await reader.readuntil(b"\r\n\r\n")


async def test_too_large_body_is_refused_before_it_is_received(shared_servers: list[ServerProcess]) -> None:
    server = shared_servers[0]
    before = await all_notes(server.url)
    announced = await _response_head(server, f"Content-Length: {2**40}", b"{")
    chunked = await _response_head(server, "Transfer-Encoding: chunked", b"100001\r\n" + b" " * (MIB + 1) + b"\r\n")
    assert announced.startswith(b"HTTP/1.1 413 ")
    assert chunked.startswith(b"HTTP/1.1 413 ")
    assert await all_notes(server.url) == before


def test_put_replaces_only_the_given_fields(shared: TestClient) -> None:
    first = create_note(shared, content="text", tags=["a"])
    path = _path(first)
    kept = shared.put(path, json=note_in("new title", "new words"))
    assert (kept.status_code, kept.headers["ETag"]) == (200, '"v2"')
    second = kept.json()
    assert second == first | note_in("new title", "new words", version=2, updated_date=second["updated_date"])
    assert datetime.fromisoformat(second["updated_date"]) > datetime.fromisoformat(first["updated_date"])

    emptied = shared.put(path, json=note_in("new title", "new words", content="", tags=[])).json()
    assert (emptied["content"], emptied["tags"], emptied["version"]) == ("", [], 3)
    assert shared.get(path).json() == emptied


@pytest.mark.parametrize("missing", ["title", "description"])
def test_put_requires_title_and_description(shared: TestClient, missing: str) -> None:
    path = _path(create_note(shared))
    body = note_in()
    del body[missing]
    answer = shared.put(path, json=body)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", missing])


@pytest.mark.parametrize("kind", ["application/json", "application/merge-patch+json"])
@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"title": "new title"}, {"title": "new title"}),
        ({"content": "new"}, {"content": "new"}),
        ({"content": None}, {"content": ""}),
        ({"tags": None, "description": "new words"}, {"tags": [], "description": "new words"}),
        ({"tags": ["b"]}, {"tags": ["b"]}),
    ],
)
def test_patch_changes_only_the_given_fields(shared: TestClient, patch: Json, expected: Json, kind: str) -> None:
    first = create_note(shared, content="text", tags=["a"])
    path = _path(first)
    answer = shared.patch(path, content=json.dumps(patch), headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"v2"')
    assert answer.json() == first | expected | {"version": 2, "updated_date": answer.json()["updated_date"]}
    assert answer.json()["updated_date"] > first["updated_date"]


def test_empty_patch_changes_nothing(shared: TestClient) -> None:
    first = create_note(shared)
    path = _path(first)
    answer = shared.patch(path, json={})
    assert (answer.status_code, answer.headers["ETag"], answer.json()) == (200, '"v1"', first)
    assert shared.patch(path, json={}, headers={"If-Match": '"v2"'}).status_code == 412


def test_delete_returns_the_last_state_of_the_note(shared: TestClient) -> None:
    path = _path(create_note(shared, content="text", tags=["a"]))
    note = shared.patch(path, json={"title": "other"})
    deleted = shared.delete(path)
    assert (deleted.status_code, deleted.content) == (200, note.content)
    for method in ANY_NOTE:
        gone = _call(shared, method, path)
        assert (gone.status_code, gone.json()) == (404, NOT_FOUND), method
    assert note.json()["id"] not in [note["id"] for page in pages_of(shared, "/notes/?limit=1000") for note in page]
    assert _path(create_note(shared)) != path


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("tags", ['"v1"', "*", '"v2", "v1"', '"other","v1" , W/"v9"', '"v1",'])
def test_if_match_with_the_current_version_accepts_the_write(shared: TestClient, method: str, tags: str) -> None:
    path = _path(create_note(shared))
    assert _call(shared, method, path, If_Match=tags).status_code == 200


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("tags", ['"v1"', 'W/"v2"', '"v1", "v3"', '""', '"2"', '"v02"', '"v99999999999999999999"'])
def test_stale_if_match_returns_412_with_the_current_note(
    shared: TestClient, unchanged_note: Json, method: str, tags: str
) -> None:
    answer = _call(shared, method, _path(unchanged_note), If_Match=tags)
    assert (answer.status_code, answer.headers["ETag"]) == (412, '"v2"')
    assert answer.json()["note"] == shared.get(_path(unchanged_note)).json() == unchanged_note
    assert answer.json()["detail"]


@pytest.mark.parametrize("tags", ["", "v1", '"v1', '"v1" "v2"', ",", "W/v1", 'w/"v1"', '*, "v1"', "null"])
def test_malformed_entity_tag_returns_422(shared: TestClient, unchanged_note: Json, tags: str) -> None:
    path = _path(unchanged_note)
    for method in WRITES:
        answer = _call(shared, method, path, If_Match=tags)
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "if-match"]), method
    answer = shared.get(path, headers={"If-None-Match": tags})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "if-none-match"])
    assert shared.get(path).json() == unchanged_note


@pytest.mark.parametrize(
    ("tags", "status"),
    [('"v2"', 304), ('W/"v2"', 304), ('"other", W/"v2"', 304), ("*", 304), ('"v1"', 200), ('"2"', 200)],
)
def test_if_none_match_returns_304_for_the_current_version(
    shared: TestClient, unchanged_note: Json, tags: str, status: int
) -> None:
    answer = shared.get(_path(unchanged_note), headers={"If-None-Match": tags})
    assert (answer.status_code, answer.headers["ETag"]) == (status, '"v2"')
    assert answer.content == b"" if status == 304 else answer.json() == unchanged_note


@pytest.mark.parametrize(("notes", "limit", "pages"), [(0, 2, [0]), (2, 2, [2]), (3, 2, [2, 1]), (4, 2, [2, 2])])
def test_last_page_has_no_next_link(client: TestClient, notes: int, limit: int, pages: list[int]) -> None:
    for _ in range(notes):
        create_note(client)
    assert [len(page) for page in pages_of(client, f"/notes?limit={limit}")] == pages


def test_list_page_has_100_notes_by_default(client: TestClient, database: Database[Json]) -> None:
    create_note(client)
    note = database.notes.find_one() or {}
    database.notes.insert_many([{**note, "_id": number} for number in range(2, 102)])
    assert [len(page) for page in pages_of(client, "/notes/")] == [100, 1]
    assert [len(page) for page in pages_of(client, "/notes/?limit=1000")] == [101]


def test_resume_from_a_list_cursor_misses_no_change(client: TestClient) -> None:
    create_note(client, "before")
    listed = client.get("/notes/")
    after = create_note(client, "after")
    cursor: str = listed.headers["X-Cursor"]
    changes: list[Json] = []
    while not changes or changes[-1]["id"] != 2:  # a write waits only a limited time for its publication
        feed = client.get("/changes", params={"since": cursor, "timeout": 5}).json()
        assert not feed["reset"]
        assert feed["changes"]
        cursor = feed["cursor"]
        changes += feed["changes"]
    assert changes[-1]["note"] == after
    assert {note["id"] for note in listed.json()} | {change["id"] for change in changes} == {1, 2}
