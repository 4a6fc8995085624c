"""Differences and merges: concurrent changes are both kept, or reported as conflicts."""

from __future__ import annotations

import math
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from realtime import create_app
from realtime.errors import MergeConflict
from realtime.notes.diff import Hunk, blocks, changes, hunks
from realtime.notes.headings import lines_of
from realtime.notes.merge import merge_fields, merged
from realtime.notes.models import MAX_CONTENT_BYTES, Note, RevisionText
from realtime.settings import MIB, Settings
from tests.support.harness import UNIT, Json, note_in

TEXTS = st.lists(
    st.sampled_from(["a", "b", "one", "🦜", "é", " ", ".", "\n", "\n", "\r\n", "\u2028"]), max_size=30
).map("".join)

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@given(TEXTS)
def test_joined_lines_are_equal_to_the_text(text: str) -> None:
    lines = lines_of(text)
    assert "".join(lines) == text
    assert all(line.index("\n") == len(line) - 1 for line in lines[:-1])


UNITS = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "d"]), max_size=30)


@given(UNITS, UNITS)
def test_blocks_cover_all_changes_and_nothing_else(before: list[str], after: list[str]) -> None:
    made: list[str] = []
    at = 0
    for block in blocks(before, after, math.inf):
        made += before[at : block.start]
        assert len(made) == block.new_start
        assert before[block.start : block.end] != after[block.new_start : block.new_end]
        made += after[block.new_start : block.new_end]
        at = block.end
    assert made + before[at:] == after


def test_blocks_of_70000_distinct_lines_are_found() -> None:
    before = [f"{number}\n" for number in range(70_000)]
    assert blocks(before, [*before[:60_000], "new\n", *before[60_001:]], math.inf) == [(60_000, 60_001, 60_000, 60_001)]


def _apply_hunks(before: str, found: Sequence[Hunk]) -> str:
    """Return a text with hunks applied, each of which must match exactly."""
    old = lines_of(before)
    new: list[str] = []
    at = 0
    for hunk in found:
        start = hunk.from_line - (hunk.from_lines > 0)
        new += old[at:start]
        assert len(new) == hunk.to_line - (hunk.to_lines > 0)
        removed = [line[1:] for line in hunk.lines if line[0] in " -"]
        added = [line[1:] for line in hunk.lines if line[0] in " +"]
        assert removed == old[start : start + hunk.from_lines]
        assert len(added) == hunk.to_lines
        new += added
        at = start + hunk.from_lines
    return "".join(new + old[at:])


@given(TEXTS, TEXTS)
@example("a", "a\n")
@example("", "a")
@example("a\n", "")
def test_applied_hunks_turn_one_text_into_the_other(before: str, after: str) -> None:
    assert _apply_hunks(before, hunks(before, after)) == after


def test_hunk_has_three_lines_of_context() -> None:
    lines = [f"{number}\n" for number in range(1, 30)]
    (hunk,) = hunks("".join(lines), "".join([*lines[:9], "ten\n", *lines[10:]]))
    assert str(hunk) == "@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n"


def _by_patch(folder: Path, before: str, difference: str) -> str:
    """Return a text after the ``patch`` program applied a difference to it."""
    (folder / "before").write_bytes(before.encode())
    (folder / "after").unlink(missing_ok=True)
    subprocess.run(
        ["patch", "--binary", "--fuzz=0", "--silent", "-o", "after", "before"],
        cwd=folder,
        input=difference.encode(),
        check=True,
    )
    return (folder / "after").read_bytes().decode()


