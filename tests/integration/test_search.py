"""Search: matches, order, and snippets."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from realtime import create_app
from realtime.notes.snippets import MAX_SNIPPET_CHARACTERS, snippet
from realtime.settings import Settings
from tests.support.harness import Json, note_in

MARK = re.compile("<mark>(.*?)</mark>", re.DOTALL)
LONG = "lorem ipsum " * 100


def _plain(html: str) -> str:
    return unescape(html.replace("<mark>", "").replace("</mark>", ""))


def _marks(html: str) -> list[str]:
    return [unescape(mark) for mark in MARK.findall(html)]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("milk", "buy milk now", "buy <mark>milk</mark> now"),
        ("MILK", "Milk, milk!", "<mark>Milk</mark>, <mark>milk</mark>!"),
        ("milk bread", "bread and milk", "<mark>bread</mark> and <mark>milk</mark>"),
        ("cafe", "un Café", "un <mark>Café</mark>"),
        ("Café", "un cafe", "un <mark>cafe</mark>"),
        ("cafe", "un cafe\u0301", "un <mark>cafe\u0301</mark>"),
        ("resume", "my re\u0301sume\u0301!", "my <mark>re\u0301sume\u0301</mark>!"),
        ("हिन्दी", "यह हिन्दी है", "यह <mark>हिन्दी</mark> है"),
        ("हिन्दी", "यह नदी है", "यह नदी है"),
        ("молоко", "МОЛОКО", "<mark>МОЛОКО</mark>"),
        ('"oat milk"', "oat milk", "<mark>oat</mark> <mark>milk</mark>"),
        ('"oat milk', "oat milk", "<mark>oat</mark> <mark>milk</mark>"),
        ("milk -bread", "bread and milk", "bread and <mark>milk</mark>"),
        ('milk -"rye bread"', "rye bread and milk", "rye bread and <mark>milk</mark>"),
        ("well-known", "a well known one", "a <mark>well</mark> <mark>known</mark> one"),
        ("cat", "a catalog, concat", "a catalog, concat"),
        ("a", "<b>&a;\"'</b>", "&lt;b&gt;&amp;<mark>a</mark>;&quot;&#x27;&lt;/b&gt;"),
        ("mark", "<mark>x</mark>", "&lt;<mark>mark</mark>&gt;x&lt;/<mark>mark</mark>&gt;"),
        ("amp lt", "&<", "&amp;&lt;"),
        ("-", "text", "text"),
        ('""', "text", "text"),
        ("", "text", "text"),
        ("x", "", ""),
    ],
)
def test_snippet_marks_matches_in_escaped_text(query: str, text: str, expected: str) -> None:
    assert snippet(query, text) == expected


def test_snippet_is_from_the_first_matching_text_or_the_start() -> None:
    assert snippet("milk", "no", "the milk", "milk too") == "the <mark>milk</mark>"
    assert snippet("milk", "", "some text", "more") == "some text"
    assert snippet("milk", LONG) == LONG[:MAX_SNIPPET_CHARACTERS] + "…"
    assert snippet("milk", "", "") == snippet("milk") == ""


def test_snippet_has_ellipses_where_it_is_cut() -> None:
    assert re.fullmatch(r"…[^…]+<mark>milk</mark>[^…]+…", snippet("milk", f"{LONG}milk {LONG}"))
    assert re.fullmatch(r"[^…]*<mark>milk</mark>[^…]+…", snippet("milk", f"milk {LONG}"))
    assert re.fullmatch(r"…[^…]+<mark>milk</mark>", snippet("milk", f"{LONG}milk"))


def test_snippet_begins_with_a_whole_word() -> None:
    for shift in range(12):
        found = _plain(snippet("milk", f"{LONG}{'x' * shift} milk"))
        assert found.split()[0] in ("…lorem", "…ipsum")


@pytest.mark.parametrize("length", [1, 100, 190])
def test_snippet_contains_the_first_match(length: int) -> None:
    word = "y" * length
    for text in (f"{LONG}{word} {LONG}", f"{'x' * 1000} {word}", word * 2 + f" {word}", f"{'ab ' * 25}{word}"):
        assert word in _marks(snippet(word, text))


def test_snippet_does_not_mark_a_cut_word() -> None:
    for shift in range(12):
        text = f"cat {'x' * (MAX_SNIPPET_CHARACTERS - 14 + shift)} catalog"
        assert _marks(snippet("cat", text)) == ["cat"]


characters = st.sampled_from("aAbBéÉe\u0301ß1_ \n\t-\"'<>&;#/。🦜жñ")
texts = st.text(characters, max_size=40) | st.lists(st.sampled_from(["milk", "Café", "a", "<b>", "&amp;"])).map(
    " ".join
)
long_texts = st.builds(lambda text, times: text * times, texts, st.integers(1, 60))
queries = st.text(characters, max_size=20) | st.sampled_from(["milk", '"a milk"', "-milk cafe", "a -b", "b amp"])


@given(queries, st.lists(long_texts, max_size=3))
def test_snippet_without_tags_is_part_of_a_text(query: str, given_texts: list[str]) -> None:
    found = snippet(query, *given_texts)
    part = _plain(found)
    bare = part.removeprefix("…").removesuffix("…")
    assert len(bare) <= MAX_SNIPPET_CHARACTERS
    if part == bare:
        assert part in given_texts or not any(given_texts)
    else:
        assert any(bare in text and bare != text for text in given_texts)
    assert not set(re.sub("</?mark>", "", found)) & set("<>\"'")


@given(queries, long_texts)
def test_marked_text_is_a_word_of_the_query(query: str, text: str) -> None:
    folded = query.casefold() + " " + query
    for mark in _marks(snippet(query, text)):
        assert mark
        assert re.fullmatch(r"[^\s\-\"'<>&;#/]+", mark)
        assert _bare(mark) in _bare(folded)


def _bare(text: str) -> str:
    return text.casefold().replace("é", "e").replace("ñ", "n").replace("\u0301", "")


@given(st.text(max_size=200), st.lists(st.text(max_size=300), max_size=3))
def test_any_nonempty_text_has_a_snippet(query: str, given_texts: list[str]) -> None:
    assert _plain(snippet(query, *given_texts)) or not any(given_texts)


@pytest.fixture(scope="module")
def library(module_settings: Settings) -> Iterator[TestClient]:
    """Run an application with notes that no test changes. A note's id is its position in this list."""
    with TestClient(create_app(module_settings)) as client:
        for note in (
            note_in("Groceries", "for the weekend", content="oat milk, rye bread", tags=["home"]),
            note_in("Breakfast", "bread with butter", content="milk in the coffee"),
            note_in("Milk", "all about it", content="oat, soy and milk from almonds"),
            note_in("Réunion", "l'été à l'île", content="naïve <b>Straße</b> & ЁЖИК"),
            note_in("of the and", "no word is too common", content="the the the", tags=["to do", "milk"]),
            note_in("long texts", "are searched whole", content="filler " * 100_000 + "needle"),
            note_in("Identifiers", "as in code", content="snake_case kebab-case v1.2 日本語 42 $where"),
            note_in("Combining", "the signs that combine", content="cafe\u0301 हिन्दी"),
        ):
            assert client.post("/notes/", json=note).status_code == 201
        client.post("/notes/", json=note_in("deleted", "milk", content="milk", tags=["milk"]))
        client.delete("/notes/9/")
        yield client


