"""The fast route: its responses are the same as those of FastAPI for all requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from realtime import create_app
from realtime.api.fast_route import FastRoute
from realtime.settings import Settings
from tests.support.harness import note_in

Answer = tuple[int, bytes, list[tuple[str, str]]]

PASSING = re.compile(rb"(/notes/|\"id\":)\d+|\d{4}-\d\d-\d\dT[0-9:.]+Z")
"""The differences between two notes after the same requests."""
JSON = "application/json"


class Ways:
    """An application whose routes can be told to take FastAPI's way only."""

    def __init__(self, client: TestClient) -> None:
        self._client = client
        routes = [route for route in client.app.routes if isinstance(route, FastRoute)]  # type: ignore[attr-defined]
        self._ways = [(route, (route.app, route._fallback)) for route in routes]
        self._spare = self.note()

    def note(self) -> int:
        """A new note."""
        id: int = self._client.post("/notes/", json=note_in(content="some text", tags=["a"])).json()["id"]
        return id

    def ask(self, method: str, path: str, *, thorough: bool, **request: Any) -> Answer:
        """The answer, but for how far the feed is."""
        for route, ways in self._ways:
            route.app = ways[thorough]
        answer = self._client.request(method, path, **request)
        if "x-cursor" in answer.headers:
            answer.headers["x-cursor"] = ""
        headers = answer.headers.multi_items()
        return answer.status_code, answer.content, sorted(headers)

    def both(self, method: str, path: str, **request: Any) -> list[Answer]:
        """Return the responses of both routes. Writes use a separate note, ``{id}`` in the path."""
        answers = []
        for thorough in (False, True):
            answer = self.ask(method, path.replace("{id}", str(self._spare)), thorough=thorough, **request)
            if answer[0] < 300 and method not in ("GET", "HEAD", "OPTIONS"):
                self._spare = self.note()
            answers.append(_lasting(answer))
        return answers


def _lasting(answer: Answer) -> Answer:
    status, body, headers = answer
    plain = [(name, PASSING.sub(b"", value.encode()).decode()) for name, value in headers]
    return status, PASSING.sub(b"", body), [one for one in plain if one[0] != "content-length"]


@pytest.fixture(scope="module")
def ways(module_settings: Settings) -> Iterator[Ways]:
    with TestClient(create_app(module_settings), raise_server_exceptions=False) as client:
        yield Ways(client)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def body_of(**more: Any) -> bytes:
    return json.dumps(note_in(**more)).encode()