def test_patch_program_applies_the_hunks(tmp_path: Path) -> None:
    pick = random.Random(1)
    for number in range(40):
        lines = [pick.choice("abcdef") + "\n" for _ in range(pick.randrange(40))]
        before = "".join(lines) + pick.choice(["", "end", "end\n"])
        for _ in range(pick.randrange(1, 6)):
            at = pick.randrange(len(lines) + 1)
            lines[at : at + pick.randrange(3)] = [f"{pick.choice('uvw')}\n"] * pick.randrange(3)
        after = "".join(lines) + pick.choice(["", "end", "end\n"])
        if before != after:
            assert _by_patch(tmp_path, before, "--- a\n+++ b\n" + "".join(map(str, hunks(before, after)))) == after, (
                number
            )


@given(TEXTS, TEXTS)
def test_merge_with_an_unchanged_or_equal_side_is_the_change(base: str, changed: str) -> None:
    assert merged(base, changed, base) == (changed, [])
    assert merged(base, base, changed) == (changed, [])
    assert merged(base, changed, changed) == (changed, [])


@given(TEXTS, TEXTS, TEXTS)
def test_merge_result_is_the_same_with_sides_swapped(base: str, one: str, other: str) -> None:
    text, conflicts = merged(base, one, other)
    mirrored, mirrored_conflicts = merged(base, other, one)
    assert [(found.current, found.yours) for found in conflicts] == [
        (found.yours, found.current) for found in mirrored_conflicts
    ]
    if not conflicts:
        assert text == mirrored


@given(TEXTS, TEXTS, TEXTS)
def test_conflict_has_its_position_in_each_text(base: str, one: str, other: str) -> None:
    ends = (0, 0, 0)
    for conflict in merged(base, one, other)[1]:
        for text, part in zip((base, one, other), (conflict.base, conflict.current, conflict.yours), strict=True):
            assert text[part.start : part.end] == part.text
        assert len({conflict.base.text, conflict.current.text, conflict.yours.text}) == 3
        starts = (conflict.base.start, conflict.current.start, conflict.yours.start)
        assert all(start >= end for start, end in zip(starts, ends, strict=True))
        ends = (conflict.base.end, conflict.current.end, conflict.yours.end)


@given(st.integers(3, 12), st.data())
def test_changes_of_different_lines_are_both_merged(count: int, data: st.DataObject) -> None:
    base = [f"line {number} of the text\n" for number in range(count)]
    mine, theirs = data.draw(
        st.tuples(*(st.integers(0, count - 1),) * 2).filter(lambda lines: abs(lines[0] - lines[1]) > 1)
    )
    changes = st.sampled_from([[], ["new\n"], ["two\n", "three\n"]])
    for_mine, for_theirs = data.draw(changes), data.draw(changes)
    expected = [[line] for line in base]
    one, other = [[line] for line in base], [[line] for line in base]
    expected[mine] = one[mine] = for_mine
    expected[theirs] = other[theirs] = for_theirs
    texts = ["".join("".join(lines) for lines in text) for text in (one, other, expected)]
    assert merged("".join(base), texts[0], texts[1]) == (texts[2], [])


PARAGRAPH = "The quick brown 🦜 jumps over the lazy dog.\n"


@pytest.mark.parametrize(
    ("base", "one", "other", "both"),
    [
        ("a\nb\n", "A\nb\n", "a\nB\n", "A\nB\n"),
        (
            PARAGRAPH,
            "The slow brown 🦜 jumps over the lazy dog.\n",
            "The quick brown 🦜 jumps over the busy dog.\n",
            "The slow brown 🦜 jumps over the busy dog.\n",
        ),
        (
            PARAGRAPH,
            "The quick 🦜 jumps over the lazy dog.\n",
            "The quick brown 🦜 jumps over the lazy dogs and cats.\n",
            "The quick 🦜 jumps over the lazy dogs and cats.\n",
        ),
        (PARAGRAPH * 3, f"Title\n{PARAGRAPH * 3}", f"{PARAGRAPH * 3}end", f"Title\n{PARAGRAPH * 3}end"),
        ("a\nb\nc\n", "b\nc\n", "a\nb\n", "b\n"),
        ("one two\n", "one three\n", "one three\n", "one three\n"),
        ("", "same", "same", "same"),
    ],
    ids=["lines", "words", "added-and-removed-words", "both-ends", "removed-lines", "same-line", "same-text"],
)
def test_changes_without_conflict_are_merged(base: str, one: str, other: str, both: str) -> None:
    assert merged(base, one, other) == (both, [])
    assert merged(base, other, one) == (both, [])


