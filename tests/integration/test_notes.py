"""Writes of notes: a repeated request is applied once, and no write overwrites a version that it did not see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.notes.preconditions import KEPT_OPERATIONS
from tests.support.harness import Json, eventually, note_in, rest_client
from tests.support.http import Serve

WRITES = ["POST", "PUT", "PATCH", "DELETE"]


def _write(client: TestClient, method: str, key: str = "key", path: str = "", **headers: str) -> Any:
    """Send a write with a key: create a note, or change note 1."""
    body = None if method == "DELETE" else note_in("written", "once")
    path = path or ("/notes/" if method == "POST" else "/notes/1/")
    return client.request(method, path, json=body, headers={"Idempotency-Key": key, **headers})


def _response_parts(answer: Any) -> tuple[int, bytes, str | None, str | None]:
    return answer.status_code, answer.content, answer.headers.get("ETag"), answer.headers.get("Location")


def _stored_notes(client: TestClient) -> list[Json]:
    notes: list[Json] = client.get("/notes/").json()
    return notes


@pytest.mark.parametrize("method", WRITES)
def test_repeated_write_gets_the_same_answer_and_changes_nothing(client: TestClient, method: str) -> None:
    client.post("/notes/", json=note_in(content="text"))
    first = _write(client, method)
    assert first.is_success
    for _ in range(2):
        before = _stored_notes(client)
        assert _response_parts(_write(client, method)) == _response_parts(first)
        assert _stored_notes(client) == before
        for note in before:  # the notes change, and the answer stays the same
            client.put(f"/notes/{note['id']}/", json=note_in("moved on", content="more"))
    for note in _stored_notes(client):
        client.delete(f"/notes/{note['id']}/")
    assert _response_parts(_write(client, method)) == _response_parts(first)
    assert _stored_notes(client) == []


def _delete_stored_answer(database: Database[Json]) -> None:
    """Simulate a worker that died after the commit and before it stored the answer."""
    assert database.operations.update_one({"_id": "key"}, {"$unset": {"answer": ""}}).modified_count == 1


@pytest.mark.parametrize("method", WRITES)
def test_repeated_write_without_a_stored_answer_is_applied_once(
    client: TestClient, database: Database[Json], method: str
) -> None:
    client.post("/notes/", json=note_in(content="text"))
    first = _write(client, method)
    before = _stored_notes(client)
    for _ in range(2):
        _delete_stored_answer(database)
        assert _response_parts(_write(client, method)) == _response_parts(first)
    assert _stored_notes(client) == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"v1"'}])
async def test_repeated_write_after_many_writes_gets_the_first_answer(
    client: TestClient, database: Database[Json], method: str, headers: dict[str, str]
) -> None:
    headers = {} if method == "POST" else headers
    client.post("/notes/", json=note_in(content="text"))
    first = _write(client, method, **headers)
    _delete_stored_answer(database)
    path = first.headers.get("Location", "/notes/1/")
    if method == "DELETE":
        client.post("/trash/1/restore")
    for number in range(2 * KEPT_OPERATIONS):
        assert _write(client, "PUT", f"other-{number}", path).is_success
    await eventually(lambda: database.notes.count_documents({"dirty": True}) == 0)
    newest = client.get(path).json()
    assert _response_parts(_write(client, method, **headers)) == _response_parts(first)
    assert client.get(path).json() == newest


async def test_concurrent_requests_with_one_key_are_applied_once(serve: Serve) -> None:
    one, two = serve(), serve()
    async with rest_client(one.url) as left, rest_client(two.url) as right:

        async def send_concurrently(method: str, path: str, body: Any, key: str) -> set[bytes]:
            answers = await asyncio.gather(
                *(
                    rest.request(method, path, json=body, headers={"Idempotency-Key": key})
                    for _ in range(4)
                    for rest in (left, right)
                )
            )
            assert {answer.status_code for answer in answers} == {200}, answers[0].text
            return {answer.content for answer in answers}

        for number in range(1, 9):
            await left.post("/notes/", json=note_in(content="a\n"))
            path = f"/notes/{number}/"
            for step, (method, to, body) in enumerate(
                (
                    ("POST", f"{path}content", [{"op": "append", "text": "x"}]),
                    ("PATCH", f"{path}?base_version=1", {"title": "other"}),
                    ("POST", f"{path}restore", {"version": 1}),
                    ("DELETE", path, None),
                    ("POST", f"/trash/{number}/restore", None),
                ),
                2,
            ):
                assert len(await send_concurrently(method, to, body, f"{number}-{step}")) == 1
            found = (await right.get(path)).json()
            assert (found["version"], found["content"]) == (6, "a\n")


async def test_concurrent_edits_with_if_match_succeed_only_once(serve: Serve) -> None:
    async with rest_client(serve().url) as rest:
        for number in range(1, 21):
            await rest.post("/notes/", json=note_in())
            edits = [{"op": "append", "text": "x"}]
            answers = await asyncio.gather(
                *(rest.post(f"/notes/{number}/content", json=edits, headers={"If-Match": '"v1"'}) for _ in range(8))
            )
            assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("POST", "/notes/?x=1", note_in()), ("PUT", "/notes/1/?baseversion=1", note_in("other"))),
        *(("PATCH", "/notes/1?base_version=1&base_version=1", {"title": "other"}), ("DELETE", "/notes/1/?if=1", None)),
        ("POST", "/notes/1/content?base_version=1", [{"op": "append", "text": "x"}]),
        *(("POST", "/notes/1/restore?version=1", {"version": 1}), ("POST", "/trash/2/restore?x", None)),
        ("DELETE", "/trash/2/?now=1", None),
    ],
)
def test_write_with_an_unknown_query_parameter_is_refused(
    client: TestClient, method: str, path: str, body: Any
) -> None:
    for _ in range(2):
        client.post("/notes/", json=note_in())
    client.delete("/notes/2/")
    before = client.get("/notes/").json(), client.get("/trash/").json()
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["detail"][0]["loc"][0]) == (422, "query")
    assert (client.get("/notes/").json(), client.get("/trash/").json()) == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_key_of_an_expired_claim_can_be_used_again(client: TestClient, database: Database[Json], method: str) -> None:
    client.post("/notes/", json=note_in())
    first = _write(client, method).json()
    assert database.operations.delete_one({"_id": "key"}).deleted_count == 1
    again = _write(client, method).json()
    assert (again["id"], again["version"]) == ((first["id"] + 1, 1) if method == "POST" else (1, first["version"] + 1))


@pytest.mark.parametrize("method", WRITES)
def test_key_of_another_request_is_refused(client: TestClient, method: str) -> None:
    for _ in range(2):
        client.post("/notes/", json=note_in())
    first = _write(client, method)
    before = _stored_notes(client)
    others = [
        client.request(method, first.request.url.path, json=note_in("different"), headers={"Idempotency-Key": "key"}),
        _write(client, method, path="/notes/2/") if method != "POST" else _write(client, "PUT"),
        _write(client, method, **{"If-Match": '"v1"'}),
        _write(client, "PATCH" if method == "PUT" else "PUT"),
    ]
    for other in others:
        assert (other.status_code, other.json()["detail"]) == (422, "This Idempotency-Key was used for another request")
    assert _stored_notes(client) == before
    assert _response_parts(_write(client, method)) == _response_parts(first)


@pytest.mark.parametrize("key", [b"", b"a b", "schlüssel".encode(), "schlüssel".encode("latin-1"), b"x" * 256])
def test_malformed_idempotency_key_is_refused(client: TestClient, key: bytes) -> None:
    answer = client.post("/notes/", json=note_in(), headers=[(b"Idempotency-Key", key)])
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "idempotency-key"])
    assert _stored_notes(client) == []


def test_idempotency_key_of_visible_ascii_is_accepted(client: TestClient) -> None:
    keys = ["~" * 255, "$where.a"]
    answers = {key: [_write(client, "POST", key).content for _ in range(2)] for key in keys}
    assert all(first == again for first, again in answers.values())
    assert len(_stored_notes(client)) == len(keys)


def test_repeated_write_in_another_slash_form_gets_the_same_answer(client: TestClient) -> None:
    first, again = (_response_parts(_write(client, "POST", path=path)) for path in ("/notes", "/notes/"))
    assert first == again


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_refused_write_does_not_consume_its_key(client: TestClient, method: str) -> None:
    assert _write(client, method).status_code == 404
    client.post("/notes/", json=note_in())
    headers = {"If-Match": '"v2"'}
    assert _write(client, method, "other", **headers).status_code == 412
    client.put("/notes/1/", json=note_in())
    assert _write(client, method, "other", **headers).status_code == 200
    if method != "DELETE":
        assert _write(client, method).json()["version"] == 4


def test_invalid_request_does_not_consume_its_key(client: TestClient) -> None:
    assert client.post("/notes/", json={}, headers={"Idempotency-Key": "key"}).status_code == 422
    assert _write(client, "POST").status_code == 201


async def test_concurrent_writes_on_two_servers_are_applied_once(serve: Serve) -> None:
    one, two = serve(), serve()
    async with rest_client(one.url) as left, rest_client(two.url) as right:
        await left.post("/notes/", json=note_in())
        puts = await asyncio.gather(
            *(rest.put("/notes/1/", json=note_in(f"put {number}")) for number in range(50) for rest in (left, right))
        )
        assert sorted(answer.json()["version"] for answer in puts) == list(range(2, 102))

        stale = {"If-Match": '"v101"'}
        races = await asyncio.gather(
            *(rest.put("/notes/1/", json=note_in(), headers=stale) for _ in range(25) for rest in (left, right))
        )
        assert sorted(answer.status_code for answer in races) == [200] + [412] * 49
        assert (await left.get("/notes/1/")).json()["version"] == 102

        posts, patches, deletes = [
            await asyncio.gather(
                *(
                    rest.request(method, path, json=body, headers={"Idempotency-Key": method})
                    for _ in range(10)
                    for rest in (left, right)
                )
            )
            for method, path, body in (
                ("POST", "/notes/", note_in("made once")),
                ("PATCH", "/notes/1/", {"title": "changed once"}),
                ("DELETE", "/notes/1/", None),
            )
        ]
        for answers, status, version in ((posts, 201, 1), (patches, 200, 103), (deletes, 200, 103)):
            assert {answer.status_code for answer in answers} == {status}
            assert len({answer.content for answer in answers}) == 1
            assert answers[0].json()["version"] == version
        assert (await right.get("/notes/")).json() == [posts[0].json()]
