"""Notes as Markdown files: an export can be imported without changes, and other files become notes."""

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

from realtime.errors import FileSkipped
from realtime.notes.headings import first_heading, first_line
from realtime.notes.models import MAX_CONTENT_BYTES, MAX_ID, Note, NoteIn
from realtime.transfer.front_matter import date_of
from realtime.transfer.note_file import FILE_BYTES, NoteFile, file_name, from_markdown, to_markdown
from tests.support.files import UNUSUAL_TEXTS
from tests.support.harness import UNIT, Json, note_in

EMPTY: tuple[Any, ...] = ("", "~", "null", "Null", "NULL", [])
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
LINES = st.text(CHARACTERS, min_size=3, max_size=50) | st.sampled_from(UNUSUAL_TEXTS)
TAGS = st.lists(
    st.text(CHARACTERS, min_size=1, max_size=50) | st.sampled_from(["", *UNUSUAL_TEXTS]).filter(len), max_size=32
)
CONTENTS = st.text(CHARACTERS, max_size=100) | st.lists(
    st.sampled_from([*UNUSUAL_TEXTS, "---\n", "\n", "\r\n", "title: a\n", "# a\n", "\ufeff", "..."]), max_size=8
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


def _check_round_trip(note: Note) -> None:
    for text in (to_markdown(note), to_markdown(note).replace("realtime: 1\n", "", 1)):  # earlier exports had no marker
        found = from_markdown(file_name(note), text.encode())
        assert found.id == note.id
        assert found.note == NoteIn(**note.model_dump(include={"title", "description", "content", "tags"}))
        assert (found.created, found.updated) == (note.created_date, note.updated_date)
        assert found.changes == ()


@hypothesis(deadline=None, max_examples=300)
@given(NOTES)
def test_exported_note_is_imported_unchanged(note: Note) -> None:
    _check_round_trip(note)


@pytest.mark.parametrize("text", UNUSUAL_TEXTS, ids=repr)
def test_unusual_text_is_imported_unchanged(text: str) -> None:
    _check_round_trip(_note(title=text, description=text, content=text, tags=[text] * 3))


def test_largest_note_is_imported_unchanged() -> None:
    widest = "\U0010fffe" * 50
    note = _note(title=widest, description=widest, tags=[widest] * 32, content="é" * (MAX_CONTENT_BYTES // 2))
    assert len(to_markdown(note).encode()) <= FILE_BYTES
    _check_round_trip(note)


def test_exported_file_has_front_matter_and_content() -> None:
    note = _note(title="To buy: thé", description="weekend", tags=["home", "yes"], content="# To buy\nmilk")
    text = to_markdown(note)
    assert text.endswith("\n---\n# To buy\nmilk")
    assert "thé" in text
    assert text.startswith("---\nrealtime: 1\nid: 1\n")
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "realtime": 1,
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
def test_file_name_consists_of_id_and_title(title: str, name: str) -> None:
    assert file_name(_note(title=title).model_copy(update={"id": 7})) == name


@given(NOTES, NOTES)
def test_file_names_are_safe_and_unique_per_id(one: Note, other: Note) -> None:
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
        (
            "x" * 60 + ".md",
            "y" * 60,
            note_in("x" * 49 + "…", "y" * 49 + "…", content=f"---\ntitle: {'x' * 60}\n---\n{'y' * 60}"),
        ),
        ("🦜.md", "# 🦜\nx", note_in("Note 🦜", "Note 🦜 x", content="# 🦜\nx")),
        ("a.md", "---\n\ntext", note_in("Note a", "text", content="---\n\ntext")),
        ("a.md", "---\n---\ntext", note_in("Note a", "text", content="text")),
        ("a.md", "---\ntitle: In front\n---\n# Other\ntext", note_in("In front", "text", content="# Other\ntext")),
        ("a.md", "---\r\ntitle: In front\r\n---\r\ntext", note_in("In front", "text", content="text")),
        ("a.md", "---\ntitle: In front\n---", note_in("In front", "In front", content="")),
        ("a.md", "---\ntitle: 2026\ntags: yes\n---\ntext", note_in("2026", "text", content="text", tags=["yes"])),
    ],
)
def test_markdown_of_other_programs_becomes_a_note(name: str, text: str, expected: Json) -> None:
    file = from_markdown(name, text.encode())
    assert (file.id, file.created, file.updated) == (None, None, None)
    assert file.note.model_dump().items() >= expected.items()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        *(("[a, b]", ["a", "b"]), ("\n- a\n- 1\n- yes", ["a", "1", "yes"]), ("a, b,, c d ,", ["a", "b", "c d"])),
        *(("", []), ("[]", []), ("one", ["one"]), ('""', [])),
    ],
)
def test_tags_are_read_from_lists_and_comma_separated_strings(tags: str, expected: list[str]) -> None:
    assert from_markdown("a.md", f"---\ntags: {tags}\n---\ntext".encode()).note.tags == expected


