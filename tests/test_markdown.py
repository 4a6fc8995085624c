"""Notes as Markdown files: an export comes back as it was, and files of other origin become notes."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from realtime.errors import ImportRefused
from realtime.markdown import FILE_BYTES, file_name, from_markdown, to_markdown
from realtime.models import MAX_CONTENT, MAX_ID, Note, NoteIn
from tests.harness import UNIT, Json, note_in

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
ODD = [
    *("yes", "null", "NULL", "~~~", "true", "2024-01-01", "0x1F", "1_000", "1e3", ".inf", "012", "<<<", "===", "..."),
    *("- x", "#x #", "{a}", "[a]", "a: b", "a #b", "'a'", '"a"', "*a ", "&a ", "!!str a", "%YAML", "|  ", "> a", "@a@"),
    *("---", "--- ", "a\n---\nb", "---\n---\n", "\r\n---\r\n", "a\rb", "\t\ta", "   ", " a ", "a\\nb", "a\n\n\n"),
    *("\ufeffab", "\u2028\u2029\x85", "\x01\x7f\x9f", "\ufffe\uffffa", "🦜🦜🦜", "e\u0301\u200d", "\U0010ffff--"),
]
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
LINES = st.text(CHARACTERS, min_size=3, max_size=50) | st.sampled_from(ODD)
TAGS = st.lists(st.text(CHARACTERS, min_size=1, max_size=50) | st.sampled_from(["", *ODD]).filter(len), max_size=32)
CONTENTS = st.text(CHARACTERS, max_size=100) | st.lists(
    st.sampled_from([*ODD, "---\n", "\n", "\r\n", "title: a\n", "# a\n", "\ufeff", "..."]), max_size=8
).map("".join)
NOTES = st.builds(
    Note,
    id=st.integers(1, MAX_ID),
    title=LINES,
    description=LINES,
    content=CONTENTS,
    tags=TAGS,
    version=st.just(1),
    created_date=st.just(MOMENT),
    updated_date=st.just(MOMENT),
)


def _note(**fields: Any) -> Note:
    whole: Json = {"id": 1, "version": 1, "created_date": MOMENT, "updated_date": MOMENT, "content": "", "tags": []}
    return Note(**(whole | note_in(**fields)))


def _comes_back(note: Note) -> None:
    id, found = from_markdown(file_name(note), to_markdown(note).encode())
    assert id == note.id
    assert found == NoteIn(**note.model_dump(include={"title", "description", "content", "tags"}))


@hypothesis(deadline=None, max_examples=300)
@given(NOTES)
def test_export_comes_back_as_it_was(note: Note) -> None:
    _comes_back(note)


@pytest.mark.parametrize("text", ODD, ids=repr)
def test_odd_text_comes_back_as_it_was(text: str) -> None:
    _comes_back(_note(title=text, description=text, content=text, tags=[text] * 3))


def test_largest_note_comes_back_as_it_was() -> None:
    widest = "\U0010fffe" * 50
    note = _note(title=widest, description=widest, tags=[widest] * 32, content="é" * (MAX_CONTENT // 2))
    assert len(to_markdown(note).encode()) <= FILE_BYTES
    _comes_back(note)


def test_file_is_front_matter_and_content() -> None:
    note = _note(title="To buy: thé", description="weekend", tags=["home", "yes"], content="# To buy\nmilk")
    text = to_markdown(note)
    assert text.endswith("\n---\n# To buy\nmilk")
    assert "thé" in text
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "id": 1,
        "title": note.title,
        "description": "weekend",
        "tags": ["home", "yes"],
        "created": "2026-01-02T03:04:05.678Z",
        "updated": "2026-01-02T03:04:05.678Z",
    }


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("To buy: milk!", "000007-to-buy-milk.md"),
        ("🦜🦜🦜", "000007.md"),
        ("../../etc/passwd", "000007-etc-passwd.md"),
        ("a\\b:c\n", "000007-a-b-c.md"),
    ],
)
def test_file_name(title: str, name: str) -> None:
    assert file_name(_note(title=title).model_copy(update={"id": 7})) == name


@given(NOTES, NOTES)
def test_file_names_are_safe_and_their_own(one: Note, other: Note) -> None:
    name = file_name(one)
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>| ')
    assert (name == file_name(other)) <= (one.id == other.id)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("My note.md", "hello\nworld", note_in("My note", "hello", content="hello\nworld")),
        (
            "a.md",
            "# The title\n\nSome words\n",
            note_in("The title", "Some words", content="# The title\n\nSome words\n"),
        ),
        ("a.md", "\ufeff# The title\nwords", note_in("The title", "words", content="# The title\nwords")),
        ("a.md", "\r\n## The title ##\r\nwords\r\n", note_in("The title", "words")),
        ("folder/in a/My note.md", "", note_in("My note", "My note", content="")),
        ("a.md", "", note_in("Note a", "Note a", content="")),
        ("x" * 60 + ".md", "y" * 60, note_in("x" * 49 + "…", "y" * 49 + "…", content="y" * 60)),
        ("🦜.md", "# 🦜\nx", note_in("Note 🦜", "Note 🦜 x", content="# 🦜\nx")),
        ("a.md", "---\n\ntext", note_in("Note a", "text", content="---\n\ntext")),
        ("a.md", "---\n---\ntext", note_in("Note a", "text", content="text")),
        ("a.md", "---\ntitle: In front\n---\n# Other\ntext", note_in("In front", "text", content="# Other\ntext")),
        ("a.md", "---\r\ntitle: In front\r\n---\r\ntext", note_in("In front", "text", content="text")),
        ("a.md", "---\ntitle: In front\n---", note_in("In front", "In front", content="")),
        ("a.md", "---\ntitle: 2026\ntags: yes\n---\ntext", note_in("2026", "text", content="text", tags=["yes"])),
    ],
)
def test_foreign_markdown(name: str, text: str, expected: Json) -> None:
    id, note = from_markdown(name, text.encode())
    assert id is None
    assert note.model_dump().items() >= expected.items()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        *(("[a, b]", ["a", "b"]), ("\n- a\n- 1\n- yes", ["a", "1", "yes"]), ("a, b,, c d ,", ["a", "b", "c d"])),
        *(("", []), ("[]", []), ("one", ["one"]), ('""', [])),
    ],
)
def test_tags_are_a_list_or_have_commas(tags: str, expected: list[str]) -> None:
    assert from_markdown("a.md", f"---\ntags: {tags}\n---\ntext".encode())[1].tags == expected


def test_unknown_keys_stay_in_the_content() -> None:
    text = "---\ntitle: In front\nlayout: post\n---\nhello"
    note = from_markdown("a.md", text.encode())[1]
    assert (note.title, note.content) == ("In front", text)


@pytest.mark.parametrize("text", ["---\n- a\n- b\n---\nhello", "---\njust words\n---\nhello", "---\nno end\ntitle: x"])
def test_text_that_begins_with_a_rule_is_all_content(text: str) -> None:
    assert from_markdown("a.md", text.encode())[1].content == text


@pytest.mark.parametrize(
    ("matter", "named"),
    [
        *(
            ("title: ab", "title"),
            (f"title: {'x' * 51}", "title"),
            ("title: [a, b]", "title"),
            ("title: {a: b}", "title"),
        ),
        *(
            ("title: ''", "title"),
            ("description: ab", "description"),
            ("tags: {a: b}", "tags"),
            ("tags: [[a]]", "tags"),
        ),
        *((f"tags: [{'x' * 51}]", "tags"), (f"tags: [{'a, ' * 33}]", "tags"), ('tags: [""]', "tags")),
        *(('title: "abc\\0"', "title"), ("tags: one", "tags")),
    ],
    ids=lambda value: value[:30],
)
def test_bad_front_matter_of_an_export_is_refused_by_name(matter: str, named: str) -> None:
    with pytest.raises(ImportRefused) as raised:
        from_markdown("folder/bad.md", f"---\nid: 1\n{matter}\n---\ntext".encode())
    assert raised.value.detail.startswith(f"folder/bad.md: {named}")
    assert len(raised.value.detail) < 10_000


@pytest.mark.parametrize(
    "matter",
    [
        *("title: [a", "a: b: c", "\tx: 1", "x: *no", "? [a]\n: b", "title: A: B", "tags: {{tags}}", "title: {a: b}"),
        *("tags: {a: b}", "tags: [[a]]", f"tags: [{'x' * 51}]", f"tags: [{', '.join(map(str, range(40)))}]"),
        *(f"title: {'x' * 51}", "title: ab", "description: 3", "tags: #foo", "title: words # a comment"),
        *("id: 0", "id: -1", "id: x", "id: 1.5", "id: my-slug", "id: 0x10", "id: [1]", 'id: "١"', f"id: {'9' * 5000}"),
        *("created: 2024-01-02", "created: 2024-01-02\nupdated: 2024-01-02\ntitle: words", 'title: "abc\\ud800"'),
    ],
    ids=lambda value: value[:30],
)
def test_front_matter_of_others_that_says_more_than_a_note_stays(matter: str) -> None:
    text = f"---\n{matter}\n---\nhello"
    id, note = from_markdown("name.md", text.encode())
    assert (id, note.content) == (None, text)


@pytest.mark.parametrize(
    "matter", ["title: words", "title: words\ntags: [a, b]", "tags: a, b\ndescription: more words", ""]
)
def test_front_matter_of_others_that_is_all_in_the_note_goes(matter: str) -> None:
    assert from_markdown("name.md", f"---\n{matter}\n---\nhello".encode())[1].content == "hello"


@pytest.mark.parametrize(
    "data", [b"\xff\xfea\0", "été".encode("latin-1"), b"\xed\xa0\x80", b"a\0b", b"x" * (MAX_CONTENT + 1)]
)
def test_bytes_that_are_no_note(data: bytes) -> None:
    with pytest.raises(ImportRefused, match=r"bad\.md: "):
        from_markdown("bad.md", data)


@example(b"---\ntitle: !!python/object/apply:os.system [id]\n---\n")
@example(b"---\n? !!set {a}\n---\n")
@example(b"---\n<<: {title: abc}\n---\n")
@given(st.binary(max_size=200) | st.text("-\n:[]{}&*!|>'\"#%a \t\\x0", max_size=80).map(lambda text: text.encode()))
def test_anything_is_a_note_or_refused(matter: bytes) -> None:
    for data in (matter, b"---\n" + matter + b"\n---\ntext"):
        note = NoteIn(**note_in())
        with suppress(ImportRefused):
            _, note = from_markdown("any.md", data)
        assert NoteIn.model_validate(note.model_dump()) == note


DEEP = {
    "lists": "'[' * 60_000",
    "closed lists": "'[' * 30_000 + ']' * 30_000",
    "mappings": "'{a: ' * 15_000",
    "pairs": "'[a, ' * 15_000",
    "indented": "''.join(' ' * n + 'a:\\n' for n in range(340))",
}
IN_A_THREAD = """
import threading
from realtime.markdown import from_markdown