PLAIN = b'{"title": "title", "description": "description"'
BODIES: dict[str, bytes] = {
    "ordinary": body_of(content="text", tags=["a", "b"]),
    "least": body_of(),
    "not JSON": b"{title: 1}",
    "half": PLAIN,
    "more after it": PLAIN + b"} x",
    "space around it": b" \r\n\t" + PLAIN + b"}\n ",
    "other space around it": b"\x0b" + PLAIN + b"}",
    "comma at the end": PLAIN + b",}",
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
    "tags twice in it": PLAIN + b', "tags": ["a", "a"]}',
    "33 tags": body_of(tags=[str(number) for number in range(33)]),
    "extra": PLAIN + b', "id": 1}',
    "extra with a null name": PLAIN + b', "\\u0000": 1}',
    "lone surrogate": PLAIN + b', "content": "\\ud800"}',
    "lone surrogate in a name": PLAIN + b', "\\udfff": 1}',
    "lone surrogate, raw": PLAIN + b', "content": "\xed\xa0\x80"}',
    "surrogate pair": PLAIN + b', "content": "\\ud83d\\ude00"}',
    "surrogates the wrong way round": PLAIN + b', "content": "\\ude00\\ud83d"}',
    "NUL": PLAIN + b', "content": "a\\u0000b"}',
    "raw NUL": PLAIN + b', "content": "a\x00b"}',
    "raw line break": PLAIN + b', "content": "a\nb"}',
    "raw DEL": PLAIN + b', "content": "a\x7fb"}',
    "unknown escape": PLAIN + b', "content": "\\x41"}',
    "invalid UTF-8": PLAIN + b', "content": "\xff"}',
    "overlong UTF-8": PLAIN + b', "content": "\xc0\xaf"}',
    "title twice": PLAIN + b', "title": "another"}',
    "title twice, once wrong": b'{"title": 1, ' + PLAIN[1:] + b"}",
    "title twice, then wrong": PLAIN + b', "title": 1}',
    "content twice, then null": PLAIN + b', "content": "a", "content": null}',
    "escaped name": PLAIN + b', "c\\u006fntent": "escaped", "content": "plain"}',
    "BOM": b"\xef\xbb\xbf" + PLAIN + b"}",
    "UTF-16": (PLAIN + b"}").decode().encode("utf-16"),
    "UTF-16 without BOM": (PLAIN + b"}").decode().encode("utf-16-le"),
    "UTF-32": (PLAIN + b"}").decode().encode("utf-32"),
    "huge integer": PLAIN + b', "content": 1' + b"0" * 5000 + b"}",
    "huge float": PLAIN + b', "content": 1e999}',
    "NaN": PLAIN + b', "content": NaN}',
    "Infinity": PLAIN + b', "extra": -Infinity}',
    "deep": PLAIN + b', "tags": ' + nested(150).encode() + b"}",
    "deeper": PLAIN + b', "extra": ' + nested(1_000).encode() + b"}",
    "deepest": PLAIN + b', "extra": ' + nested(50_000).encode() + b"}",
    "short": body_of(title="ab"),
    "51 characters": body_of(title="x" * 51),
    "50 characters beyond the BMP": body_of(title="\U0001f600" * 50),
    "blanks": body_of(title="   "),
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
    "by the field's name": b'[{"op": "replace", "find": "some", "replacement": "any"}]',
    "count": b'[{"op": "replace", "find": "some", "with": "any", "count": 1}]',
    "count as a float": b'[{"op": "replace", "find": "some", "with": "any", "count": 1.0}]',
    "count as a fraction": b'[{"op": "replace", "find": "some", "with": "any", "count": 1.5}]',
    "count as a text": b'[{"op": "replace", "find": "some", "with": "any", "count": "1"}]',
    "count as a bool": b'[{"op": "replace", "find": "some", "with": "any", "count": true}]',
    "count as NaN": b'[{"op": "replace", "find": "some", "with": "any", "count": NaN}]',
    "count beyond floats": b'[{"op": "replace", "find": "some", "with": "any", "count": 1e400}]',
    "count, huge": b'[{"op": "replace", "find": "some", "with": "any", "count": ' + b"9" * 400 + b"}]",
    "none": b"[]",
    "no list": b'{"op": "append", "text": "more"}',
    "unknown": b'[{"op": "shuffle", "text": "more"}]',
    "no op": b'[{"text": "more"}]',
    "op twice": b'[{"op": "append", "op": "prepend", "text": "more"}]',
    "not there": b'[{"op": "replace", "find": "nowhere", "with": "any"}]',
    "extra": b'[{"op": "append", "text": "more", "x": 1}]',
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
    "no tag": [("If-Match", "v1")],
    "empty match": [("If-Match", "")],
    "twice": [("If-Match", '"v7"'), ("If-Match", '"v1"')],
    "upper case": [("IF-MATCH", '"v7"')],
    "underscores": [("if_match", '"v7"')],
    "seen": [("If-None-Match", '"v1"')],
    "seen weakly": [("If-None-Match", 'W/"v1", "v9"')],
    "seen any": [("If-None-Match", "*")],
    "seen another": [("If-None-Match", '"v2"')],
    "seen nonsense": [("If-None-Match", "nonsense")],
    "empty key": [("Idempotency-Key", "")],
    "key with a blank": [("Idempotency-Key", "a b")],
    "long key": [("Idempotency-Key", "k" * 256)],
    "accept": [("Accept", "text/html")],
    "length": [("Content-Encoding", "gzip")],
}