def test_front_matter_with_unknown_keys_stays_in_the_content() -> None:
    text = "---\ntitle: In front\nlayout: post\n---\nhello"
    note = from_markdown("a.md", text.encode()).note
    assert (note.title, note.content) == ("In front", text)


@pytest.mark.parametrize("text", ["---\n- a\n- b\n---\nhello", "---\njust words\n---\nhello", "---\nno end\ntitle: x"])
def test_text_that_begins_with_a_rule_is_all_content(text: str) -> None:
    assert from_markdown("a.md", text.encode()).note.content == text


@pytest.mark.parametrize("marker", ["", "realtime: 1\n"], ids=["foreign", "exported"])
@pytest.mark.parametrize(
    ("matter", "reason"),
    [
        ("title: ab", "title: was shorter than 3 characters"),
        (f"title: {'x' * 51}", "title: was cut to 50 characters"),
        (f"title: {'long words ' * 20}", "title: was cut to 50 characters"),
        ("title: [a, b]", "title: is not a string"),
        ("title: {a: b}", "title: is not a string"),
        ("description: ab", "description: was shorter than 3 characters"),
        (f"description: {'x' * 5000}", "description: was cut to 50 characters"),
        ("tags: {a: b}", "tags: are not a list"),
        (f"tags: [{'x' * 51}]", "tags: were cut to 50 characters"),
        (f"tags: [{', '.join(map(str, range(33)))}]", "tags: only the first 32 were used"),
        ("created: yesterday", "created: is not a date"),
        ("updated: 2021-02-30", "updated: is not a date"),
        ("created: 1969-12-31", "created: is not a date"),
        ("title: First\ntitle: Second", "front matter: has 'title' twice"),
        ("Tags: [a]\ntags: [b]", "front matter: has 'tags' twice"),
        ("title: Plan: the next one", "front matter: is not valid YAML"),
    ],
    ids=lambda value: value[:30],
)
def test_invalid_front_matter_is_reported_and_stays_in_the_content(matter: str, reason: str, marker: str) -> None:
    text = f"---\n{marker}{matter}\n---\ntext"
    file = from_markdown("folder/odd.md", text.encode())
    assert file.note.content == text
    assert [change for change in file.changes if change.startswith(reason)]
    assert sum(map(len, file.changes)) < 200


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
def test_foreign_front_matter_with_unsupported_values_stays_in_the_content(matter: str) -> None:
    text = f"---\n{matter}\n---\nhello"
    assert from_markdown("name.md", text.encode()).note.content == text