@pytest.mark.parametrize(
    ("base", "one", "other"),
    [
        ("a b c\n", "a X c\n", "a Y c\n"),
        ("a\n", "a\nmine\n", "a\ntheirs\n"),
        ("a b c\n", "", "a B c\n"),
        ("", "mine", "theirs"),
    ],
)
def test_overlapping_changes_are_a_conflict(base: str, one: str, other: str) -> None:
    (conflict,) = merged(base, one, other)[1]
    assert conflict.current.text in one
    assert conflict.yours.text in other


def test_conflict_covers_only_lines_changed_on_both_sides() -> None:
    base = "🦜 top\nshared\nmiddle\nbottom\n"
    one = base.replace("top", "TOP").replace("bottom", "BOTTOM").replace("shared", "mine")
    other = base.replace("shared", "their own")
    (conflict,) = merged(base, one, other)[1]
    assert conflict.base.start <= base.index("shared")
    assert conflict.base.text.endswith("shared\n")
    assert conflict.current.text.endswith("mine\n")
    assert conflict.yours.text.endswith("their own\n")


def _words(seed: int, count: int) -> str:
    pick = random.Random(seed)
    return " ".join(pick.choice("abc") for _ in range(count)) + "\n"


HARD = {
    "random": (_words(1, 60_000).replace(" ", "\n"), _words(2, 60_000).replace(" ", "\n")),
    "repetitive": ("x\n" + "a\n" * 100_000 + "y\n", "z\n" + "a\n" * 87_500 + "w\n"),
}


@pytest.mark.parametrize("kind", HARD)
def test_hunks_of_hard_texts_are_found_in_limited_time(kind: str) -> None:
    before, after = HARD[kind]
    started = time.monotonic()
    found = hunks(before, after)
    assert time.monotonic() - started < 4 * UNIT
    assert _apply_hunks(before, found) == after


def test_merge_of_many_hard_paragraphs_takes_limited_time() -> None:
    texts = ["".join(f"# {number}\n" + _words(seed + number, 5000) for number in range(6)) for seed in (0, 100, 200)]
    started = time.monotonic()
    assert merged(*texts)[1]
    assert time.monotonic() - started < 5 * UNIT


def _revision(**fields: Any) -> RevisionText:
    return RevisionText(
        version=1,
        date=MOMENT,
        author=None,
        action="create",
        restored=None,
        changed=[],
        **note_in(**_with_defaults(fields)),
    )


def _note(**fields: Any) -> Note:
    return Note(id=1, version=2, created_date=MOMENT, updated_date=MOMENT, **note_in(**_with_defaults(fields)))


def _with_defaults(fields: Json) -> Json:
    return {"content": "", "tags": [], **fields}


@pytest.mark.parametrize(
    ("known", "now", "wanted", "becomes"),
    [
        (["a"], ["a", "b"], ["a", "c"], ["a", "b", "c"]),
        (["a", "b"], ["a"], ["a", "b", "c"], ["a", "c"]),
        (["a", "b"], ["b"], ["a"], []),
        (["a"], ["a", "b"], [], ["b"]),
        ([], ["x"], ["x", "y"], ["x", "y"]),
        (["a"], ["b"], ["a"], ["b"]),
    ],
)
def test_tags_merge_as_sets(known: list[str], now: list[str], wanted: list[str], becomes: list[str]) -> None:
    assert merge_fields(_revision(tags=known), _note(tags=now), {"tags": wanted}) == {"tags": becomes}


