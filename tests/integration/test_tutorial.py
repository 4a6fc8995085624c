"""The tests of the FastAPI tutorial on which the notes are based, against the real server.

The tutorial replaces its database with functions; these tests create the notes first. Only the fields of the tutorial
are compared. Like the client of the tutorial, the tests send bodies without a Content-Type. The ids of the cases are
the names of its tests.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.harness import Json

FIRST = {"title": "something", "description": "something else"}
SECOND = {"title": "someone", "description": "someone else"}
NOT_FOUND = {"detail": "Note not found"}


def make(client: TestClient, *notes: Json) -> None:
    for note in notes:
        assert client.post("/notes/", content=json.dumps(note)).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "expected"),
    [
        pytest.param("GET", "/ping", None, 200, {"ping": "pong!"}, id="ping"),
        pytest.param("POST", "/notes/", FIRST, 201, {"id": 3, **FIRST}, id="create_note"),
        pytest.param("GET", "/notes/1", None, 200, {"id": 1, **FIRST}, id="read_note"),
        pytest.param("PUT", "/notes/1/", {**SECOND, "id": 1}, 200, {"id": 1, **SECOND}, id="update_note"),
        pytest.param("DELETE", "/notes/1/", None, 200, {"id": 1, **FIRST}, id="remove_note"),
        pytest.param("GET", "/notes/999", None, 404, NOT_FOUND, id="read_note_incorrect_id"),
        pytest.param("DELETE", "/notes/999/", None, 404, NOT_FOUND, id="remove_note_incorrect_id"),
        *(("GET", "/notes/0", None, 422, None), ("DELETE", "/notes/0/", None, 422, None)),
        *(
            ("POST", "/notes/", note, 422, None)
            for note in ({"title": "something"}, {"title": "1", "description": "2"})
        ),
        *(("PUT", "/notes/1/", {}, 422, None), ("PUT", "/notes/1/", {"description": "bar"}, 422, None)),
        ("PUT", "/notes/1/", {"title": "1", "description": "bar"}, 422, None),
        ("PUT", "/notes/1/", {"title": "foo", "description": "1"}, 422, None),
        ("PUT", "/notes/0/", {"title": "foo", "description": "bar"}, 422, None),
        ("PUT", "/notes/999/", {"title": "foo", "description": "bar"}, 404, NOT_FOUND),
    ],
)
def test_request(
    client: TestClient, method: str, path: str, body: Json | None, status: int, expected: Json | None
) -> None:
    make(client, FIRST, SECOND)
    answer = client.request(method, path, content=None if body is None else json.dumps(body))
    assert answer.status_code == status
    if expected is not None:
        assert {name: answer.json()[name] for name in expected} == expected


def test_read_all_notes(client: TestClient) -> None:
    make(client, FIRST, SECOND)
    answer = client.get("/notes/")
    assert answer.status_code == 200
    listed = [{name: note[name] for name in ("id", "title", "description")} for note in answer.json()]
    assert listed == [{"id": 1, **FIRST}, {"id": 2, **SECOND}]


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
