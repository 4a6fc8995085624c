"""Lists of notes that several keys give access to: every order, page by page, from indexes and without sorting."""

from __future__ import annotations

import random
from typing import Any

import pytest
from bson import SON
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.notes.listing import Listing
from realtime.store.lists import page_query
from tests.support.accounts import Browser
from tests.support.harness import Json
from tests.support.http import pages_of

SORTS = ["id", "-id", "title", "-title", "created", "-created", "updated", "-updated"]


@pytest.fixture(scope="module")
def reader(host: TestClient, root: Browser) -> Browser:
    """Return a user with own, shared, public and linked notes, among many notes that are not visible."""
    reader, writer = Browser(host).sign_up(), Browser(host).sign_up()
    chance = random.Random(1)
    for number in range(60):
        title, tags = f"Note {chance.randrange(8)}", chance.sample(["a", "b"], chance.randrange(3))
        body = {"title": title, "description": f"number {number}", "tags": tags}
        kind = chance.choice(["own", "member", "public", "link", "both", "hidden"])
        id = (reader if kind == "own" else writer).post("/notes/", json=body).json()["id"]
        access: Json = {"public": kind in ("public", "both"), "link": "viewer" if kind == "link" else None}
        access["members"] = [{"name": reader.name, "role": "viewer"}] if kind in ("member", "both") else []
        if kind not in ("own", "hidden"):
            shared = writer.put(f"/notes/{id}/access", json=access).json()
            if kind == "link":
                reader.post("/auth/links", json={"token": shared["link"]["token"]})
    return reader


@pytest.mark.parametrize("sort", SORTS)
def test_pages_of_several_keys_form_one_sorted_list(reader: Browser, sort: str) -> None:
    name, backwards = sort.removeprefix("-"), sort.startswith("-")
    field = {"id": "id", "title": "title"}.get(name, f"{name}_date")
    everything = reader.get("/notes/?limit=1000").json()
    assert 20 < len(everything) < 60
    for tag in (None, "a"):
        expected = [note for note in everything if tag is None or tag in note["tags"]]
        expected.sort(key=lambda note: (note[field], note["id"]), reverse=backwards)
        found = list(pages_of(reader, f"/notes/?sort={sort}&limit=7" + (f"&tag={tag}" if tag else "")))
        assert [note["id"] for page in found for note in page] == [note["id"] for note in expected]
        assert all(len(page) == 7 for page in found[:-1])


def _stages(plan: Any) -> set[str]:
    return {plan["stage"], *(stage for name in ("inputStage",) if name in plan for stage in _stages(plan[name]))}


@pytest.mark.parametrize("sort", SORTS)
def test_page_query_scans_a_bounded_part_of_an_index(
    module_database: Database[Json], reader: Browser, sort: Any
) -> None:
    find = page_query(Listing(sort=sort), ("readers", f"@{reader.name}"))
    explained = module_database.command(
        "explain", {"find": "notes", **find, "sort": SON(find["sort"]), "limit": 6}, verbosity="executionStats"
    )
    assert "IXSCAN" in _stages(explained["queryPlanner"]["winningPlan"])
    assert "SORT" not in _stages(explained["queryPlanner"]["winningPlan"])
    assert explained["executionStats"]["totalKeysExamined"] <= 7