@pytest.mark.parametrize("field", ["title", "description"])
@pytest.mark.parametrize(
    ("now", "wanted", "becomes"), [("known", "mine", "mine"), ("theirs", "known", "theirs"), ("same", "same", "same")]
)
def test_field_changed_on_one_side_is_merged(field: str, now: str, wanted: str, becomes: str) -> None:
    assert merge_fields(_revision(**{field: "known"}), _note(**{field: now}), {field: wanted}) == {field: becomes}


@pytest.mark.parametrize("field", ["title", "description"])
def test_field_changed_on_both_sides_is_a_conflict(field: str) -> None:
    sent = {field: "mine 🦜", "content": "new"}
    with pytest.raises(MergeConflict) as raised:
        merge_fields(_revision(**{field: "known"}), _note(**{field: "theirs"}), sent)
    (conflict,) = raised.value.conflicts
    assert conflict == {
        "field": field,
        "base": {"start": 0, "end": 5, "text": "known"},
        "current": {"start": 0, "end": 6, "text": "theirs"},
        "yours": {"start": 0, "end": 6, "text": "mine 🦜"},
        "merged": {"start": 0, "end": 6, "text": "theirs"},
    }
    assert raised.value.yours == sent
    assert raised.value.merged == {field: "theirs", "content": "new"}


def test_conflict_has_its_position_in_the_merged_text() -> None:
    base = "a\n🦜\nb\nc\nd\n"
    current, yours = "A\n🦜\nb\nTHEIRS\nd\n", "a\n🦜\nb\nMINE\nd\nmore\n"
    text, (conflict,) = merged(base, current, yours)
    assert text == "A\n🦜\nb\nTHEIRS\nd\nmore\n"
    assert text[conflict.merged.start : conflict.merged.end] == conflict.merged.text == "THEIRS\n"


@pytest.fixture(scope="module")
def shared_client(module_settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(module_settings.model_copy(update={"max_body": 3 * MIB}))) as client:
        yield client


BASE = "# To buy\nmilk\nbuns 🦜\neggs\n"


@pytest.fixture
def path(shared_client: TestClient) -> str:
    """Create a note at version 2, and return its path."""
    made = shared_client.post("/notes/", json=note_in(content=BASE, tags=["a", "b"])).json()
    path = f"/notes/{made['id']}/"
    shared_client.patch(path, json={"content": BASE.replace("milk", "oat milk"), "tags": ["a", "b", "c"]})
    return path


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_write_with_an_older_base_version_is_merged(shared_client: TestClient, path: str, method: str) -> None:
    body = note_in("new title", content=BASE + "tea\n", tags=["a", "d"])
    answer = shared_client.request(method, f"{path}?base_version=1", json=body)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"v3"')
    note = answer.json()
    assert note.pop("merged") is True
    assert note["content"] == BASE.replace("milk", "oat milk") + "tea\n"
    assert sorted(note["tags"]) == ["a", "c", "d"]
    assert note["title"] == "new title"
    assert shared_client.get(path).json() == note


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_write_with_the_current_base_version_is_not_merged(shared_client: TestClient, path: str, method: str) -> None:
    answer = shared_client.request(method, f"{path}?base_version=2", json=note_in("new title", content="all new"))
    assert answer.status_code == 200
    note = answer.json()
    assert note.pop("merged") is False
    assert (note["content"], note["version"]) == ("all new", 3)
    assert shared_client.get(path).json() == note


def test_response_without_a_base_version_has_no_merged_field(shared_client: TestClient, path: str) -> None:
    assert "merged" not in shared_client.patch(path, json={"title": "new title"}).json()


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_conflicting_write_is_refused_with_both_texts(shared_client: TestClient, path: str, method: str) -> None:
    before = shared_client.get(path).json()
    yours = "top\n" + BASE.replace("milk", "goat milk")
    answer = shared_client.request(method, f"{path}?base_version=1", json=note_in(content=yours, tags=["z"]))
    assert answer.status_code == 409
    error = answer.json()
    assert error["detail"]
    assert error["note"] == before
    assert error["yours"]["content"] == yours
    (conflict,) = error["conflicts"]
    assert conflict["field"] == "content"
    for text, side in ((BASE, "base"), (before["content"], "current"), (yours, "yours")):
        part = conflict[side]
        assert text[part["start"] : part["end"]] == part["text"]
        assert "milk" in part["text"]
    assert shared_client.get(path).json() == before
    assert len(shared_client.get(f"{path}history/").json()) == 2