def read():
    text = "---\\ntags: " + {text} + "\\n---\\ntext"
    assert from_markdown("deep.md", text.encode())[1].content == text
    print("read")

thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("kind", DEEP)
def test_deep_front_matter_is_text(kind: str) -> None:
    program = IN_A_THREAD.replace("{text}", DEEP[kind])
    # In a process of its own, since a stack that overflows ends it.
    started = time.thread_time()
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30 * UNIT
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "read\n"
    assert time.thread_time() - started < 3 * UNIT


def test_aliases_do_not_explode() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    started = time.thread_time()
    for last in ("tags: *a19", "title: *a19", "id: *a19"):
        text = "\n".join(["---", *lines, last, "---", "hello"])
        assert from_markdown("bomb.md", text.encode())[1].content == text
    assert time.thread_time() - started < UNIT


@pytest.mark.parametrize(
    "text",
    [
        "# a" + " " * 30_000 + "b",
        "# a" + " #" * 15_000 + "b",
        "---\n" * 15_000,
        "---" + " " * 30_000,
        "---\n" + "--- \t" * 10_000,
        "---\n" + "a: b\n" * 12_000 + "---\n",
    ],
    ids=["blanks", "hashes", "rules", "blanks after a rule", "broken rules", "many keys"],
)
def test_files_are_read_in_linear_time(text: str) -> None:
    started = time.thread_time()
    from_markdown("long.md", text.encode())
    assert time.thread_time() - started < 1.5 * UNIT