@pytest.mark.parametrize(
    "matter", ["title: words", "title: words\ntags: [a, b]", "tags: a, b\ndescription: more words", ""]
)
def test_foreign_front_matter_with_only_note_fields_is_removed(matter: str) -> None:
    assert from_markdown("name.md", f"---\n{matter}\n---\nhello".encode()).note.content == "hello"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not a text file"),
        (bytes(range(256)), "is not a text file"),
        (b"x" * (MAX_CONTENT_BYTES + 1), "content: must be at most 1048576 bytes"),
        (f"---\nlayout: post\n---\n{'x' * MAX_CONTENT_BYTES}".encode(), "content: must be at most 1048576 bytes"),
    ],
    ids=["picture", "all bytes", "too long", "too long with its front matter"],
)
def test_file_that_cannot_become_a_note_is_skipped(data: bytes, reason: str) -> None:
    with pytest.raises(FileSkipped, match=reason):
        from_markdown("bad.md", data)


@example(b"---\ntitle: !!python/object/apply:os.system [id]\n---\n")
@example(b"---\n? !!set {a}\n---\n")
@example(b"---\n<<: {title: abc}\n---\n")
@given(st.binary(max_size=200) | st.text("-\n:[]{}&*!|>'\"#%a \t\\x0", max_size=80).map(lambda text: text.encode()))
def test_random_bytes_become_a_note_or_are_skipped(matter: bytes) -> None:
    for data in (matter, b"---\n" + matter + b"\n---\ntext", b"---\nrealtime: 1\n" + matter + b"\n---\ntext"):
        with suppress(FileSkipped):
            note = from_markdown("any.md", data).note
            assert NoteIn.model_validate(note.model_dump()) == note
            assert data.count(b"text") <= note.content.count("text")


@given(
    CONTENTS,
    st.sampled_from(["title", "Title", "tags", "id", "created", "aliases", "x"]),
    LINES.filter(lambda line: len(line.splitlines()) == 1),
)
def test_imported_note_keeps_all_text(content: str, key: str, value: str) -> None:
    text = f"---\n{key}: {value}\n---\n{content}"
    note = from_markdown("any.md", text.encode()).note
    assert text.endswith(note.content)
    if note.content != text:
        front, written = text[: len(text) - len(note.content)], ""
        if ":" in front:
            written = yaml.load(front.split("---\n")[1], Loader=yaml.CBaseLoader)[key]
        assert written in (note.title, note.tags, ", ".join(note.tags), *EMPTY)


FIFTY_CHARACTERS = "Everything that happened in the summer, and later."


def _read(name: str, text: str) -> NoteFile:
    return from_markdown(name, text.encode())