def _found(client: TestClient, q: str, **query: Any) -> list[Json]:
    answer = client.get("/notes/", params={"q": q, **query})
    assert answer.status_code == 200, answer.text
    notes: list[Json] = answer.json()
    return notes


@pytest.mark.parametrize(
    ("q", "ids"),
    [
        *(("butter", [2]), ("BUTTER", [2]), ("groceries", [1]), ("weekend", [1]), ("home", [1]), ("do", [5])),
        *(("butter groceries", [1, 2]), ("milk -bread", [3, 5]), ("milk -oat", [2, 5]), ("but", []), ("nothing", [])),
        *(('"oat milk"', [1]), ('"oat, soy"', [3]), ('milk "rye bread"', [1]), ('milk -"oat milk"', [2, 3, 5])),
        *(("reunion", [4]), ("RÉUNION", [4]), ("ete", [4]), ("naive", [4]), ("ёжик", [4]), ("b", [4]), ("<b>", [4])),
        *(("the", [1, 2, 5, 8]), ("of", [5]), ("needle", [6]), ("日本語", [7]), ("42", [7]), ("case", [7])),
        *(("snake_case", [7]), ("kebab-case", [7]), ("$where", [7]), ("-milk", []), ("-", []), ('"', []), ('""', [])),
        *(("cafe", [8]), ("CAFÉ", [8]), ("हिन्दी", [8]), ("ह", []), ("snake", []), ("almonds milky", [3])),
        *((" ", []), ("*", []), (".*", []), ("{}", []), ("\\", []), ("a" * 200, []), ("🦜" * 200, [])),
        *(("\u0001\uffff", []), ("--milk", None), ('"milk', None), ('-"', []), ('milk -""', None), ("- milk", None)),
    ],
    ids=lambda value: value[:20].encode("unicode-escape").decode() if isinstance(value, str) else "",
)
def test_search_finds_notes_by_words(library: TestClient, q: str, ids: list[int] | None) -> None:
    found = sorted(note["id"] for note in _found(library, q))
    assert ids is None or found == ids
    assert sorted(note["id"] for note in _found(library, q, sort="-title", content="false")) == found


