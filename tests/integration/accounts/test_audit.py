"""The audit log: addresses, guests with a link, rejected requests, exports and uses of tokens, within limits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from realtime.auth.audit import HOUR_SECONDS, MAX_PER_CALLER, MAX_PER_WORKER, HourlyLimit, NoteAudit
from realtime.auth.permissions import ANONYMOUS, UNRESTRICTED, Principal, key_of, link_key
from realtime.auth.tokens import digest
from realtime.notes.preconditions import Conditions
from tests.support.accounts import HERE, Browse, Browser, bearer, parts_of, run
from tests.support.harness import Json, create_note, eventually
from tests.support.http import refused_handshake


def entries(root: Browser, count: int = 1, **query: Any) -> list[Json]:
    """Wait for a number of entries, which are stored with a delay, and return all entries of the query."""

    def found() -> list[Json]:
        listed: list[Json] = root.get("/audit", params={"limit": 1000, **query}).json()
        return listed if len(listed) >= count else []

    result: list[Json] = asyncio.run(eventually(found))
    return result


def test_audit_log_records_note_writes_with_the_address(root: Browser, ann: Browser, note: int) -> None:
    ann.patch(f"/notes/{note}/", json={"title": "Another"})
    imported = ann.post("/import", files={"files": ("one.md", b"# One\n\nwords")}).json()["ids"][0]
    ann.delete(f"/notes/{note}/")
    recorded = [one for one in entries(root, 5, who=ann.name) if one["action"].startswith("note.")]
    assert [(one["action"], one["target"]) for one in recorded] == [
        ("note.delete", str(note)),
        ("note.create", str(imported)),
        ("note.change", str(note)),
        ("note.create", str(note)),
    ]
    assert {one["address"] for one in recorded} == {ann.address}


def test_guest_is_recorded_by_the_link(root: Browser, ann: Browser, browse: Browse, note: int) -> None:
    link = ann.put(f"/notes/{note}/access", json={"link": "editor"}).json()["link"]["token"]
    name = f"guest:{digest(link)[:12]}"
    guest = browse()
    guest.post("/auth/links", json={"token": link})
    assert guest.patch(f"/notes/{note}/", json={"title": "By a guest"}).status_code == 200
    (entry,) = entries(root, who=name)
    assert (entry["action"], entry["target"], entry["address"]) == ("note.change", str(note), guest.address)
    program = browse()
    assert program.patch(f"/notes/{note}/", json={"title": "Again"}, headers=bearer(link)).status_code == 200
    assert [one["address"] for one in entries(root, 2, who=name)] == [program.address, guest.address]
    assert link not in root.get("/audit", params={"limit": 1000}).text
    for wrong in ("guest", "guest:", "guest:xyz", "guest:" + "0" * 13, "$ne"):
        assert root.get("/audit", params={"who": wrong}).status_code == (200 if wrong == "guest" else 422), wrong


def test_refused_requests_for_existing_notes_are_recorded_once(
    root: Browser, ann: Browser, bob: Browser, browse: Browse, note: int
) -> None:
    for _ in range(3):
        assert bob.get(f"/notes/{note}/").status_code == 404
    assert bob.delete(f"/notes/{note}/").status_code == 404
    assert bob.get(f"/notes/{note + 1_000_000}/").status_code == 404  # there is no such note
    refused_handshake(bob, f"ws://127.0.0.1/sync/{note}", Origin=HERE)
    other = create_note(ann)["id"]
    ann.put(f"/notes/{other}/access", json={"members": [{"name": bob.name, "role": "viewer"}]})
    assert bob.get(f"/notes/{other}/").status_code == 200
    assert bob.patch(f"/notes/{other}/", json={"title": "Not mine"}).status_code == 403
    refused = entries(root, 2, who=bob.name, action="note.access")
    assert [(one["target"], one["ok"], one["address"]) for one in refused] == [
        (str(other), False, bob.address),
        (str(note), False, bob.address),
    ]
    stranger = browse()
    assert stranger.get(f"/notes/{note}/").status_code == 404
    by_stranger = entries(root, 3, action="note.access")
    assert (None, stranger.address) in [(one["who"], one["address"]) for one in by_stranger]


def test_refused_room_is_recorded(root: Browser, bob: Browser, note: int) -> None:
    refused_handshake(bob, f"ws://127.0.0.1/sync/{note}", Origin=HERE)
    (entry,) = entries(root, who=bob.name, action="note.access")
    assert (entry["target"], entry["address"]) == (str(note), bob.address)


def test_exports_and_token_uses_are_recorded_once(root: Browser, ann: Browser, browse: Browse) -> None:
    token = ann.token()
    for _ in range(3):
        assert ann.get("/export").status_code == 200
        assert browse(address="192.0.2.7").get("/notes/", headers=bearer(token["token"])).status_code == 200
    elsewhere = browse(address="192.0.2.8")
    with elsewhere.websocket_connect("ws://127.0.0.1/ws", headers={"Origin": HERE}) as feed:
        feed.send_json({"type": "auth", "token": token["token"]})
        assert feed.receive_json()["type"] == "ready"
    assert [one["address"] for one in entries(root, who=ann.name, action="export")] == [ann.address]
    used = entries(root, 2, who=ann.name, action="token.use")
    assert [(one["target"], one["address"]) for one in used] == [
        (token["id"], "192.0.2.8"),
        (token["id"], "192.0.2.7"),
    ]


def test_hourly_limit_bounds_entries_per_caller_and_worker() -> None:
    limit = HourlyLimit()
    admitted = [limit.admit("bob", number) for number in range(1000)]
    assert admitted == [True] * MAX_PER_CALLER + [None] + [False] * (999 - MAX_PER_CALLER)
    assert limit.admit("ann", 1) is True
    assert limit.admit("ann", 1) is False
    others = [limit.admit(f"user{number}", 1) for number in range(5000)]
    assert others.count(True) == MAX_PER_WORKER - MAX_PER_CALLER - 2
    assert not any(others[MAX_PER_WORKER:])


def test_hourly_limit_is_reset_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = HourlyLimit()
    assert [limit.admit("bob", 1) for _ in range(2)] == [True, False]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + HOUR_SECONDS + 1)
    assert [limit.admit("bob", 1) for _ in range(2)] == [True, False]


async def test_entry_without_a_target_represents_entries_above_the_limit() -> None:
    stored: list[Any] = []

    class Stored:
        async def add_many(self, entries: Any) -> None:
            stored.extend(entries)

    stand_in: Any = Stored()
    audit = NoteAudit(stand_in)
    bob = Principal(frozenset({key_of("bob")}), "bob", address="192.0.2.7")
    for number in range(2 * MAX_PER_CALLER):
        audit.add_hourly("note.access", bob, str(number), ok=False)
    await audit.flush()
    assert [one.target for one in stored] == [*map(str, range(MAX_PER_CALLER)), None]


def test_address_does_not_change_the_identity_of_a_principal(host: TestClient, browse: Browse, note: int) -> None:
    """An anonymous caller must sign in to write; a guest with a link need not."""
    assert Principal(ANONYMOUS.keys, writes=False, address="192.0.2.7") == ANONYMOUS
    assert Principal(ANONYMOUS.keys, writes=False, address="192.0.2.7").anonymous
    assert not Principal(frozenset({"*", link_key("0" * 32)})).anonymous
    assert not UNRESTRICTED.anonymous
    assert browse().patch(f"/notes/{note}/", json={"title": "Another"}).status_code == 401


def test_automatic_purge_is_recorded_without_a_user(host: TestClient, root: Browser, ann: Browser, note: int) -> None:
    ann.put(f"/notes/{note}/access", json={"link": "editor"})
    version = ann.delete(f"/notes/{note}/").json()["version"] + 1
    run(host, lambda: parts_of(host).notes.purge(UNRESTRICTED, note, Conditions({version})))
    purged = [one for one in entries(root, action="note.purge") if one["target"] == str(note)]
    assert [(one["who"], one["address"]) for one in purged] == [(None, None)]