class TestOtherPrograms:
    """Files of other programs: their text is kept, and known metadata sets the fields of the note."""

    @pytest.mark.parametrize(
        ("matter", "title", "tags"),
        [
            ("Title: Capital letters\nTags: [a]", "Capital letters", ["a"]),
            ("TITLE: Capital letters\nTAGS: a, b", "Capital letters", ["a", "b"]),
            ("title: null\ntags: ~", "Heading", []),
            ("title: ~\ntags: null", "Heading", []),
            ("title:\ntags:", "Heading", []),
            ("title: ''\ntags: []", "Heading", []),
            ("title: 'null'\ntags: ['~']", "null", ["~"]),
            ("tags: [Null, a, '']", "Heading", ["a"]),
            ("tags: [a/b, [c, [d]], a/b]", "Heading", ["a/b", "c", "d"]),
            ("tags: '#a #b/c'", "Heading", ["a", "b/c"]),
            ("tag: single", "Heading", ["single"]),
            ("title: Plan: the next one\ntags: [a, 'b c']", "Plan: the next one", ["a", "b c"]),
            ("title: Plan: the next one\ntags:\n  - a\n  - b: c", "Plan: the next one", ["a", "b: c"]),
            ("title: @home\ntags: a", "@home", ["a"]),
            ("title: 'It''s: here' now: then\ntags: a", "'It''s: here' now: then", ["a"]),
            ('title: "A \\"b\\"": c"\ntags: %', 'A "b"": c', ["%"]),
            ("title: One\ntitle: Two\ntags: a\nTags: b", "One", ["a"]),
            ("id: 20240304050607\ntags:", "Heading", []),
            ("id: 77\ntitle: A week\ntags: home, garden", "A week", ["home", "garden"]),
            (f"id: 20240304\ntitle: {FIFTY_CHARACTERS}", FIFTY_CHARACTERS, []),
            ("id: 20240304\ntitle: A week\ncreated: 2024-03-04", "A week", []),
            ("title:\ntitle: Two two\n", "Two two", []),
        ],
    )
    def test_imprecise_front_matter_sets_title_and_tags(self, matter: str, title: str, tags: list[str]) -> None:
        note = _read("name.md", f"---\n{matter}\n---\n# Heading\ntext").note
        assert (note.title, note.tags) == (title, tags)
        assert note.content.endswith("# Heading\ntext")

    def test_obsidian_file_sets_tags_and_date(self) -> None:
        text = (
            "---\naliases:\n  - Other name\ntags:\n  - work/plan\ncssclasses: []\ncreated: 2021-08-21\n---\n[[Link]]\n"
        )
        file = _read("Daily/2021-08-21.md", text)
        assert (file.note.title, file.note.tags, file.note.content) == ("2021-08-21", ["work/plan"], text)
        assert file.created == datetime(2021, 8, 21, tzinfo=UTC)

    def test_zettelkasten_file_sets_id_and_title(self) -> None:
        text = "---\nid: 202108211234\ntitle: Weekly plan\ntags:\ncreated: 2021-08-21\n---\nSee [[202108211235]]\n"
        file = _read("202108211234.md", text)
        assert (file.id, file.note.title, file.note.tags) == (202108211234, "Weekly plan", [])
        assert file.note.content == text

    def test_joplin_file_sets_title_tags_and_dates(self) -> None:
        text = (
            "---\ntitle: A note\nupdated: 2021-08-22 09:10:11Z\ncreated: 2021-08-21 12:34:56Z\nsource: joplin\n"
            "latitude: 52.5\ncompleted?: no\ntags:\n  - one\n---\n\n![](../_resources/image.png)\n"
        )
        file = _read("A note.md", text)
        assert (file.note.title, file.note.tags, file.note.content) == ("A note", ["one"], text)
        assert file.created == datetime(2021, 8, 21, 12, 34, 56, tzinfo=UTC)
        assert file.updated == datetime(2021, 8, 22, 9, 10, 11, tzinfo=UTC)

    def test_notion_file_is_titled_without_its_id(self) -> None:
        text = "Created: August 21, 2021\nTags: a, b\n\nwords\n"
        file = _read(f"Export/Meeting notes {'0123456789abcdef' * 2}.md", text)
        assert (file.note.title, file.note.content, file.changes) == ("Meeting notes", text, ())

    def test_bear_file_is_titled_by_its_heading(self) -> None:
        text = "# From Bear\n#work/plan #home\n\nwords\n"
        assert _read("From Bear.md", text).note == NoteIn(**note_in("From Bear", "words", content=text))

    def test_logseq_page_keeps_its_properties_as_text(self) -> None:
        text = "title:: A page\ntags:: a, b\n\n- block\n\t- inner\n"
        file = _read("pages/A page.md", text)
        assert (file.note.title, file.note.content, file.changes) == ("A page", text, ())

    def test_jekyll_post_sets_title_and_date(self) -> None:
        text = '---\nlayout: post\ntitle:  "Welcome: a post"\ndate:   2015-11-17 16:16:01 -0600\n---\nHello\n'
        file = _read("_posts/2015-11-17-welcome.md", text)
        assert (file.note.title, file.note.content, file.changes) == ("Welcome: a post", text, ())
        assert file.created == datetime(2015, 11, 17, 22, 16, 1, tzinfo=UTC)

    def test_hugo_post_sets_title_tags_and_date(self) -> None:
        text = (
            '+++\ntitle = "Hugo: a post" # a comment\ntags = ["a", "b/c"]\n'
            "date = 2021-08-21T10:00:00+02:00\n[params]\nx = 1\n+++\n"
            "# Heading\ntext\n"
        )
        file = _read("post.md", text)
        assert (file.note.title, file.note.tags, file.note.content) == ("Hugo: a post", ["a", "b/c"], text)
        assert file.created == datetime(2021, 8, 21, 8, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("matter", "title", "tags"),
        [
            ('title="Compact"', "Compact", []),
            ('title = """\nMore lines"""\ntags = [\n  "a",\n  "b",\n]', "More lines", ["a", "b"]),
            ('title = "Zola"\n[taxonomies]\ntags = ["a"]', "Zola", ["a"]),
            ("title = 2026", "2026", []),
            ('title = "Broken"\n[', "Broken", []),
        ],
    )
    def test_toml_front_matter_sets_title_and_tags(self, matter: str, title: str, tags: list[str]) -> None:
        text = f"+++\n{matter}\n+++\ntext"
        note = _read("a.md", text).note
        assert (note.title, note.tags, note.content) == (title, tags, text)

    def test_textbundle_is_titled_by_its_folder(self) -> None:
        assert _read("Shopping List.textbundle/text.md", "milk").note.title == "Shopping List"
        assert _read("folder/text.md", "milk").note.title == "text"

    def test_pandoc_front_matter_can_end_with_dots(self) -> None:
        assert _read("a.md", "---\ntitle: In front\n...\ntext").note.content == "text"

    def test_realtime_key_of_another_program_is_no_export_marker(self) -> None:
        text = "---\nrealtime: true\ntitle: A\tb\nid: 4\n---\ntext"
        assert _read("a.md", text).note.content == text

    @pytest.mark.parametrize(
        ("matter", "title"),
        [
            (f"title: In front\nnote: {'x' * 70_000}", "In front"),
            (f"title: {'long ' * 20_000}", "long " * 9 + "long…"),
            (f"note: {'x' * 70_000}\ntitle: Behind", "Note a"),
        ],
    )
    def test_long_front_matter_is_read_only_at_its_beginning(self, matter: str, title: str) -> None:
        text = f"---\n{matter}\n---\n# Heading\ntext"
        file = _read("a.md", text)
        assert (file.note.title, file.note.content) == (title, text)
        longer = "front matter: is longer than 65536 characters; only its beginning was read, line by line"
        assert (longer in file.changes) is (title != "Note a")

    @pytest.mark.parametrize(
        ("text", "content"),
        [
            ("text", "---\ntitle: {name}\n---\ntext"),
            ("---\naliases: [a]\n---\ntext", "---\ntitle: {name}\naliases: [a]\n---\ntext"),
            ("---\ntags: [a]\n---\ntext", "---\ntitle: {name}\n---\ntext"),
            ("---\n[broken\n---\ntext", "---\ntitle: {name}\n---\n---\n[broken\n---\ntext"),
            ("---\r\naliases: [a]\r\n---\r\ntext", "---\r\ntitle: {name}\naliases: [a]\r\n---\r\ntext"),
            ("+++\na = 1\n+++\ntext", "---\ntitle: {name}\n---\n+++\na = 1\n+++\ntext"),
        ],
    )
    def test_too_long_file_name_is_kept_in_the_front_matter(self, text: str, content: str) -> None:
        name = ("long " * 20).strip()
        file = _read(f"folder/{name}.md", text)
        assert file.note.title == "long " * 9 + "long…"
        assert file.note.content == content.format(name=name)
        assert file.changes[-1] == "title: was cut to 50 characters; the full file name was added to the front matter"
        again = _read("other.md", file.note.content)
        assert (again.note.title, again.note.content) == (file.note.title, file.note.content)

    def test_too_long_heading_stays_only_in_the_text(self) -> None:
        text = "# " + "long " * 20 + "\ntext"
        file = _read("a.md", text)
        assert (file.note.content, file.changes) == (text, ("title: was cut to 50 characters",))

    def test_file_name_truncated_by_another_program_is_kept(self) -> None:
        name = "A very long note name that another program cut when it wrote it…"
        file = _read(f"{name}.md", "text")
        assert file.note.title == f"{name[:49]}…"
        assert file.note.content == f"---\ntitle: {name}\n---\ntext"

    def test_long_file_name_that_does_not_fit_is_left_out(self) -> None:
        text = "x" * (MAX_CONTENT_BYTES - 10)
        file = _read("long " * 20 + ".md", text)
        assert (file.note.content, file.changes) == (text, ("title: was cut to 50 characters",))

    def test_decomposed_file_name_is_composed(self) -> None:
        assert _read("Gro\u0308\u00dfe.md", "text").note.title == "Gr\u00f6\u00dfe"


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2021-08-21", datetime(2021, 8, 21, tzinfo=UTC)),
        ("2021/08/21 10:30", datetime(2021, 8, 21, 10, 30, tzinfo=UTC)),
        ("2021-08-21T10:30:01.678901Z", datetime(2021, 8, 21, 10, 30, 1, 678000, UTC)),
        ("2021-08-21t10:30:01 +0530", datetime(2021, 8, 21, 5, 0, 1, tzinfo=UTC)),
        ("2021-08-21 10:30:01 UTC", datetime(2021, 8, 21, 10, 30, 1, tzinfo=UTC)),
        ("1629541801", datetime(2021, 8, 21, 10, 30, 1, tzinfo=UTC)),
        ("1629541801678", datetime(2021, 8, 21, 10, 30, 1, 678000, UTC)),
        *(
            (odd, None)
            for odd in ("", "2021", "2021-13-01", "9999-12-31T23:59:59-0100", "1900-01-01", "21.8.2021", "x")
        ),
        *((odd, None) for odd in ("2021-08-21T25:00", "2021-08-21T10:30+99:00", "0000-00-00", "\u0661" * 10)),
        *(([], None), ({}, None), (None, None)),
    ],
)
def test_date_of_returns_the_utc_time_or_none(written: Any, moment: datetime | None) -> None:
    assert date_of(written) == moment


