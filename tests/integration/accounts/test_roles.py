"""The administrator role: granting, revoking, the last administrator, and the time until it takes effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from realtime.auth.permissions import UNRESTRICTED
from realtime.auth.users import UserAccount
from realtime.core.close_codes import CloseCode
from realtime.errors import LastAdmin
from realtime.notes.models import NoteIn
from realtime.settings import Settings
from realtime.store.database import Store
from tests.support.accounts import HERE, PASSWORD, Browser, bearer, forget_proof, parts_of, run
from tests.support.harness import eventually, note_in

Browse = Callable[..., Browser]
ORIGIN = {"Origin": HERE}


def promote(by: Browser, name: str) -> None:
    answer = by.post(f"/users/{name}/promote")
    assert (answer.status_code, answer.json()["admin"]) == (200, True), answer.text


def demote(by: Browser, name: str) -> None:
    answer = by.post(f"/users/{name}/demote")
    assert (answer.status_code, answer.json()["admin"]) == (200, False), answer.text


def test_role_is_given_and_taken_in_the_same_session(root: Browser, ann: Browser) -> None:
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


def test_last_administrator_keeps_the_role(root: Browser, ann: Browser) -> None:
    refused = root.post("/users/root/demote")
    said = "root is the last administrator. Make another user an administrator first"
    assert (refused.status_code, refused.json()) == (409, {"detail": said})
    promote(root, ann.name)
    run(root, lambda: parts_of(root).accounts.users.set_disabled(ann.name, True))  # does not count
    assert root.post("/users/root/demote").status_code == 409
    assert root.user
    assert root.user["admin"]
    demote(root, ann.name)


def test_role_of_nobody_is_not_changed(root: Browser) -> None:
    for act in ("promote", "demote"):
        answer = root.post(f"/users/nobody/{act}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "User not found"})


def test_role_takes_an_administrator_in_person_with_a_confirmed_password(
    browse: Browse, root: Browser, ann: Browser
) -> None:
    path = f"/users/{ann.name}/promote"
    assert browse().post(path).status_code == 401
    assert ann.post(path).json() == {"detail": "Only administrators can do this"}
    assert browse().post(path, headers=bearer(root.token()["token"])).status_code == 403
    other = browse().sign_in("root")
    forget_proof(other)
    for act in ("promote", "demote"):
        answer = other.post(f"/users/{ann.name}/{act}")
        assert (answer.status_code, answer.json()["required"]) == (403, "password_confirmation")
    assert other.post("/auth/confirm", json={"password": PASSWORD}).status_code == 204
    promote(other, ann.name)
    demote(other, ann.name)


def test_invites_end_with_the_role(browse: Browse, root: Browser, ann: Browser) -> None:
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


def closing(socket: WebSocketTestSession) -> tuple[int, str]:
    """Return the close code of a socket, and the frames before it."""
    told = ""
    try:
        while True:
            message = socket.receive()
            socket._raise_on_close(message)
            told += message.get("text", "")
    except WebSocketDisconnect as closed:
        return closed.code, told


def test_feeds_and_rooms_start_over_with_the_new_role(host: TestClient, root: Browser, ann: Browser) -> None:
    body = NoteIn.model_validate(note_in("Of nobody"))
    note = run(host, lambda: parts_of(host).notes.create(UNRESTRICTED, body, None)).id
    promote(root, ann.name)
    with (
        ann.websocket_connect("ws://127.0.0.1/ws", headers=ORIGIN) as feed,
        ann.websocket_connect(f"ws://127.0.0.1/sync/{note}", headers=ORIGIN) as room,
    ):
        assert feed.receive_json()["type"] == "ready"
        room.receive_bytes()
        demote(root, ann.name)
        code, told = closing(feed)
        assert (code, '"type":"reset"' in told) == (CloseCode.RESUME, True)
        assert closing(room)[0] == CloseCode.RESUME
    assert ann.get(f"/notes/{note}/").status_code == 404
    # The session goes on.
    with ann.websocket_connect("ws://127.0.0.1/ws", headers=ORIGIN) as feed:
        assert feed.receive_json()["type"] == "ready"
        root.patch(f"/notes/{note}/", json={"title": "Changed by root"})
        mine = ann.post("/notes/", json=note_in()).json()["id"]
        while (frame := feed.receive_json())["type"] != "note.created":
            assert frame["type"] == "heartbeat"
        assert frame["id"] == mine


def test_viewer_who_was_read_before_the_change_is_not_let_in(host: TestClient, root: Browser, ann: Browser) -> None:
    promote(root, ann.name)
    parts = parts_of(host)
    before = run(host, lambda: parts.authenticator.of_secret(ann.secret, None))
    demote(root, ann.name)
    asyncio.run(eventually(lambda: parts.feed._is_ended(before)))
    after = run(host, lambda: parts.authenticator.of_secret(ann.secret, None))
    assert (before.admin, after.admin) == (True, False)
    assert not parts.feed._is_ended(after)


def test_connection_that_has_the_new_role_stays_open(host: TestClient, root: Browser, ann: Browser) -> None:
    parts = parts_of(host)
    before = run(host, lambda: parts.authenticator.of_secret(ann.secret, None))
    promote(root, ann.name)
    with ann.websocket_connect("ws://127.0.0.1/ws", headers=ORIGIN) as feed:
        assert feed.receive_json()["type"] == "ready"
        asyncio.run(eventually(lambda: parts.feed._is_ended(before)))
        mine = ann.post("/notes/", json=note_in()).json()["id"]
        while (frame := feed.receive_json())["type"] != "note.created":
            assert frame["type"] == "heartbeat"
        assert frame["id"] == mine


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[list[Store]]:
    """Start two workers on one database."""
    assert settings.mongo_url
    stores = [Store(settings.mongo_url, settings.database, write_timeout=20, read_timeout=5) for _ in range(2)]
    await asyncio.gather(*(store.prepare(accounts=True) for store in stores))
    yield stores
    for store in stores:
        await store.aclose()


async def test_administrators_who_act_on_each_other_at_once_leave_one(stores: list[Store]) -> None:
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