def test_bodies(ways: Ways) -> None:
    for name, body in BODIES.items():
        for method, path in (("POST", "/notes/"), ("PATCH", "/notes/{id}")):
            quick, thorough = ways.both(method, path, content=body, headers={"Content-Type": JSON})
            assert quick == thorough, (method, name)


def test_edits(ways: Ways) -> None:
    for name, body in EDITS.items():
        quick, thorough = ways.both("POST", "/notes/{id}/content", content=body, headers={"Content-Type": JSON})
        assert quick == thorough, name


def test_patches(ways: Ways) -> None:
    for body in (b"{}", b'{"tags": null}', b'{"content": null}', b'{"title": null}', b'{"content": "x"}'):
        for query in ("", "?base_version=1"):
            path = "/notes/{id}/" + query
            quick, thorough = ways.both("PATCH", path, content=body, headers={"Content-Type": JSON})
            assert quick == thorough, (body, query)


def test_types_of_content(ways: Ways) -> None:
    both = [("Content-Type", JSON), ("Content-Type", "text/plain")]
    for given in [both, both[::-1], [], *([("Content-Type", one)] for one in TYPES)]:
        for body in (BODIES["ordinary"], b""):
            quick, thorough = ways.both("PUT", "/notes/{id}", content=body, headers=given)
            assert quick == thorough, (given, body)


def test_queries_of_lists(ways: Ways) -> None:
    for _ in range(3):
        ways.note()
    for query in QUERIES:
        quick, thorough = (ways.ask("GET", "/notes/" + query, thorough=thorough) for thorough in (False, True))
        assert quick == thorough, query


def test_queries_of_the_others(ways: Ways) -> None:
    for query in ("?", "?&", "?x=1", "?base_version=1", "?base_version=", "?base_version=1&base_version=1", "?="):
        for method, path in (("POST", "/notes/"), ("GET", "/notes/{id}/"), ("PUT", "/notes/{id}/")):
            body = {} if method == "GET" else {"content": BODIES["least"], "headers": {"Content-Type": JSON}}
            quick, thorough = ways.both(method, path + query, **body)
            assert quick == thorough, (method, query)


def test_ids(ways: Ways) -> None:
    for id in IDS:
        for method in ("GET", "PATCH", "HEAD"):
            body = {"content": b"{}", "headers": {"Content-Type": JSON}} if method == "PATCH" else {}
            quick, thorough = ways.both(method, f"/notes/{id}/", **body)
            assert quick == thorough, (method, id)


def test_headers(ways: Ways) -> None:
    for name, given in HEADERS.items():
        for method, path in (("GET", "/notes/{id}/"), ("PUT", "/notes/{id}/"), ("DELETE", "/notes/{id}/")):
            body = BODIES["least"] if method == "PUT" else None
            headers = given if body is None else [("Content-Type", JSON), *given]
            quick, thorough = ways.both(method, path, content=body, headers=headers)
            assert quick == thorough, (method, name)


def test_a_key_is_kept_on_both_ways(ways: Ways) -> None:
    request: dict[str, Any] = {
        "content": BODIES["least"],
        "headers": {"Idempotency-Key": "one", "Content-Type": JSON},
    }
    first, *again = (ways.ask("POST", "/notes/", thorough=thorough, **request) for thorough in (False, True, False))
    assert again == [first, first]


def test_ordinary_requests_take_the_short_way(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError(scope["path"])

    for route, _ in ways._ways:
        monkeypatch.setattr(route, "_fallback", refuse)
    id = ways.note()
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
        status, _, _ = ways.ask(method, path, thorough=False, **request)
        assert status < 300, (method, path)