DEEP = {
    "lists": "'[' * 60_000",
    "closed lists": "'[' * 30_000 + ']' * 30_000",
    "mappings": "'{a: ' * 15_000",
    "pairs": "'[a, ' * 15_000",
    "indented": "''.join(' ' * n + 'a:\\n' for n in range(340))",
}
IMPORT_IN_A_THREAD = """
import threading
from realtime.transfer.note_file import from_markdown

def read():
    text = "---\\ntags: " + {text} + "\\n---\\ntext"
    assert from_markdown("deep.md", text.encode()).note.content == text
    print("read")

thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("kind", DEEP)
def test_deeply_nested_front_matter_stays_in_the_content(kind: str) -> None:
    program = IMPORT_IN_A_THREAD.replace("{text}", DEEP[kind])
    # In a separate process, which a stack overflow would end.
    started = time.thread_time()
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=30 * UNIT
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "read\n"
    assert time.thread_time() - started < 3 * UNIT


def test_nested_yaml_aliases_are_not_expanded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    started = time.thread_time()
    for last in ("tags: *a19", "title: *a19", "id: *a19"):
        text = "\n".join(["---", *lines, last, "---", "hello"])
        assert from_markdown("bomb.md", text.encode()).note.content == text
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


@pytest.mark.parametrize(
    ("text", "heading", "line"),
    [
        ("", None, ""),
        (" \n\n", None, ""),
        ("\n\n  # Title\n\n---\n+++\n## Next\n  \nwords \nmore", "Title", "  # Title"),
        ("# Title\n\n---\n+++\n## Next\n  \nwords \nmore", "Title", "words "),
        ("words\n# Title", None, "words"),
        ("\n" * 100_000 + "# Title\nwords", "Title", "words"),
        ("\u2003\n \tindented", None, " \tindented"),
        ("#\n" * 100_000 + "words", None, ""),
    ],
)
def test_first_heading_and_first_line_are_found(text: str, heading: str | None, line: str) -> None:
    assert (first_heading(text), first_line(text)) == (heading, line)