def test_title_matches_are_ranked_first(library: TestClient) -> None:
    assert [note["id"] for note in _found(library, "milk")][:2] == [3, 5]
    assert [note["id"] for note in _found(library, "milk", sort="relevance")][:2] == [3, 5]
    assert [note["id"] for note in _found(library, "milk", sort="id")] == [1, 2, 3, 5]


def test_equal_ranks_are_ordered_by_id(library: TestClient) -> None:
    weights = [note["id"] for note in _found(library, "weekend code bread", tag=[])]
    assert weights.index(1) < weights.index(7)


@pytest.mark.parametrize(
    ("q", "id", "text"),
    [
        ("rye", 1, "oat milk, <mark>rye</mark> bread"),
        ("weekend", 1, "for the <mark>weekend</mark>"),
        ("groceries", 1, "<mark>Groceries</mark>"),
        ("home", 1, "<mark>home</mark>"),
        ("do", 5, "to <mark>do</mark> milk"),
        ("strasse naive", 4, "<mark>naïve</mark> &lt;b&gt;<mark>Straße</mark>&lt;/b&gt; &amp; ЁЖИК"),
        ("cafe", 8, "<mark>cafe\u0301</mark> हिन्दी"),
        ("हिन्दी", 8, "cafe\u0301 <mark>हिन्दी</mark>"),
        ('"oat milk"', 1, "<mark>oat</mark> <mark>milk</mark>, rye bread"),
    ],
)
def test_snippet_is_from_the_matching_field(library: TestClient, q: str, id: int, text: str) -> None:
    for content in ("true", "false"):
        snippets = {note["id"]: note["snippet"] for note in _found(library, q, content=content)}
        assert snippets[id] == text


def test_snippet_of_a_long_text_is_short(library: TestClient) -> None:
    (note,) = _found(library, "needle", content="false")
    assert "content" not in note
    assert note["snippet"].endswith("filler <mark>needle</mark>")
    assert len(_plain(note["snippet"])) <= MAX_SNIPPET_CHARACTERS + 2


def test_search_reflects_every_change(client: TestClient) -> None:
    path = client.post("/notes/", json=note_in(content="first")).headers["Location"]
    assert len(_found(client, "first")) == 1
    client.patch(path, json={"content": "second"})
    assert (_found(client, "first"), len(_found(client, "second"))) == ([], 1)
    client.patch(path, json={"tags": ["third"]})
    assert len(_found(client, "third")) == 1
    client.delete(path)
    assert _found(client, "second third") == []
    client.post("/trash/1/restore")
    assert len(_found(client, "second")) == 1


def test_combining_marks_are_part_of_words() -> None:
    marks = [
        character for character in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(character)[0] == "M"
    ]
    for word in [f"needle{mark}s" for mark in marks]:
        assert _marks(snippet(word, f"a {word} in hay")) == [word]
