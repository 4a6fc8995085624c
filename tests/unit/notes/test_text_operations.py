"""Text operations: results, errors, and atomicity."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from starlette.testclient import TestClient

from realtime.errors import EditRefused, FieldTooLong
from realtime.notes.headings import headings
from realtime.notes.models import MAX_CONTENT_BYTES
from realtime.notes.text_operations import TextOperation, TextOperations, edited
from tests.support.harness import UNIT, Json, note_in, rest_client
from tests.support.http import Serve

READER: TypeAdapter[list[TextOperation]] = TypeAdapter(TextOperations)


def append(text: str) -> Json:
    return {"op": "append", "text": text}


def prepend(text: str) -> Json:
    return {"op": "prepend", "text": text}


def replace(find: str, by: str, **more: Any) -> Json:
    return {"op": "replace", "find": find, "with": by, **more}


def insert(heading: str, text: str) -> Json:
    return {"op": "insert", "after_heading": heading, "text": text}


def _apply(content: str, *edits: Json) -> str:
    return edited(content, READER.validate_python(list(edits)))


@pytest.mark.parametrize(
    ("content", "edits", "becomes"),
    [
        ("", [append("a")], "a"),
        ("a", [append("b"), prepend("0")], "0ab"),
        ("a b", [replace("b", "c")], "a c"),
        ("a b", [replace("b", "")], "a "),
        ("a.b.c", [replace(".", "-", count=2)], "a-b-c"),
        ("aXbXc", [replace("X", "headings", count=2)], "aheadingsbheadingsc"),
        ("aaaa", [replace("aa", "b", count=2)], "bb"),
        ("🦜 é", [replace("é", "e\u0301")], "🦜 e\u0301"),
        ("$1 \\1", [replace("$1 \\1", "\\g<0> $&")], "\\g<0> $&"),
        ("a\r\nb", [replace("\r\n", "\n")], "a\nb"),
        ("a", [replace("a", "b"), replace("b", "c"), append("d")], "cd"),
    ],
)
def test_text_operations_return_the_edited_content(content: str, edits: list[Json], becomes: str) -> None:
    assert _apply(content, *edits) == becomes


@pytest.mark.parametrize(
    ("content", "becomes"),
    [
        ("# To do\nmilk\n", "# To do\nNEW\nmilk\n"),
        ("# To do", "# To do\nNEW"),
        ("# To do\n", "# To do\nNEW"),
        ("a\n\n### To do ###  \n\nb", "a\n\n### To do ###  \nNEW\n\nb"),
        ("#\tTo do\r\nb", "#\tTo do\r\nNEW\nb"),
        ("   # To do\nb", "   # To do\nNEW\nb"),
        ("```\n# To do\n```\n# To do\nb", "```\n# To do\n```\n# To do\nNEW\nb"),
        ("~~~~ md\n# To do\n~~~\n```\n~~~~\n# To do\n", "~~~~ md\n# To do\n~~~\n```\n~~~~\n# To do\nNEW"),
        ("```code``` in a line\n# To do\nb", "```code``` in a line\n# To do\nNEW\nb"),
        ("#To do\n# To do or not\n# To do\nb", "#To do\n# To do or not\n# To do\nNEW\nb"),
        ("####### To do\n    # To do\n# To do\nb", "####### To do\n    # To do\n# To do\nNEW\nb"),
    ],
)
def test_text_is_inserted_after_the_matching_heading(content: str, becomes: str) -> None:
    assert _apply(content, insert("To do", "NEW")) == becomes
    assert _apply(content, insert(" To do ", "NEW")) == becomes


def test_inserted_text_with_line_feed_gets_no_second_line_feed() -> None:
    assert _apply("# a\nb", insert("a", "x\ny\n")) == "# a\nx\ny\nb"


@pytest.mark.parametrize(
    ("content", "edits", "details"),
    [
        ("", [replace("a", "b")], {"operation": 0, "expected": 1, "found": 0, "at": []}),
        ("a🦜a", [replace("a", "b")], {"operation": 0, "expected": 1, "found": 2, "at": [0, 2]}),
        ("a", [append("a"), replace("a", "b", count=3)], {"operation": 1, "expected": 3, "found": 2, "at": [0, 1]}),
        ("A", [replace("a", "b")], {"operation": 0, "expected": 1, "found": 0, "at": []}),
        ("a" * 50, [replace("a", "b")], {"operation": 0, "expected": 1, "found": 50, "at": list(range(10))}),
        ("# b\n", [insert("a", "x")], {"operation": 0, "expected": 1, "found": 0, "at": []}),
        ("# a\n# b\n## a\n", [insert("a", "x")], {"operation": 0, "expected": 1, "found": 2, "at": [4, 13]}),
        ("# A\n", [insert("a", "x")], {"operation": 0, "expected": 1, "found": 0, "at": []}),
    ],
)
def test_edit_with_an_unexpected_match_count_is_refused(content: str, edits: list[Json], details: Json) -> None:
    with pytest.raises(EditRefused) as raised:
        _apply(content, *edits)
    assert raised.value.extra() == details
    assert f"Operation {details['operation']} " in raised.value.detail


@given(st.text("ab#\n", max_size=30), st.text("ab", min_size=1, max_size=3), st.text("xy", max_size=3))
def test_replace_applies_only_with_the_exact_match_count(content: str, find: str, by: str) -> None:
    count = content.count(find)
    if count:
        assert _apply(content, replace(find, by, count=count)) == by.join(content.split(find))
    with pytest.raises(EditRefused):
        _apply(content, replace(find, by, count=count + 1))


@pytest.mark.parametrize(
    ("content", "edits"),
    [
        ("x" * MAX_CONTENT_BYTES, [append("y")]),
        ("x" * MAX_CONTENT_BYTES, [prepend("y")]),
        ("é" * (MAX_CONTENT_BYTES // 2), [append("y")]),
        ("# a\n" + "x" * (MAX_CONTENT_BYTES - 4), [insert("a", "y")]),
        (
            "x" * MAX_CONTENT_BYTES,
            [replace("x" * 10 + "x" * (MAX_CONTENT_BYTES - 10), "é" * (MAX_CONTENT_BYTES // 2) + "x")],
        ),
        ("x" * MAX_CONTENT_BYTES, [append("y"), replace("y", "")]),
    ],
    ids=["append", "prepend", "bytes", "insert", "replace", "intermediate-result"],
)
def test_result_over_the_content_limit_is_refused(content: str, edits: list[Json]) -> None:
    with pytest.raises(FieldTooLong, match="content"):
        _apply(content, *edits)


def test_result_at_the_content_limit_is_accepted() -> None:
    assert len(_apply("x" * (MAX_CONTENT_BYTES - 1), append("y"))) == MAX_CONTENT_BYTES
    half = "é" * (MAX_CONTENT_BYTES // 2)
    assert _apply("ab", replace("ab", half)) == half


def test_huge_result_is_refused_without_allocating_it() -> None:
    content, by = "ab" * 50_000, "x" * 500_000
    edits = READER.validate_python([replace("b", by, count=50_000)])
    tracemalloc.start()
    try:
        with pytest.raises(FieldTooLong):
            edited(content, edits)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "line",
    ["# a" + " " * 30_000 + "b", "# a" + " #" * 15_000 + "b", "#" * 30_000, "# " + "\t" * 30_000, "`" * 30_000],
    ids=["spaces", "hashes-and-spaces", "hashes", "tabs", "backticks"],
)
def test_headings_are_found_in_linear_time(line: str) -> None:
    started = time.thread_time()
    list(headings(line))
    assert time.thread_time() - started < UNIT


def test_long_text_is_found_in_linear_time() -> None:
    find = "ab" * (MAX_CONTENT_BYTES // 4)
    started = time.thread_time()
    assert _apply(f"{find}c{find}", replace(f"c{find}", "")) == find
    assert time.thread_time() - started < UNIT / 2


@pytest.fixture
def path(shared: TestClient) -> str:
    """Create a note for one test, and return its path."""
    made = shared.post("/notes/", json=note_in(content="# To buy\nmilk\n", tags=["a"])).json()
    return f"/notes/{made['id']}/"


def test_all_edits_of_a_request_create_one_version(shared: TestClient, path: str) -> None:
    before = shared.get(path).json()
    edits = [append("eggs\n"), prepend("Groceries\n"), replace("milk", "oat milk"), insert("To buy", "butter\n")]
    answer = shared.post(f"{path}content", json=edits)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"v2"')
    note = answer.json()
    assert note == shared.get(path).json()
    assert note == before | {
        "content": "Groceries\n# To buy\nbutter\noat milk\neggs\n",
        "version": 2,
        "updated_date": note["updated_date"],
    }
    newest, first = shared.get(f"{path}history/").json()
    assert (newest["version"], newest["action"], newest["changed"]) == (2, "edit", ["content"])
    assert first["version"] == 1


def test_refused_edit_leaves_the_note_unchanged(shared: TestClient, path: str) -> None:
    before = shared.get(path).json()
    answer = shared.post(f"{path}content", json=[append("eggs\n"), replace("bread", "rolls"), append("tea\n")])
    assert answer.status_code == 409
    details = answer.json()
    assert details.pop("detail") == "Operation 1 (replace): expected the text exactly once, found it 0 times"
    assert details == {"operation": 1, "expected": 1, "found": 0, "at": []}
    assert shared.get(path).json() == before
    assert len(shared.get(f"{path}history/").json()) == 1


def test_edit_over_the_limit_is_a_content_validation_error(shared: TestClient, path: str) -> None:
    before = shared.get(path).json()
    answer = shared.post(f"{path}content", json=[append("x" * (MAX_CONTENT_BYTES - 1000))])
    assert answer.status_code == 200
    answer = shared.post(f"{path}content", json=[append("x" * 1000)])
    assert answer.status_code == 422
    assert "content" in str(answer.json()["detail"])
    answer = shared.post(f"{path}content", json=[replace("x" * (MAX_CONTENT_BYTES - 1000), "")])
    assert (answer.json()["content"], answer.json()["version"]) == (before["content"], 3)


@pytest.mark.parametrize(
    "body",
    [
        *({}, [], None, "append", [None], [{}], [[append("a")]]),
        *([{"op": "delete", "text": "a"}], [{"op": "append"}], [append("")], [append("a\0")], [append("a") | {"x": 1}]),
        *([replace("", "a")], [replace("a", "b", count=0)], [replace("a", "b", count="1")], [{**append("a"), "op": 1}]),
        *([{"op": "replace", "find": "a", "replacement": "b"}], [insert("", "a")], [insert("a", "")]),
        [append("a")] * 101,
    ],
    ids=lambda body: str(body)[:40],
)
def test_invalid_edits_body_is_a_validation_error(shared: TestClient, path: str, body: Any) -> None:
    before = shared.get(path).json()
    answer = shared.post(f"{path}content", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"
    assert shared.get(path).json() == before


def test_edit_with_a_mismatched_if_match_is_refused(shared: TestClient, path: str) -> None:
    answer = shared.post(f"{path}content", json=[append("a")], headers={"If-Match": '"v2"'})
    assert (answer.status_code, answer.json()["note"]["version"]) == (412, 1)
    assert shared.post(f"{path}content", json=[append("a")], headers={"If-Match": '"v1"'}).status_code == 200


def test_edit_with_a_repeated_idempotency_key_is_applied_once(shared: TestClient, path: str) -> None:
    url, headers = f"{path}content", {"Idempotency-Key": f"edit{path}"}
    first = shared.post(url, json=[append("eggs\n")], headers=headers)
    shared.post(url, json=[append("tea\n")])
    again = shared.post(url, json=[append("eggs\n")], headers=headers)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert shared.get(path).json()["content"] == "# To buy\nmilk\neggs\ntea\n"
    assert shared.post(url, json=[append("other")], headers=headers).status_code == 422


def test_refused_edit_does_not_claim_its_idempotency_key(shared: TestClient, path: str) -> None:
    url, headers = f"{path}content", {"Idempotency-Key": f"refused{path}"}
    edits = [replace("bread", "rolls")]
    assert shared.post(url, json=edits, headers=headers).status_code == 409
    shared.post(url, json=[append("bread\n")])
    assert shared.post(url, json=edits, headers=headers).json()["content"].endswith("rolls\n")


@pytest.mark.slow
async def test_concurrent_appends_are_each_applied_once(serve: Serve) -> None:
    one, two = serve(), serve()
    async with rest_client(one.url) as left, rest_client(two.url) as right:
        await left.post("/notes/", json=note_in())
        calls = [
            (rest, [append(f"line {number}\n")], {"Idempotency-Key": f"append-{number}"})
            for number, rest in enumerate([left, right] * 15)
        ]
        repeats = [(left if rest is right else right, edits, key) for rest, edits, key in calls[:10]]
        answers = await asyncio.gather(
            *(rest.post("/notes/1/content", json=edits, headers=key) for rest, edits, key in calls + repeats)
        )
        # One of two concurrent requests with the same key may end with an unknown outcome. Its repeat succeeds.
        assert {answer.status_code for answer in answers[10:30]} == {200}
        assert all(200 in (one.status_code, two.status_code) for one, two in zip(answers, answers[30:], strict=False))
        for rest, edits, key in repeats:
            assert (await rest.post("/notes/1/content", json=edits, headers=key)).status_code == 200
        note = (await right.get("/notes/1/")).json()
        assert Counter(note["content"].splitlines()) == Counter(f"line {number}" for number in range(30))
        assert note["version"] == 31
        history = (await left.get("/notes/1/history/")).json()
        assert [revision["version"] for revision in history] == list(range(31, 0, -1))
