"""The history over REST: pages, versions, differences, and restoring an earlier version."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.notes import queries
from realtime.notes.diff import Hunk, hunks
from tests.support.harness import Json, note_in
from tests.support.http import pages_of

TEXTS = ["# To buy\nmilk\nbuns\n", "# To buy\nmilk\nbread 🦜\n", "# To buy\nmilk\nbread 🦜\n\nno line feed"]


def _make(client: TestClient) -> str:
    """Create a note with three versions of its content and a fourth of its title and tags, and return its path."""
    made = client.post("/notes/", json=note_in(content=TEXTS[0])).json()
    path = f"/notes/{made['id']}/"
    for text in TEXTS[1:]:
        client.patch(path, json={"content": text})
    client.patch(path, json={"title": "other title", "tags": ["a"], "description": made["description"]})
    return path


@pytest.fixture(scope="module")
def unchanged_note(shared: TestClient) -> str:
    """Create a note that no test changes, and return its path."""
    return _make(shared)


def test_history_lists_author_date_action_and_changed_fields(shared: TestClient, unchanged_note: str) -> None:
    answer = shared.get(f"{unchanged_note}history/")
    assert (answer.status_code, answer.links) == (200, {})
    revisions = answer.json()
    listed = [(revision["version"], revision["action"], set(revision["changed"])) for revision in revisions]
    assert listed == [
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
def test_history_pages_contain_each_version_once(shared: TestClient, unchanged_note: str, limit: int) -> None:
    whole = shared.get(f"{unchanged_note}history/").json()
    pages = list(pages_of(shared, f"{unchanged_note}history/?limit={limit}"))
    assert [revision for page in pages for revision in page] == whole
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=x", "after=1", "after=", "color=red"])
def test_malformed_history_query_is_refused(shared: TestClient, unchanged_note: str, query: str) -> None:
    answer = shared.get(f"{unchanged_note}history/?{query}")
    assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "query")


def test_earlier_version_returns_its_stored_fields(shared: TestClient, unchanged_note: str) -> None:
    for version, text in enumerate(TEXTS, 1):
        read = shared.get(f"{unchanged_note}history/{version}/")
        assert read.status_code == 200
        assert read.json().items() >= note_in(content=text, tags=[], version=version).items()
    assert shared.get(f"{unchanged_note}history/4/").json().items() >= {"content": TEXTS[2], "tags": ["a"]}.items()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("history/5/", 404), ("history/9007199254740991/", 404), ("history/1..5/diff", 404)),
        *(("history/0/", 422), ("history/x/", 422), ("history/-1/", 422), ("history/9007199254740992/", 422)),
        *(("history/1/diff", 422), ("history/1..x/diff", 422), ("history/0..1/diff", 422), ("history/1...2/diff", 422)),
    ],
)
def test_missing_or_invalid_version_is_refused(shared: TestClient, unchanged_note: str, path: str, status: int) -> None:
    answer = shared.get(unchanged_note + path)
    assert answer.status_code == status
    assert answer.json()["detail"]


TEXT, JSON = "text/x-diff; charset=utf-8", "application/json"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        *((None, TEXT), ("*/*", TEXT), ("text/plain", TEXT), ("text/x-diff", TEXT), ("text/*", TEXT)),
        *(("application/json", JSON), ("Application/JSON", JSON), ("application/json, */*;q=0.1", JSON)),
        *(("application/json;q=0.5, text/plain", TEXT), ("application/json;q=0, */*", TEXT), ("image/png", TEXT)),
    ],
)
def test_diff_content_type_follows_the_accept_header(
    shared: TestClient, unchanged_note: str, accept: str | None, kind: str
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = shared.get(f"{unchanged_note}history/1..2/diff", headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
    assert answer.headers["Vary"] == "Accept"


def test_diff_as_text_is_in_unified_format(shared: TestClient, unchanged_note: str) -> None:
    id = unchanged_note.split("/")[2]
    assert shared.get(f"{unchanged_note}history/1..2/diff").text == (
        f"--- {id}/content version 1\n+++ {id}/content version 2\n@@ -1,3 +1,3 @@\n # To buy\n milk\n-buns\n+bread 🦜\n"
    )
    assert shared.get(f"{unchanged_note}history/2..2/diff").text == ""
    assert shared.get(f"{unchanged_note}history/3..4/diff").text == (
        f"--- {id}/title version 3\n+++ {id}/title version 4\n@@ -1 +1 @@\n-title\n+other title\n"
        f"--- {id}/tags version 3\n+++ {id}/tags version 4\n@@ -0,0 +1 @@\n+a\n"
    )


def test_diff_as_json_contains_hunks_per_field(shared: TestClient, unchanged_note: str) -> None:
    answer = shared.get(f"{unchanged_note}history/2..4/diff", headers={"Accept": "application/json"}).json()
    assert (answer["id"], answer["before"], answer["after"]) == (int(unchanged_note.split("/")[2]), 2, 4)
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
    parts: Any = client.app.state.services  # type: ignore[attr-defined]  # the type of an ASGI application has no state
    assert client.portal
    client.portal.call(parts.outbox.archive_and_clear)


def test_diff_of_large_texts_is_computed_once(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counting(before: str, after: str) -> list[Hunk]:
        made.append(1)
        return hunks(before, after)

    monkeypatch.setattr(queries, "hunks", counting)
    texts = ["".join(f"line {number * step}\n" for number in range(2000)) for step in (1, 2)]
    id = shared.post("/notes/", json=note_in(content=texts[0])).json()["id"]
    shared.patch(f"/notes/{id}/", json={"content": texts[1]})
    path = f"/notes/{id}/history/1..2/diff"
    answers = {shared.get(path).text for _ in range(3)}
    assert len(answers) == len(made) == 1
    shared.delete(f"/notes/{id}/")
    assert shared.get(path).status_code == 404


@pytest.mark.parametrize("archived", [False, True])
def test_restore_creates_a_new_version_with_the_earlier_fields(
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
def test_invalid_restore_is_refused_and_changes_nothing(
    shared: TestClient, unchanged_note: str, body: Any, status: int
) -> None:
    before = shared.get(unchanged_note).json()
    assert shared.post(f"{unchanged_note}restore", json=body).status_code == status
    assert shared.get(unchanged_note).json() == before


def test_restore_with_a_stale_if_match_returns_412(shared: TestClient, unchanged_note: str) -> None:
    answer = shared.post(f"{unchanged_note}restore", json={"version": 1}, headers={"If-Match": '"v3"'})
    assert (answer.status_code, answer.json()["note"]) == (412, shared.get(unchanged_note).json())


def test_repeated_restore_is_applied_once(shared: TestClient) -> None:
    path = _make(shared)
    headers = {"Idempotency-Key": f"restore{path}"}
    answers = [shared.post(f"{path}restore", json={"version": 1}, headers=headers) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert shared.get(path).json()["version"] == 5


def test_delete_and_undelete_are_recorded_as_versions(shared: TestClient) -> None:
    path = _make(shared)
    id = path.split("/")[2]
    shared.delete(path)
    assert shared.post(f"/trash/{id}/restore").status_code == 200
    history = shared.get(f"{path}history/").json()
    assert [revision["action"] for revision in history] == [
        *("undelete", "delete", "update", "update", "update", "create"),
    ]
    assert shared.get(f"{path}history/5/").json()["content"] == TEXTS[2]
