"""Fixtures: a server with accounts, users, and a note of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.testclient import TestClient

from realtime.auth.permissions import UNRESTRICTED
from realtime.notes.models import NoteIn
from realtime.settings import Settings
from tests.integration.accounts.conftest import ann, browse, database, host, note, root
from tests.support.accounts import Browser, accounts_server, parts_of, run
from tests.support.harness import Json
from tests.support.sharing_model import PEOPLE, SHARED

__all__ = ["ann", "browse", "database", "host", "note", "root"]


@dataclass
class World:
    """The browsers of all users, the notes by kind, and the cursor of the feed before the notes were created."""

    host: TestClient
    cursor: str = ""
    people: dict[str, Browser] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, kind: str) -> Json:
        """Return the fields of a note of a kind. All of them contain a word that no other note has."""
        word = word_of(kind)
        return {"title": f"About {word}", "description": f"for {word}", "content": f"text of {word}", "tags": [word]}

    def share(self, kind: str, **access: Any) -> Json:
        """Replace the access rights of a note."""
        answer = self.people["ann"].put(f"/notes/{self.notes[kind]}/access", json=access)
        assert answer.status_code == 200, answer.text
        shared: Json = answer.json()
        return shared


def word_of(kind: str) -> str:
    """Return the word that only the note of a kind contains."""
    return f"zq{kind}qz"


@pytest.fixture(scope="module")
def world(module_settings: Settings) -> Iterator[World]:
    """Run a server with all users and notes."""
    with accounts_server(module_settings, max_writes_per_second=10_000) as host:
        world = World(host)
        people = world.people
        for name in ("root", "ann", "ed", "vi", "max"):
            people[name] = Browser(host).sign_up(name)
        for name in ("linked", "stranger", "ann_reads", "ed_reads"):
            people[name] = Browser(host)
        for name in ("ann", "ed"):
            token = people[name].token(scope="read")["token"]
            people[f"{name}_reads"].headers["Authorization"] = f"Bearer {token}"
        assert set(people) == set(PEOPLE)
        world.cursor = people["ann"].get("/notes/").headers["X-Cursor"]
        for kind, shared in SHARED.items():
            _make(world, kind, shared)
        yield world


def _make(world: World, kind: str, shared: Json | None) -> None:
    ann = world.people["ann"]
    if shared is None:
        note = NoteIn.model_validate(world.note(kind))
        made = run(world.host, lambda: parts_of(world.host).notes.create(UNRESTRICTED, note))
        world.notes[kind] = made.id
        return
    world.notes[kind] = ann.post("/notes/", json=world.note(kind)).json()["id"]
    link = world.share(kind, **shared)["link"]
    if link is not None:
        opened = world.people["linked"].post("/auth/links", json={"token": link["token"]})
        assert opened.json() == {"id": world.notes[kind]}
    if kind == "revoked":
        world.share(kind)
    if kind == "trashed":
        ann.delete(f"/notes/{world.notes[kind]}/")
