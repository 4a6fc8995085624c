"""The fast route: its responses are the same as those of FastAPI for all requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from realtime import create_app
from realtime.api.deps import current_principal
from realtime.api.fast_route import FastRoute
from realtime.errors import NotSignedIn
from realtime.settings import Settings
from tests.support.harness import note_in

Answer = tuple[int, bytes, list[tuple[str, str]]]

VARIABLE_PARTS = re.compile(rb"(/notes/|\"id\":)\d+|\d{4}-\d\d-\d\dT[0-9:.]+Z")
"""The parts that differ between two notes after the same requests."""
JSON = "application/json"


class RouteComparison:
    """Sends requests to the fast path of the routes and to FastAPI's handlers."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        self.routes = [route for route in client.app.routes if isinstance(route, FastRoute)]  # type: ignore[attr-defined]
        self._handlers = [(route.app, route.fallback) for route in self.routes]
        self._written_note = self.create_note()

    def create_note(self) -> int:
        """Create a note, and return its id."""
        id: int = self._client.post("/notes/", json=note_in(content="some text", tags=["a"])).json()["id"]
        return id

    def send(self, method: str, path: str, *, fallback: bool, **request: Any) -> Answer:
        """Return the response without the cursor of the feed."""
        for route, handlers in zip(self.routes, self._handlers, strict=True):
            route.app = handlers[fallback]
        answer = self._client.request(method, path, **request)
        if "x-cursor" in answer.headers:
            answer.headers["x-cursor"] = ""
        headers = answer.headers.multi_items()
        return answer.status_code, answer.content, sorted(headers)

    def send_both(self, method: str, path: str, **request: Any) -> list[Answer]:
        """Return the responses of both handlers. Writes use separate notes, ``{id}`` in the path."""
        answers = []
        for fallback in (False, True):
            answer = self.send(method, path.replace("{id}", str(self._written_note)), fallback=fallback, **request)
            if answer[0] < 300 and method not in ("GET", "HEAD", "OPTIONS"):
                self._written_note = self.create_note()
            answers.append(_without_variable_parts(answer))
        return answers

    def check(self, method: str, path: str, case: object, **request: Any) -> None:
        """Check that both handlers send the same response in a case."""
        actual, expected = self.send_both(method, path, **request)
        assert actual == expected, (method, path, case)


def _without_variable_parts(answer: Answer) -> Answer:
    status, body, headers = answer
    plain = [(name, VARIABLE_PARTS.sub(b"", value.encode()).decode()) for name, value in headers]
    return status, VARIABLE_PARTS.sub(b"", body), [(name, value) for name, value in plain if name != "content-length"]


@pytest.fixture(scope="module")
def comparison(module_settings: Settings) -> Iterator[RouteComparison]:
    with TestClient(create_app(module_settings), raise_server_exceptions=False) as client:
        yield RouteComparison(client)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def encoded_note(**more: Any) -> bytes:
    return json.dumps(note_in(**more)).encode()


