"""The administrator role: granting, revoking, the last administrator, and the time until it takes effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient, WebSocketTestSession

from realtime.auth.permissions import UNRESTRICTED
from realtime.auth.users import UserAccount
from realtime.core.close_codes import CloseCode
from realtime.errors import LastAdmin
from realtime.notes.models import NoteIn
from realtime.settings import Settings
from realtime.store.database import Store
from tests.support.accounts import (
    PASSWORD,
    Browse,
    Browser,
    bearer,
    expire_confirmation,
    is_rejected,
    parts_of,
    run,
)
from tests.support.harness import Json, create_note, eventually, note_in
from tests.support.http import read_until_close
from tests.support.workers import open_stores


def promote(by: Browser, name: str) -> None:
    answer = by.post(f"/users/{name}/promote")
    assert (answer.status_code, answer.json()["admin"]) == (200, True), answer.text


def demote(by: Browser, name: str) -> None:
    answer = by.post(f"/users/{name}/demote")
    assert (answer.status_code, answer.json()["admin"]) == (200, False), answer.text


def test_role_change_takes_effect_in_the_same_session(root: Browser, ann: Browser) -> None:
    assert ann.get("/users").status_code == 403
    promote(root, ann.name)
    assert ann.user == {"name": ann.name, "admin": True, "via": "session"}
    assert ann.get("/users").status_code == 200
    demote(root, ann.name)
    assert ann.get("/users").status_code == 403
    entries = root.get("/audit", params={"who": "root"}).json()
    acts = [(one["action"], one["target"]) for one in entries if one["target"] == ann.name]
    assert acts == [("user.demote", ann.name), ("user.promote", ann.name)]
    assert entries[0]["address"].startswith("10.0.")


def test_last_administrator_cannot_be_demoted(root: Browser, ann: Browser) -> None:
    refused = root.post("/users/root/demote")
    said = "root is the last administrator. Make another user an administrator first"
    assert (refused.status_code, refused.json()) == (409, {"detail": said})
    promote(root, ann.name)
    # A disabled administrator does not count.
    run(root, lambda: parts_of(root).accounts.users.set_disabled(ann.name, True))
    assert root.post("/users/root/demote").status_code == 409
    assert root.user
    assert root.user["admin"]
    demote(root, ann.name)


def test_role_change_requires_an_administrator_with_a_confirmed_password(
    database: Database[Json], browse: Browse, root: Browser, ann: Browser
) -> None:
    path = f"/users/{ann.name}/promote"
    assert browse().post(path).status_code == 401
    assert ann.post(path).json() == {"detail": "Only administrators can do this"}
    assert browse().post(path, headers=bearer(root.token()["token"])).status_code == 403
    other = browse().sign_in("root")
    expire_confirmation(database, other)
    for act in ("promote", "demote"):
        answer = other.post(f"/users/{ann.name}/{act}")
        assert (answer.status_code, answer.json()["required"]) == (403, "password_confirmation")
    assert other.post("/auth/confirm", json={"password": PASSWORD}).status_code == 204
    promote(other, ann.name)
    demote(other, ann.name)


def test_invites_are_revoked_with_the_role(browse: Browse, root: Browser, ann: Browser) -> None:
    for end in (
        lambda: demote(root, ann.name),
        lambda: root.post(f"/users/{ann.name}/disable"),
    ):
        root.post(f"/users/{ann.name}/enable")
        promote(root, ann.name)
        assert browse().sign_in(ann.name).post("/invites").status_code == 201
        assert len(root.get("/invites").json()) == 1
        end()
        assert root.get("/invites").json() == []
    demote(root, ann.name)


def read_until_created(feed: WebSocketTestSession) -> Json:
    """Return the next frame of a feed that is no heartbeat. It must be a created note."""
    while (frame := feed.receive_json())["type"] == "heartbeat":
        pass
    assert frame["type"] == "note.created"
    created: Json = frame
    return created


def test_demotion_makes_open_feeds_and_rooms_reconnect(host: TestClient, root: Browser, ann: Browser) -> None:
    body = NoteIn.model_validate(note_in("Unowned"))
    note = run(host, lambda: parts_of(host).notes.create(UNRESTRICTED, body)).id
    promote(root, ann.name)
    with ann.open_feed() as feed, ann.open_room(note) as room:
        assert feed.receive_json()["type"] == "ready"
        room.receive_bytes()
        demote(root, ann.name)
        code, frames = read_until_close(feed)
        assert (code, "reset" in [frame["type"] for frame in frames]) == (CloseCode.RESUME, True)
        assert read_until_close(room)[0] == CloseCode.RESUME
    assert ann.get(f"/notes/{note}/").status_code == 404
    # The session remains valid.
    with ann.open_feed() as feed:
        assert feed.receive_json()["type"] == "ready"
        root.patch(f"/notes/{note}/", json={"title": "Changed by root"})
        assert create_note(ann)["id"] == read_until_created(feed)["id"]


def test_principal_read_before_a_role_change_is_rejected(host: TestClient, root: Browser, ann: Browser) -> None:
    promote(root, ann.name)
    parts = parts_of(host)
    before = run(host, lambda: parts.authenticator.of_secret(ann.secret, None))
    demote(root, ann.name)
    run(host, lambda: eventually(lambda: is_rejected(parts.feed, before)))
    after = run(host, lambda: parts.authenticator.of_secret(ann.secret, None))
    assert (before.admin, after.admin) == (True, False)
    assert not run(host, lambda: is_rejected(parts.feed, after))


def test_connection_with_the_new_role_stays_open(host: TestClient, root: Browser, ann: Browser) -> None:
    parts = parts_of(host)
    before = run(host, lambda: parts.authenticator.of_secret(ann.secret, None))
    promote(root, ann.name)
    with ann.open_feed() as feed:
        assert feed.receive_json()["type"] == "ready"
        run(host, lambda: eventually(lambda: is_rejected(parts.feed, before)))
        assert create_note(ann)["id"] == read_until_created(feed)["id"]


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[list[Store]]:
    """Start two workers on one database."""
    async with open_stores(settings) as stores:
        yield stores


async def test_concurrent_removals_leave_one_administrator(stores: list[Store]) -> None:
    names = [f"admin{number}" for number in range(6)]
    for name in names:
        await stores[0].users.add(name, "hash", admin=True)
    for _ in range(3):
        acts = [
            stores[0].users.set_admin(names[0], False),
            stores[1].users.set_admin(names[1], False),
            stores[0].users.set_disabled(names[2], True, keep_admin=True),
            stores[1].users.set_disabled(names[3], True, keep_admin=True),
            stores[0].users.set_admin(names[4], False),
            stores[1].users.set_admin(names[5], False),
        ]
        results = await asyncio.gather(*acts, return_exceptions=True)
        assert sum(isinstance(result, UserAccount) for result in results) == 5, results
        assert sum(isinstance(result, LastAdmin) for result in results) == 1
        assert len([one for one in await stores[0].users.all() if one.admin and not one.disabled]) == 1
        for name in names:
            await stores[0].users.set_admin(name, True)
            await stores[0].users.set_disabled(name, False, keep_admin=True)
