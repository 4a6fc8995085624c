"""Lists of notes: every order with and without tags and search, page by page, from indexes, and invalid queries."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime import create_app
from realtime.api.pagination import encode_page_token
from realtime.notes.listing import Listing, Sort
from realtime.notes.models import MAX_ID
from realtime.notes.snippets import folded
from realtime.settings import MIB, Settings
from realtime.store import search
from realtime.store.lists import page_query
from tests.support.harness import Json, create_note, note_in
from tests.support.http import pages_of

NOTE_COUNT = 800
DAY = datetime(2026, 1, 1, 12, tzinfo=UTC)
TITLES = ["alpha", "Älpha", "zebra", "Émile"]
SORTS: list[Sort] = [sort for sort in get_args(Sort) if sort != "relevance"]


def _document(id: int) -> Json:
    """Return a stored note. Many notes have the same title, dates, and words."""
    created, updated = DAY + timedelta(days=id * 3 % 4), DAY + timedelta(days=10 + id * 5 % 7)
    fields: Json = {
        "title": TITLES[id % 4],
        "description": "apple pie" if id % 5 == 0 else "a description",
        "content": "apple " * (id % 3) + "text",
        "tags": ["all", *(["third", "third"] if id % 3 == 0 else []), *(["fifth"] if id % 5 == 0 else [])],
    }
    gone = {"deleted_date": updated} if id % 10 == 9 else {}
    return {
        "_id": id,
        **fields,
        "title_key": folded(fields["title"]),
        "version": 1,
        "created_date": created,
        "updated_date": updated,
        "deleted": bool(gone),
        **gone,
        "operations": [],
        "recent": [],
        "text_version": 1,
        "words": fields["content"],
        "words_version": 1,
    }


LIVE = [document for document in map(_document, range(1, NOTE_COUNT + 1)) if not document["deleted"]]


@pytest.fixture(scope="module")
def populated(module_settings: Settings, module_database: Database[Json]) -> Iterator[TestClient]:
    """Return a client of an application with many notes that no test changes."""
    with TestClient(create_app(module_settings)) as client:
        assert client.get("/notes/").json() == []  # the indexes exist now
        module_database.notes.insert_many(map(_document, range(1, NOTE_COUNT + 1)))
        yield client


@pytest.fixture(scope="module")
def shared_client(module_settings: Settings) -> Iterator[TestClient]:
    """Return a client of an application for tests that read only notes with a tag of their own."""
    database = f"{module_settings.database}-shared"
    with TestClient(create_app(module_settings.model_copy(update={"database": database}))) as client:
        yield client


def _ids(client: TestClient, **query: Any) -> list[int]:
    return [note["id"] for page in pages_of(client, "/notes/", **query) for note in page]


def _key(sort: str) -> Callable[[Json], tuple[Any, int]]:
    name = sort.removeprefix("-")
    field = {"id": "_id", "title": "title_key"}.get(name) or f"{name}_date"
    return lambda document: (document[field], document["_id"])


def _expected_ids(sort: str, *tags: str, word: str = "") -> list[int]:
    """Return the expected ids of a list by sorting in memory."""
    wanted = [
        document
        for document in LIVE
        if set(tags) <= set(document["tags"]) and word in f"{document['description']} {document['content']}"
    ]
    return [document["_id"] for document in sorted(wanted, key=_key(sort), reverse=sort.startswith("-"))]


def _token(*position: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("tags", [[], ["third"], ["third", "fifth"]], ids=["all", "a tag", "two tags"])
def test_list_pages_follow_the_requested_order(populated: TestClient, sort: Sort, tags: list[str]) -> None:
    pages = [[note["id"] for note in page] for page in pages_of(populated, "/notes/", sort=sort, tag=tags, limit=41)]
    assert [id for page in pages for id in page] == _expected_ids(sort, *tags)
    assert all(len(page) == 41 for page in pages[:-1])


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("tags", [[], ["third"]], ids=["all", "a tag"])
def test_search_pages_follow_the_requested_order(populated: TestClient, sort: Sort, tags: list[str]) -> None:
    assert _ids(populated, q="apple", sort=sort, tag=tags, limit=151) == _expected_ids(sort, *tags, word="apple")


@pytest.mark.parametrize("tags", [[], ["third"]], ids=["all", "a tag"])
def test_search_by_relevance_orders_ties_by_id(
    populated: TestClient, module_database: Database[Json], tags: list[str]
) -> None:
    scored = module_database.notes.aggregate(
        [
            {"$match": {"$text": {"$search": "apple text"}, "deleted": False}},
            {"$set": {"score": {"$meta": "textScore"}}},
        ]
    )
    wanted = [(-document["score"], document["_id"]) for document in scored if set(tags) <= set(document["tags"])]
    assert len({score for score, _ in wanted}) < 10 < len(wanted)
    assert _ids(populated, q="apple text", tag=tags, limit=97) == [id for _, id in sorted(wanted)]


def test_pages_of_a_single_note_continue_among_equal_titles(populated: TestClient) -> None:
    answer = populated.get(
        "/notes/", params={"sort": "-title", "after": encode_page_token("-title", "alpha", 30), "limit": 1}
    )
    ids = [answer.json()[0]["id"]]
    for _ in range(5):
        answer = populated.get(answer.links["next"]["url"])
        ids += [note["id"] for note in answer.json()]
    assert ids == [28, 25, 24, 21, 20, 17]


def test_title_order_ignores_case_and_accents(shared_client: TestClient) -> None:
    titles = ["Zug", "äpfel", "Apfel", "apfelmus", "ÉTÉ", "eta", "Straße", "strasse", "ﬁnal", "fin", "Fio"]
    made = [create_note(shared_client, title.ljust(3), tags=["titles"])["id"] for title in titles]
    ordered_titles = ["äpfel", "Apfel", "apfelmus", "eta", "ÉTÉ", "fin", "ﬁnal", "Fio", "Straße", "strasse", "Zug"]
    assert _ids(shared_client, sort="title", tag="titles") == [made[titles.index(title)] for title in ordered_titles]


@pytest.mark.parametrize(
    "sign", ["🦜", "한", "ﷺ", "ж", "é", "\u0301", '"', "\\", "\u0001", "\uffff"], ids=lambda sign: f"{ord(sign):x}"
)
def test_pages_continue_after_a_title_of_any_character(shared_client: TestClient, sign: str) -> None:
    tag = f"any {sign}"
    made = [create_note(shared_client, sign * 50, tags=[tag])["id"] for _ in range(3)]
    assert _ids(shared_client, sort="title", tag=tag, limit=1) == made
    assert _ids(shared_client, sort="-title", tag=tag, limit=1) == made[::-1]


def test_next_link_preserves_the_query(populated: TestClient) -> None:
    asked = {"q": '"apple pie" -é&', "tag": ["all", "fifth"], "sort": "-created", "content": "false", "limit": "2"}
    following = populated.get("/notes/", params=asked).links["next"]
    assert following["rel"] == "next"
    kept = dict[str, list[str]]()
    for name, value in populated.build_request("GET", following["url"]).url.params.multi_items():
        kept.setdefault(name, []).append(value)
    del kept["after"]
    assert kept == {name: value if isinstance(value, list) else [value] for name, value in asked.items()}


@pytest.mark.parametrize(
    "query", [{}, {"q": "apple"}, {"tag": "fifth"}, {"sort": "-title"}, {"q": "apple", "sort": "id"}]
)
def test_last_page_has_no_next_link(populated: TestClient, query: Json) -> None:
    total = len(_ids(populated, **query, limit=1000))
    sizes = [len(page) for page in pages_of(populated, "/notes/", **query, limit=total - 1 if total < 1000 else 1000)]
    assert sum(sizes) == total
    assert sizes[-1] > 0
    if total <= 1000:
        assert "next" not in populated.get("/notes/", params={**query, "limit": total}).links


def test_list_without_content_omits_only_the_content(populated: TestClient) -> None:
    for query in ({}, {"q": "apple"}, {"tag": "fifth", "sort": "-updated"}):
        whole = populated.get("/notes/", params=query).json()
        bare = populated.get("/notes/", params={**query, "content": "false"}).json()
        for note in whole:
            assert note.pop("content")
        assert bare == whole


def test_snippets_are_returned_only_for_a_search(populated: TestClient) -> None:
    assert all("snippet" not in note for note in populated.get("/notes/").json())
    for content in ("true", "false"):
        found = populated.get("/notes/", params={"q": "apple", "content": content}).json()
        assert all("<mark>apple</mark>" in note["snippet"] for note in found)


def test_page_of_large_notes_is_limited_by_size(shared_client: TestClient) -> None:
    text = "needle " + "🦜" * (MIB // 4 - 1000)
    made = [create_note(shared_client, content=text, tags=["big"])["id"] for _ in range(11)]
    for query in ({}, {"q": "needle"}, {"sort": "created"}):
        pages = list(pages_of(shared_client, "/notes/", tag="big", **query))
        assert [note["id"] for page in pages for note in page] == made
        assert max(sum(len(note["content"].encode()) for note in page) for page in pages) <= 9 * MIB
    assert [len(page) for page in pages_of(shared_client, "/notes/", tag="big", content="false")] == [11]


def test_tag_filter_requires_all_given_tags(populated: TestClient) -> None:
    assert _ids(populated, tag=["third", "fifth", "third"], limit=1000) == _expected_ids("id", "third", "fifth")
    assert _ids(populated, tag=["third", "nobody's"]) == []
    assert _ids(populated, tag="THIRD") == []


@pytest.mark.parametrize("tag", ["a,b", "$tags", "a.b", "🦜", " ", "&=#", "x" * 50])
def test_tag_filter_matches_special_characters_literally(shared_client: TestClient, tag: str) -> None:
    made = [create_note(shared_client, tags=["other", tag])["id"] for _ in range(2)]
    assert _ids(shared_client, tag=tag, limit=1) == made


@pytest.mark.parametrize("sort", [*SORTS, "relevance"])
def test_pages_contain_unchanged_notes_once_during_concurrent_writes(shared_client: TestClient, sort: Sort) -> None:
    tag = f"changing {sort}"
    words = {"q": "fruit"} if sort == "relevance" else {}
    notes = [create_note(shared_client, f"title {id % 3}", "fruit", tags=[tag]) for id in range(18)]
    stay = {note["id"] for note in notes[::2]}
    others = iter(notes[1::2])
    seen: list[int] = []
    for number, page in enumerate(pages_of(shared_client, "/notes/", **words, sort=sort, tag=tag, limit=4)):
        seen += [note["id"] for note in page]
        if number < 2:
            shared_client.delete(f"/notes/{next(others)['id']}/")
            shared_client.put(f"/notes/{next(others)['id']}/", json=note_in(f"title {number}", "fruit"))
            shared_client.patch(f"/notes/{next(others)['id']}/", json={"tags": []})
            create_note(shared_client, f"title {number}", "fruit", tags=[tag])
    assert sorted(id for id in seen if id in stay) == sorted(stay)


@pytest.mark.parametrize("sort", [*SORTS, "relevance"])
def test_next_page_continues_after_a_deleted_note(shared_client: TestClient, sort: Sort) -> None:
    made = [create_note(shared_client, tags=[f"gone {sort}"])["id"] for _ in range(4)]
    words = {"q": "title"} if sort == "relevance" else {}
    answer = shared_client.get("/notes/", params={"tag": f"gone {sort}", "sort": sort, "limit": 2, **words})
    shared_client.delete(f"/notes/{answer.json()[-1]['id']}/")
    rest = shared_client.get(answer.links["next"]["url"]).json()
    assert [note["id"] for note in answer.json() + rest] == (made[::-1] if sort.startswith("-") else made)


def _stages(plan: Json) -> set[str]:
    below = [plan[name] for name in ("inputStage", "queryPlan") if name in plan] + plan.get("inputStages", [])
    return {plan.get("stage", "")}.union(*map(_stages, below))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("tags", [(), ("all",), ("all", "third")], ids=["all", "a tag", "two tags"])
@pytest.mark.parametrize("deep", [False, True], ids=["first", "deep"])
def test_list_order_uses_an_index(
    populated: TestClient, module_database: Database[Json], sort: Sort, tags: tuple[str, ...], deep: bool
) -> None:
    last = _document(_expected_ids(sort, *tags)[-60])
    key = last["title_key"] if sort.endswith("title") else 0
    if sort.endswith(("created", "updated")):
        key = int(last[f"{sort.removeprefix('-')}_date"].timestamp() * 1000)
    first = ("tags", tags[0]) if tags else ("deleted", False)
    find = page_query(Listing(tags=tags, sort=sort, after=(key, last["_id"]) if deep else None), first)
    explained = module_database.command(
        "explain", {"find": "notes", **find, "sort": dict(find["sort"]), "limit": 21}, verbosity="executionStats"
    )
    stages = _stages(explained["queryPlanner"]["winningPlan"])
    assert "IXSCAN" in stages
    assert not stages & {"COLLSCAN", "SORT"}
    stats = explained["executionStats"]
    assert stats["nReturned"] == 21
    assert stats["totalKeysExamined"] <= (22 if len(tags) < 2 else 22 * 4)


def test_list_queries_do_not_scan_all_notes(populated: TestClient, module_database: Database[Json]) -> None:
    module_database.command("profile", 2)
    try:
        for path in (
            *("/notes/?limit=5", "/notes/?limit=5&sort=-title", "/notes/?limit=5&sort=updated&tag=third"),
            *("/notes/?limit=5&q=pie", "/notes/?limit=5&q=pie&sort=-created&tag=third", "/tags/", "/trash/?limit=5"),
        ):
            answer = populated.get(path)
            assert answer.json()
            if "next" in answer.links:
                assert populated.get(answer.links["next"]["url"]).json()
    finally:
        module_database.command("profile", 0)
    namespace = f"{module_database.name}.notes"
    asked = list(module_database.system.profile.find({"ns": namespace, "op": {"$in": ["query", "command"]}}))
    assert len(asked) >= 13
    for query in asked:
        assert query["planSummary"].startswith(("IXSCAN", "TEXT")), query["planSummary"]
        if "find" in query["command"]:
            assert "hasSortStage" not in query
            assert query["keysExamined"] <= 12


def test_tags_are_listed_with_their_note_counts(populated: TestClient) -> None:
    counts = {tag: sum(tag in document["tags"] for document in LIVE) for tag in ("all", "third", "fifth")}
    expected = [{"tag": tag, "count": counts[tag]} for tag in ("all", "third", "fifth")]
    assert populated.get("/tags/").json() == populated.get("/tags").json() == expected
    assert populated.get("/tags/?limit=2").json() == expected[:2]


def test_tag_counts_include_only_live_notes(client: TestClient) -> None:
    assert client.get("/tags/").json() == []
    for tags in (["b", "a", "b"], ["b"], [], ["c"], ["B"]):
        create_note(client, tags=tags)
    counted = [("b", 2), ("B", 1), ("a", 1), ("c", 1)]
    assert client.get("/tags/").json() == [{"tag": tag, "count": count} for tag, count in counted]
    client.delete("/notes/1/")
    client.patch("/notes/4/", json={"tags": ["d"]})
    counted = [("B", 1), ("b", 1), ("d", 1)]
    assert client.get("/tags/").json() == [{"tag": tag, "count": count} for tag, count in counted]
    client.post("/trash/1/restore")
    assert client.get("/tags/").json()[0] == {"tag": "b", "count": 2}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(("q=", "q"), ("q=%00", "q"), ("q=a%00b", "q"), (f"q={'x' * 201}", "q"), (f"q={'%C3%A9' * 201}", "q")),
        *(("tag=", "tag"), ("tag=a&tag=", "tag"), ("tag=%00", "tag"), (f"tag={'x' * 51}", "tag")),
        *((f"tag=ok&tag={'x' * 51}", "tag"), ("tag=x" + "&tag=x" * 32, "tag")),
        *(("sort=", "sort"), ("sort=color", "sort"), ("sort=--id", "sort"), ("sort=ID", "sort"), ("sort=+id", "sort")),
        *(("sort=relevance", "sort"), ("sort=-relevance&q=a", "sort"), ("sort=%00", "sort"), ("sort=-id%20", "sort")),
        *(("content=", "content"), ("content=maybe", "content"), ("content=2", "content"), ("content=null", "content")),
        *(("limit=0", "limit"), ("limit=1001", "limit"), ("limit=-1", "limit"), ("limit=1e2", "limit")),
        *((f"limit={'9' * 5000}", "limit"), ("limit=NaN", "limit"), ("limit=1.5", "limit"), ("limit=", "limit")),
        *(("limit=many", "limit"), ("limit=1&limit=x", "limit"), ("Limit=1", "Limit"), ("page=1", "page")),
        *(("after=", "after"), ("after=-1", "after"), ("after=xyz", "after"), ("after=123456789abcdef", "after")),
        *(("after=%00", "after"), ("after=1%0a", "after"), ("%ff=1", "\ufffd")),
        *(("color=red", "color"), ("Q=a", "Q"), ("tags=a", "tags"), ("q[]=a", "q[]"), ("$where=1", "$where")),
        *(("q=a&sort=color&after=xyz", "sort"), ("limit=0&sort=relevance", "limit"), ("offset=1", "offset")),
        *(("/tags/?limit=0", "limit"), ("/tags/?limit=10001", "limit"), ("/tags/?limit=x", "limit")),
        *(("/tags/?after=x", "after"), ("/tags/?q=a", "q")),
    ],
    ids=lambda value: value[:24],
)
def test_invalid_list_query_is_refused_with_its_parameter(populated: TestClient, query: str, field: str) -> None:
    answer = populated.get(query if query.startswith("/tags/") else f"/notes/?{query}")
    assert (answer.status_code, answer.json()["detail"][0]["loc"][:2]) == (422, ["query", field])


@pytest.mark.parametrize("query", ["q=%ED%A0%80", "q=%ff", "tag=%ED%A0%80", "tag=%ff", "sort=%ff", "after=%ED%A0%80"])
def test_invalid_unicode_in_a_query_causes_no_server_error(populated: TestClient, query: str) -> None:
    assert populated.get(f"/notes/?{query}").status_code in (200, 422)


DATE = 1_767_268_800_000
INVALID_TOKENS = {
    "empty": ("id", ""),
    "not base64": ("id", "%2B%2F!"),
    "padded": ("id", _token("id", 1, 1) + "="),
    "one character": ("id", "A"),
    "random": ("id", "c0ffee00c0ffee"),
    "not unicode": ("id", base64.urlsafe_b64encode(b'["id","\xff",1]').decode().rstrip("=")),
    "not an array": ("id", base64.urlsafe_b64encode(b'{"id":1}').decode().rstrip("=")),
    "null": ("id", base64.urlsafe_b64encode(b"null").decode().rstrip("=")),
    "too short": ("id", _token("id", 1)),
    "too long": ("id", _token("id", 1, 1, 1)),
    "very long": ("title", _token("title", "x" * 10_000, 1)),
    "deep": ("id", base64.urlsafe_b64encode(b"[" * 400).decode().rstrip("=")),
    "another order": ("-id", _token("id", 1, 1)),
    "another direction": ("title", _token("-title", "abc", 1)),
    "id for a search by relevance": ("&q=a", _token("id", 1, 1)),
    "relevance without a search": ("", _token("relevance", 1.5, 1)),
    "the trash": ("id", _token("trash", DATE, 1)),
    "the history": ("id", _token("history", 1, 1)),
    "string as id key": ("id", _token("id", "1", 1)),
    "string as date": ("created", _token("created", "2026-01-01", 1)),
    "string as relevance": ("relevance&q=a", _token("relevance", "1.5", 1)),
    "number as title": ("title", _token("title", 1, 1)),
    "null as title": ("title", _token("title", None, 1)),
    "boolean as id": ("id", _token("id", True, True)),
    "list as title": ("title", _token("title", ["abc"], 1)),
    "object as title": ("title", _token("title", {"$gt": ""}, 1)),
    "huge key": ("created", _token("created", 10**300, 1)),
    "huge negative key": ("updated", _token("updated", -(10**30), 1)),
    "huge id": ("title", _token("title", "abc", 2**63)),
    "id past the last": ("id", _token("id", 1, MAX_ID + 1)),
    "negative id": ("id", _token("id", 1, -1)),
    "id with a fraction": ("id", _token("id", 1, 1.5)),
    "id as a string": ("id", _token("id", 1, "1")),
    "NaN": ("created", _token("created", float("nan"), 1)),
    "infinite": ("created", _token("created", float("inf"), 1)),
    "infinite by its exponent": ("created", base64.urlsafe_b64encode(b'["created",1e999,1]').decode().rstrip("=")),
    "NaN relevance": ("relevance&q=a", _token("relevance", float("nan"), 1)),
    "NaN id": ("created", _token("created", 1, float("nan"))),
    "surrogate": ("title", _token("title", "\ud800", 1)),
    "raw surrogate": ("title", base64.urlsafe_b64encode(b'["title","\xed\xa0\x80",1]').decode().rstrip("=")),
}


@pytest.mark.parametrize(("sort", "token"), INVALID_TOKENS.values(), ids=INVALID_TOKENS)
def test_invalid_page_token_is_refused(populated: TestClient, sort: str, token: str) -> None:
    query = f"sort={sort}" if sort and sort[0] != "&" else sort
    answer = populated.get(f"/notes/?{query}&after={token}")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "after"])


@pytest.mark.parametrize(
    ("sort", "position"),
    [
        *(("id", (MAX_ID, MAX_ID)), ("-id", (0, 0)), ("title", ("", 0)), ("-title", ("\0", MAX_ID))),
        *(("created", (-MAX_ID, 0)), ("-created", (MAX_ID, MAX_ID)), ("updated", (0.5, 1)), ("-updated", (-1e9, 7))),
        *(("title", ("$title_key", 1)), ("title", ("\U0010ffff", 1)), ("-title", ("\U0010ffff" * 4, 1))),
    ],
)
def test_page_token_with_an_extreme_position_is_accepted(
    populated: TestClient, sort: Sort, position: tuple[Any, int]
) -> None:
    for more in ({}, {"tag": "third"}, {"q": "apple"}):
        answer = populated.get("/notes/", params={"sort": sort, "after": encode_page_token(sort, *position), **more})
        assert answer.status_code == 200, answer.text


def test_search_after_a_ranking_timeout_returns_incomplete_results(
    populated: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = populated.get("/notes/", params={"q": "apple", "limit": 1000})
    assert "X-Incomplete" not in whole.headers
    monkeypatch.setattr(search, "RANKING_TIMEOUT_SECONDS", 1e-6)
    for sort in SORTS:
        answer = populated.get("/notes/", params={"q": "apple", "limit": 7, "sort": sort})
        assert (answer.status_code, answer.headers["X-Incomplete"]) == (200, "true")
        assert "next" not in answer.links
        ids = [note["id"] for note in answer.json()]
        assert len(ids) == 7
        assert ids == [id for id in _expected_ids(sort, word="apple") if id in ids]
        assert all("<mark>apple</mark>" in note["snippet"] for note in answer.json())
    middle = _expected_ids("id", word="apple")[100]
    after = encode_page_token("id", middle, middle)
    following = populated.get("/notes/", params={"q": "apple", "limit": 7, "sort": "id", "after": after}).json()
    assert len(following) == 7
    assert min(note["id"] for note in following) > middle, "no note is repeated"
    ranked = {"q": "apple", "after": encode_page_token("relevance", 1.0, 1)}
    assert populated.get("/notes/", params=ranked).status_code == 503
    monkeypatch.setattr(search, "UNRANKED_TIMEOUT_SECONDS", 1e-6)
    nothing = populated.get("/notes/", params={"q": "apple"})
    assert (nothing.status_code, nothing.json(), nothing.headers["X-Incomplete"]) == (200, [], "true")


def test_search_over_the_ranking_limit_returns_incomplete_results(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the limit, four concurrent searches for frequent words made all of them time out."""
    monkeypatch.setattr(search, "RANKING_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(search, "MAX_CONCURRENT_RANKINGS", 0)
    with TestClient(create_app(settings)) as client:
        made = [create_note(client, "apple pie")["id"] for _ in range(3)]
        answer = client.get("/notes/", params={"q": "apple", "limit": 7})
        assert (answer.status_code, answer.headers["X-Incomplete"]) == (200, "true")
        assert [note["id"] for note in answer.json()] == made


def test_entity_tag_of_the_tags_changes_with_them(shared_client: TestClient) -> None:
    note = create_note(shared_client, tags=["entity"])
    first = shared_client.get("/tags/")
    for tags in (first.headers["ETag"], f'"other", W/{first.headers["ETag"]}'):
        assert shared_client.get("/tags/", headers={"If-None-Match": tags}).status_code == 304
    shared_client.put(f"/notes/{note['id']}/", json=note_in(tags=["entity", "another"]))
    second = shared_client.get("/tags/", headers={"If-None-Match": first.headers["ETag"]})
    assert second.status_code == 200
    assert second.headers["ETag"] != first.headers["ETag"]