@pytest.mark.parametrize("base", [3, 2**53 - 1])
def test_base_version_ahead_of_the_note_is_refused(shared_client: TestClient, path: str, base: int) -> None:
    before = shared_client.get(path).json()
    answer = shared_client.patch(f"{path}?base_version={base}", json={"title": "new title"})
    assert (answer.status_code, answer.json()["note"]) == (409, before)
    assert shared_client.get(path).json() == before


@pytest.mark.parametrize("base", ["0", "-1", "x", "", "1.5", str(2**53)])
def test_invalid_base_version_is_a_validation_error(shared_client: TestClient, path: str, base: str) -> None:
    answer = shared_client.patch(f"{path}?base_version={base}", json={"title": "new title"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "base_version"])


def test_failed_if_match_takes_precedence_over_a_merge(shared_client: TestClient, path: str) -> None:
    answer = shared_client.patch(f"{path}?base_version=1", json={"title": "new title"}, headers={"If-Match": '"v1"'})
    assert answer.status_code == 412


def test_repeated_merge_receives_the_same_response(shared_client: TestClient, path: str) -> None:
    url, headers = f"{path}?base_version=1", {"Idempotency-Key": f"merge{path}"}
    first = shared_client.patch(url, json={"content": BASE + "tea\n"}, headers=headers)
    again = shared_client.patch(url, json={"content": BASE + "tea\n"}, headers=headers)
    assert (first.status_code, first.content) == (200, again.content)
    assert first.json()["version"] == 3


def test_merge_over_the_tag_limit_is_refused(shared_client: TestClient) -> None:
    made = shared_client.post("/notes/", json=note_in()).json()
    path = f"/notes/{made['id']}/"
    before = shared_client.patch(path, json={"tags": [f"a{number}" for number in range(20)]}).json()
    answer = shared_client.patch(f"{path}?base_version=1", json={"tags": [f"b{number}" for number in range(20)]})
    assert answer.status_code in (409, 422)
    assert shared_client.get(path).json() == before


def test_merge_over_the_content_limit_is_refused(shared_client: TestClient) -> None:
    made = shared_client.post("/notes/", json=note_in(content="middle\n")).json()
    path = f"/notes/{made['id']}/"
    half = "é" * (MAX_CONTENT_BYTES // 4) + "\n"
    before = shared_client.patch(path, json={"content": f"{half}middle\n"}).json()
    answer = shared_client.patch(f"{path}?base_version=1", json={"content": f"middle\n{half}"})
    assert answer.status_code == 422
    assert "content" in str(answer.json()["detail"])
    assert shared_client.get(path).json() == before


@given(TEXTS, TEXTS)
def test_changes_are_disjoint_and_turn_one_text_into_the_other(before: str, after: str) -> None:
    made: list[str] = []
    at = 0
    for change in changes(before, after):
        assert at <= change.start <= change.end
        assert before[change.start : change.end] != change.text
        made += before[at : change.start], change.text
        at = change.end
    assert "".join(made) + before[at:] == after


def test_changes_of_few_words_are_small() -> None:
    before = "".join(f"line {number} of a text\n" for number in range(20_000))
    after = before.replace("line 777 of", "line 7777 of").replace("line 19000 of a", "line 19000 of the")
    found = changes(before, after)
    assert sum(change.end - change.start + len(change.text) for change in found) < 10
    assert changes(before, before) == []
