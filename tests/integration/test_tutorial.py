"""The tests of the FastAPI tutorial on which the notes are based, against the real server.

The tutorial replaces its database with functions; these tests create the notes first. Only the fields of the tutorial
are compared. Like the client of the tutorial, the tests send bodies without a Content-Type. The names are those of the
tutorial.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.harness import Json

FIRST = {"title": "something", "description": "something else"}
SECOND = {"title": "someone", "description": "someone else"}


def make(client: TestClient, *notes: Json) -> None:
    for note in notes:
        assert client.post("/notes/", content=json.dumps(note)).status_code == 201


def known_fields(note: Json) -> Json:
    return {name: note[name] for name in ("id", "title", "description")}


def test_ping(client: TestClient) -> None:
    answer = client.get("/ping")
    assert answer.status_code == 200
    assert answer.json() == {"ping": "pong!"}


def test_create_note(client: TestClient) -> None:
    answer = client.post("/notes/", content=json.dumps(FIRST))
    assert answer.status_code == 201
    assert known_fields(answer.json()) == {"id": 1, **FIRST}


def test_create_note_invalid_json(client: TestClient) -> None:
    for note in ({"title": "something"}, {"title": "1", "description": "2"}):
        assert client.post("/notes/", content=json.dumps(note)).status_code == 422


def test_read_note(client: TestClient) -> None:
    make(client, FIRST)
    answer = client.get("/notes/1")
    assert answer.status_code == 200
    assert known_fields(answer.json()) == {"id": 1, **FIRST}


def test_read_note_incorrect_id(client: TestClient) -> None:
    answer = client.get("/notes/999")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "Note not found"
    assert client.get("/notes/0").status_code == 422


def test_read_all_notes(client: TestClient) -> None:
    make(client, FIRST, SECOND)
    answer = client.get("/notes/")
    assert answer.status_code == 200
    assert list(map(known_fields, answer.json())) == [{"id": 1, **FIRST}, {"id": 2, **SECOND}]


def test_update_note(client: TestClient) -> None:
    make(client, FIRST)
    answer = client.put("/notes/1/", content=json.dumps({**SECOND, "id": 1}))
    assert answer.status_code == 200
    assert known_fields(answer.json()) == {"id": 1, **SECOND}


@pytest.mark.parametrize(
    ("id", "note", "status"),
    [
        (1, {}, 422),
        (1, {"description": "bar"}, 422),
        (999, {"title": "foo", "description": "bar"}, 404),
        (1, {"title": "1", "description": "bar"}, 422),
        (1, {"title": "foo", "description": "1"}, 422),
        (0, {"title": "foo", "description": "bar"}, 422),
    ],
)
def test_update_note_invalid(client: TestClient, id: int, note: Json, status: int) -> None:
    assert client.put(f"/notes/{id}/", content=json.dumps(note)).status_code == status


def test_remove_note(client: TestClient) -> None:
    make(client, FIRST)
    answer = client.delete("/notes/1/")
    assert answer.status_code == 200
    assert known_fields(answer.json()) == {"id": 1, **FIRST}


def test_remove_note_incorrect_id(client: TestClient) -> None:
    answer = client.delete("/notes/999/")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "Note not found"
    assert client.delete("/notes/0/").status_code == 422


class TestReadModifyWrite:
    """The simplest client: it reads a note, changes a field, and sends the note back."""

    @pytest.fixture
    def note(self, client: TestClient) -> Json:
        make(client, {**FIRST, "content": "milk\n", "tags": ["home"]})
        note: Json = client.get("/notes/1/").json()
        return note

    def test_put_changes_only_the_given_field(self, client: TestClient, note: Json) -> None:
        answer = client.put("/notes/1/", json={**note, "title": "changed"})
        assert answer.status_code == 200
        assert answer.json() == {
            **note,
            "title": "changed",
            "version": 2,
            "updated_date": answer.json()["updated_date"],
        }

    def test_patch_changes_only_the_given_field(self, client: TestClient, note: Json) -> None:
        answer = client.patch("/notes/1/?base_version=1", json={**note, "content": "bread\n"})
        assert (answer.status_code, answer.json()["content"], answer.json()["version"]) == (200, "bread\n", 2)
        again = client.patch("/notes/1/", json={**answer.json(), "tags": []})  # includes `merged` from the response
        assert (again.status_code, again.json()["tags"]) == (200, [])

    def test_patch_of_only_read_only_fields_changes_nothing(self, client: TestClient, note: Json) -> None:
        read_only = {name: note[name] for name in ("id", "version", "created_date", "updated_date")}
        answer = client.patch("/notes/1/?base_version=1", json=read_only)
        assert (answer.status_code, answer.json()) == (200, note)

    def test_post_creates_a_copy_with_a_new_id(self, client: TestClient, note: Json) -> None:
        answer = client.post("/notes/", json=note)
        assert (answer.status_code, answer.json()["id"], answer.json()["version"]) == (201, 2, 1)
        assert answer.json()["created_date"] > note["created_date"]

    def test_items_of_all_lists_can_be_posted(self, client: TestClient, note: Json) -> None:
        make(client, SECOND)
        client.delete("/notes/2/")
        listed: list[Json] = [
            *client.get("/notes/?q=milk").json(),
            *client.get("/notes/?content=false").json(),
            *client.get("/trash/").json(),
        ]
        assert len(listed) == 3
        for item in listed:
            assert client.post("/notes/", json=item).status_code == 201, item

    @pytest.mark.parametrize("method", ["PUT", "PATCH"])
    @pytest.mark.parametrize("id", [2, 0, "1", 1.5, True, [1]])
    def test_body_with_another_id_than_the_path_is_refused(
        self, client: TestClient, note: Json, method: str, id: Any
    ) -> None:
        answer = client.request(method, "/notes/1/", json={**note, "title": "changed", "id": id})
        assert answer.status_code == 422
        (error,) = answer.json()["detail"]
        assert error["loc"] == ["body", "id"]
        assert client.get("/notes/1/").json() == note

    @pytest.mark.parametrize("field", ["author", "Version", "createdDate", "_id", "ids"])
    def test_unknown_field_is_refused(self, client: TestClient, note: Json, field: str) -> None:
        for method, path in (("PUT", "/notes/1/"), ("PATCH", "/notes/1/"), ("POST", "/notes/")):
            answer = client.request(method, path, json={**note, field: 1})
            assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", field])