PLAIN = b'{"title": "title", "description": "description"'
BODIES: dict[str, bytes] = {
    "ordinary": encoded_note(content="text", tags=["a", "b"]),
    "required fields only": encoded_note(),
    "not JSON": b"{title: 1}",
    "truncated": PLAIN,
    "trailing text": PLAIN + b"} x",
    "surrounding whitespace": b" \r\n\t" + PLAIN + b"}\n ",
    "surrounding vertical tab": b"\x0b" + PLAIN + b"}",
    "trailing comma": PLAIN + b",}",
    "comment": PLAIN + b"} // comment",
    "single quotes": b"{'title': 'title', 'description': 'description'}",
    "empty": b"",
    "null": b"null",
    "text": b'"title"',
    "list": b"[" + PLAIN + b"}]",
    "empty object": b"{}",
    "number as title": b'{"title": 12345, "description": "description"}',
    "null as title": b'{"title": null, "description": "description"}',
    "null as content": PLAIN + b', "content": null}',
    "null as tags": PLAIN + b', "tags": null}',
    "text as tags": PLAIN + b', "tags": "abc"}',
    "object as tags": PLAIN + b', "tags": {"a": 1}}',
    "number in tags": PLAIN + b', "tags": [1]}',
    "empty tag": PLAIN + b', "tags": [""]}',
    "duplicate tags": PLAIN + b', "tags": ["a", "a"]}',
    "33 tags": encoded_note(tags=[str(number) for number in range(33)]),
    "unknown field": PLAIN + b', "id": 1}',
    "unknown field with a NUL name": PLAIN + b', "\\u0000": 1}',
    "lone surrogate": PLAIN + b', "content": "\\ud800"}',
    "lone surrogate in a name": PLAIN + b', "\\udfff": 1}',
    "lone surrogate, raw": PLAIN + b', "content": "\xed\xa0\x80"}',
    "surrogate pair": PLAIN + b', "content": "\\ud83d\\ude00"}',
    "reversed surrogate pair": PLAIN + b', "content": "\\ude00\\ud83d"}',
    "NUL": PLAIN + b', "content": "a\\u0000b"}',
    "raw NUL": PLAIN + b', "content": "a\x00b"}',
    "raw line break": PLAIN + b', "content": "a\nb"}',
    "raw DEL": PLAIN + b', "content": "a\x7fb"}',
    "unknown escape": PLAIN + b', "content": "\\x41"}',
    "invalid UTF-8": PLAIN + b', "content": "\xff"}',
    "overlong UTF-8": PLAIN + b', "content": "\xc0\xaf"}',
    "title twice": PLAIN + b', "title": "another"}',
    "title twice, first invalid": b'{"title": 1, ' + PLAIN[1:] + b"}",
    "title twice, second invalid": PLAIN + b', "title": 1}',
    "content twice, second null": PLAIN + b', "content": "a", "content": null}',
    "escaped name": PLAIN + b', "c\\u006fntent": "escaped", "content": "plain"}',
    "BOM": b"\xef\xbb\xbf" + PLAIN + b"}",
    "UTF-16": (PLAIN + b"}").decode().encode("utf-16"),
    "UTF-16 without BOM": (PLAIN + b"}").decode().encode("utf-16-le"),
    "UTF-32": (PLAIN + b"}").decode().encode("utf-32"),
    "huge integer": PLAIN + b', "content": 1' + b"0" * 5000 + b"}",
    "huge float": PLAIN + b', "content": 1e999}',
    "NaN": PLAIN + b', "content": NaN}',
    "Infinity": PLAIN + b', "extra": -Infinity}',
    "nested 150 times": PLAIN + b', "tags": ' + nested(150).encode() + b"}",
    "nested 1,000 times": PLAIN + b', "extra": ' + nested(1_000).encode() + b"}",
    "nested 50,000 times": PLAIN + b', "extra": ' + nested(50_000).encode() + b"}",
    "short title": encoded_note(title="ab"),
    "title of 51 characters": encoded_note(title="x" * 51),
    "title of 50 characters beyond the BMP": encoded_note(title="\U0001f600" * 50),
    "blank title": encoded_note(title="   "),
    "version": PLAIN + b', "base_version": 1}',
}
TYPES = [
    JSON, "application/json; charset=utf-8", "application/json;charset=utf-16", "application/json;", "Application/JSON",
    " application/json", "application/merge-patch+json", "application/problem+json", "text/plain", "text/json", "json",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/json, text/plain", "*/*",
]  # fmt: skip
EDITS: dict[str, bytes] = {
    "append": b'[{"op": "append", "text": "more"}]',
    "replace": b'[{"op": "replace", "find": "some", "with": "any"}]',
    "replacement instead of with": b'[{"op": "replace", "find": "some", "replacement": "any"}]',
    "count": b'[{"op": "replace", "find": "some", "with": "any", "count": 1}]',
    "count as a float": b'[{"op": "replace", "find": "some", "with": "any", "count": 1.0}]',
    "count as a fraction": b'[{"op": "replace", "find": "some", "with": "any", "count": 1.5}]',
    "count as a text": b'[{"op": "replace", "find": "some", "with": "any", "count": "1"}]',
    "count as a bool": b'[{"op": "replace", "find": "some", "with": "any", "count": true}]',
    "count as NaN": b'[{"op": "replace", "find": "some", "with": "any", "count": NaN}]',
    "count as an infinite float": b'[{"op": "replace", "find": "some", "with": "any", "count": 1e400}]',
    "huge count": b'[{"op": "replace", "find": "some", "with": "any", "count": ' + b"9" * 400 + b"}]",
    "no edits": b"[]",
    "not a list": b'{"op": "append", "text": "more"}',
    "unknown op": b'[{"op": "shuffle", "text": "more"}]',
    "no op": b'[{"text": "more"}]',
    "op twice": b'[{"op": "append", "op": "prepend", "text": "more"}]',
    "text not found": b'[{"op": "replace", "find": "nowhere", "with": "any"}]',
    "unknown field": b'[{"op": "append", "text": "more", "x": 1}]',
    "lone surrogate": b'[{"op": "append", "text": "\\ud800"}]',
}
QUERIES = [
    "", "?", "?&", "?&&limit=2", "?limit=2", "?limit=1&content=false", "?content=0", "?content=no", "?content=maybe",
    "?content=False", "?limit=2&limit=3", "?limit=", "?limit", "?limit=0", "?limit=1001", "?limit=+2", "?limit=%202",
    "?limit=2.0", "?limit=2_0", "?limit=02", "?limit=x", "?limit=%D9%A2", "?LIMIT=2", "?limit=2;content=false",
    "?limit%00=2", "?unknown=1", "?q=", "?q", "?q=title", "?q=%00", "?q=%ED%A0%80", "?q=%FF", "?q=title&q=other",
    "?q=title&sort=relevance", "?sort=relevance", "?sort=-id", "?sort=", "?sort=-ID", "?sort=-id&sort=id", "?tag=a",
    "?tag=", "?tag=a&tag=b", "?tag=a&tag=", "?after=", "?after=x", "?after=WyJpZCIsMiwyXQ",
    "?after=WyJpZCIsMiwyXQ&limit=2", "?sort=-title&limit=2", "?limit=2&sort=updated&content=true",
    "?q=title&limit=2&sort=id", "?limit=2#limit=3", "?=", "?=2", "?limit=%32", "?li%6dit=2",
    "?content=false&limit=2&tag=a", "?limit=2&q=some%20text&content=false",
]  # fmt: skip
IDS = [
    "{id}", "0", "007", "00", "+1", "-1", "1.0", "1e0", "9007199254740991", "9007199254740992", "9" * 400, "%31",
    "%2B1", "%201", "1%20", "%D9%A1", "%EF%BC%91", "%C2%B2", "1_0", "0x1", "x", "true", "1%00", "%FF", "%2F1", "1%2F",
]  # fmt: skip
HEADERS: dict[str, list[tuple[str, str]]] = {
    "stale": [("If-Match", '"v7"')],
    "current": [("If-Match", '"v1"')],
    "weak": [("If-Match", 'W/"v1"')],
    "any": [("If-Match", "*")],
    "unquoted tag": [("If-Match", "v1")],
    "empty tag": [("If-Match", "")],
    "repeated": [("If-Match", '"v7"'), ("If-Match", '"v1"')],
    "upper case": [("IF-MATCH", '"v7"')],
    "underscores": [("if_match", '"v7"')],
    "If-None-Match current": [("If-None-Match", '"v1"')],
    "If-None-Match weak": [("If-None-Match", 'W/"v1", "v9"')],
    "If-None-Match any": [("If-None-Match", "*")],
    "If-None-Match another": [("If-None-Match", '"v2"')],
    "If-None-Match invalid": [("If-None-Match", "nonsense")],
    "empty key": [("Idempotency-Key", "")],
    "key with a blank": [("Idempotency-Key", "a b")],
    "long key": [("Idempotency-Key", "k" * 256)],
    "accept": [("Accept", "text/html")],
    "content encoding": [("Content-Encoding", "gzip")],
}


def test_note_bodies_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    for name, body in BODIES.items():
        for method, path in (("POST", "/notes/"), ("PATCH", "/notes/{id}")):
            comparison.check(method, path, name, content=body, headers={"Content-Type": JSON})


def test_content_edits_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    for name, body in EDITS.items():
        comparison.check("POST", "/notes/{id}/content", name, content=body, headers={"Content-Type": JSON})


def test_patches_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    for body in (b"{}", b'{"tags": null}', b'{"content": null}', b'{"title": null}', b'{"content": "x"}'):
        for query in ("", "?base_version=1"):
            path = "/notes/{id}/" + query
            comparison.check("PATCH", path, (body, query), content=body, headers={"Content-Type": JSON})


def test_content_types_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    both = [("Content-Type", JSON), ("Content-Type", "text/plain")]
    for given in [both, both[::-1], [], *([("Content-Type", type)] for type in TYPES)]:
        for body in (BODIES["ordinary"], b""):
            comparison.check("PUT", "/notes/{id}", (given, body), content=body, headers=given)


def test_list_queries_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    for _ in range(3):
        comparison.create_note()
    for query in QUERIES:
        actual, expected = (comparison.send("GET", "/notes/" + query, fallback=fallback) for fallback in (False, True))
        assert actual == expected, query


def test_queries_of_other_routes_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    for query in ("?", "?&", "?x=1", "?base_version=1", "?base_version=", "?base_version=1&base_version=1", "?="):
        for method, path in (("POST", "/notes/"), ("GET", "/notes/{id}/"), ("PUT", "/notes/{id}/")):
            whole = {"content": BODIES["required fields only"], "headers": {"Content-Type": JSON}}
            body = {} if method == "GET" else whole
            comparison.check(method, path + query, query, **body)


def test_note_ids_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    for id in IDS:
        for method in ("GET", "PATCH", "HEAD"):
            body = {"content": b"{}", "headers": {"Content-Type": JSON}} if method == "PATCH" else {}
            comparison.check(method, f"/notes/{id}/", id, **body)


def test_request_headers_get_the_response_of_fastapi(comparison: RouteComparison) -> None:
    for name, given in HEADERS.items():
        for method, path in (("GET", "/notes/{id}/"), ("PUT", "/notes/{id}/"), ("DELETE", "/notes/{id}/")):
            body = BODIES["required fields only"] if method == "PUT" else None
            headers = given if body is None else [("Content-Type", JSON), *given]
            comparison.check(method, path, name, content=body, headers=headers)


def test_repeated_key_gets_the_first_answer_on_both_paths(comparison: RouteComparison) -> None:
    request: dict[str, Any] = {
        "content": BODIES["required fields only"],
        "headers": {"Idempotency-Key": "one", "Content-Type": JSON},
    }
    first, *again = (
        comparison.send("POST", "/notes/", fallback=fallback, **request) for fallback in (False, True, False)
    )
    assert again == [first, first]


def test_ordinary_requests_do_not_use_the_fallback(
    comparison: RouteComparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(scope["path"])

    for route in comparison.routes:
        monkeypatch.setattr(route, "fallback", refuse)
    id = comparison.create_note()
    body = {"content": BODIES["ordinary"], "headers": {"Content-Type": JSON}}
    edits = {"content": EDITS["append"], "headers": {"Content-Type": JSON}}
    for method, path, request in (
        ("POST", "/notes", body),
        ("GET", "/notes/?limit=2&content=false", {}),
        ("GET", f"/notes/{id}/", {}),
        ("PUT", f"/notes/{id}", body),
        ("PATCH", f"/notes/{id}/", body),
        ("POST", f"/notes/{id}/content", edits),
        ("DELETE", f"/notes/{id}/", {}),
    ):
        status, _, _ = comparison.send(method, path, fallback=False, **request)
        assert status < 300, (method, path)


def test_dependency_overrides_of_the_application_apply(settings: Settings) -> None:
    app = create_app(settings)

    async def refuse() -> None:
        raise NotSignedIn

    with TestClient(app) as client:
        assert client.post("/notes/", json=note_in()).status_code == 201
        app.dependency_overrides[current_principal] = refuse
        assert client.get("/notes/1/").status_code == 401
        app.dependency_overrides.clear()
        assert client.get("/notes/1/").status_code == 200
