"""Sharing of notes: requests, responses and effects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.api.routes.sharing import MAX_MEMBERS
from realtime.auth.permissions import UNRESTRICTED, Access, Principal, key_of
from realtime.auth.tokens import digest
from realtime.errors import NoteNotFound
from realtime.notes.models import NoteIn
from realtime.notes.sharing import AccessRequest
from tests.support.accounts import HERE, Browse, Browser, is_rejected, parts_of, run
from tests.support.harness import Json, create_note, eventually, note_in
from tests.support.http import refused_handshake

ED = {"name": "ed", "role": "editor"}


@pytest.fixture(scope="module")
def ed(host: TestClient, root: Browser) -> Browser:
    """Return the browser of a user with whom notes are shared."""
    return Browser(host).sign_up("ed")


def share(who: Browser, note: int, **access: Any) -> Json:
    """Share a note, and return its access rights."""
    answer = who.put(f"/notes/{note}/access", json=access)
    assert answer.status_code == 200, answer.text
    shared: Json = answer.json()
    return shared


def test_member_sees_access_without_members_and_link(ann: Browser, ed: Browser, note: int) -> None:
    private: Json = {"owner": ann.name, "role": "owner", "members": [], "link": None, "public": False}
    assert ann.get(f"/notes/{note}/access").json() == private
    shared = share(ann, note, members=[{"name": "ED", "role": "editor"}], link="viewer", public=True)
    assert shared == {**private, "members": [ED], "public": True, "link": shared["link"]}
    assert shared["link"]["role"] == "viewer"
    assert shared["link"]["token"].startswith("ln_")
    seen = ed.get(f"/notes/{note}/access").json()
    assert seen == {**shared, "role": "editor", "members": None, "link": None}


def test_sharing_creates_a_version_of_the_note(ann: Browser, ed: Browser, note: int) -> None:
    answer = ann.put(f"/notes/{note}/access", json={"members": [ED]}, headers={"If-Match": '"v1"'})
    assert answer.headers["ETag"] == '"v2"'
    assert ann.put(f"/notes/{note}/access", json={}, headers={"If-Match": '"v1"'}).status_code == 412
    assert ed.patch(f"/notes/{note}/", json={"title": "By Ed"}).json()["version"] == 3
    entries = ann.get(f"/notes/{note}/history/").json()
    assert [(entry["action"], entry["author"], entry["changed"]) for entry in entries] == [
        ("update", "ed", ["title"]),
        ("share", ann.name, []),
        ("create", ann.name, []),
    ]


def test_editor_cannot_share_or_delete(ann: Browser, ed: Browser, note: int) -> None:
    share(ann, note, members=[ED])
    assert ed.put(f"/notes/{note}/access", json={"public": True}).status_code == 403
    assert ed.delete(f"/notes/{note}/").status_code == 403
    ann.delete(f"/notes/{note}/")
    assert ed.get(f"/trash/{note}/").status_code == 404
    assert ann.post(f"/trash/{note}/restore").json()["version"] == 4
    assert ed.get(f"/notes/{note}/").status_code == 200


def test_owner_can_transfer_a_note(ann: Browser, ed: Browser, note: int) -> None:
    given = share(ann, note, owner="ed", members=[{"name": ann.name, "role": "viewer"}, ED])
    assert (given["owner"], given["role"], given["members"]) == ("ed", "viewer", None)
    assert ed.get(f"/notes/{note}/access").json()["members"] == [{"name": ann.name, "role": "viewer"}]
    assert share(ed, note, owner=ann.name) == {
        "owner": ann.name, "role": None, "members": None, "link": None, "public": False
    }  # fmt: skip
    assert ed.get(f"/notes/{note}/").status_code == 404


def test_admin_can_take_over_unowned_notes(host: TestClient, root: Browser, ed: Browser) -> None:
    body = NoteIn.model_validate(note_in())
    made = run(host, lambda: parts_of(host).notes.create(UNRESTRICTED, body))
    assert root.get(f"/notes/{made.id}/access").json()["owner"] is None
    shared = share(root, made.id, members=[ED])
    assert (shared["owner"], shared["members"]) == (None, [ED])
    assert ed.patch(f"/notes/{made.id}/", json={"title": "By Ed"}).status_code == 200
    assert share(root, made.id, owner="root")["owner"] == "root"
    assert ed.get(f"/notes/{made.id}/").status_code == 404


def test_link_gives_access_until_it_is_revoked(ann: Browser, browse: Browse, note: int) -> None:
    stranger, later = browse(), browse()
    assert stranger.post("/auth/links", json={"token": "ln_wrong"}).status_code == 404
    token = share(ann, note, link="viewer")["link"]["token"]
    assert stranger.post("/auth/links", json={"token": token}).json() == {"id": note}
    assert stranger.get(f"/notes/{note}/").status_code == 200
    assert stranger.patch(f"/notes/{note}/", json={"title": "Another"}).status_code == 403
    assert share(ann, note, link="editor")["link"] == {"role": "editor", "token": token}
    edited = stranger.patch(f"/notes/{note}/", json={"title": "By a link"}, headers={"Idempotency-Key": "one"})
    assert edited.json()["title"] == "By a link"
    assert ann.get(f"/notes/{note}/history/").json()[0]["author"] is None
    program = later.get(f"/notes/{note}/", headers={"Authorization": f"Bearer {token}"})
    assert program.json()["title"] == "By a link"

    share(ann, note)
    assert stranger.get(f"/notes/{note}/").status_code == 404
    again = share(ann, note, link="viewer")["link"]["token"]
    assert again != token
    assert stranger.get(f"/notes/{note}/").status_code == 404
    assert later.post("/auth/links", json={"token": token}).status_code == 404
    assert stranger.post("/auth/links", json={"token": again}).status_code == 200
    assert note in [one["id"] for one in stranger.get("/notes/").json()]


def test_sign_out_removes_the_links(browse: Browse, ann: Browser, ed: Browser, note: int) -> None:
    token = share(ann, note, link="editor")["link"]["token"]
    shared_browser = browse().sign_in("ed")
    shared_browser.post("/auth/links", json={"token": token})
    assert shared_browser.get(f"/notes/{note}/").status_code == 200
    answer = shared_browser.post("/auth/sign-out")
    dropped = [cookie for cookie in answer.headers.get_list("set-cookie") if cookie.startswith("realtime-links=")]
    assert len(dropped) == 1
    assert {"HttpOnly", "Max-Age=0", "Path=/", "SameSite=lax"} <= set(dropped[0].split("; "))
    assert list(shared_browser.cookies) == ["realtime-device"]
    assert "clear-site-data" not in answer.headers
    for sent in (
        shared_browser.get(f"/notes/{note}/"),
        shared_browser.sign_in("ed").get(f"/notes/{note}/"),
    ):
        assert sent.status_code == 404


def test_guest_can_remove_links_by_signing_out(browse: Browse, ann: Browser, note: int) -> None:
    guest = browse("https://notes.example")
    guest.post("/auth/links", json={"token": share(ann, note, link="viewer")["link"]["token"]})
    assert guest.get(f"/notes/{note}/").status_code == 200
    answer = guest.post("/auth/sign-out")
    (dropped,) = [one for one in answer.headers.get_list("set-cookie") if one.startswith("__Host-realtime-links=")]
    assert "Secure" in dropped
    assert guest.get(f"/notes/{note}/").status_code == 404


def test_former_member_receives_no_later_versions(ann: Browser, ed: Browser, note: int) -> None:
    cursor = ed.get("/notes/").headers["X-Cursor"]
    share(ann, note, members=[ED])
    share(ann, note)
    for title in ("One more", "And another"):
        ann.patch(f"/notes/{note}/", json={"title": title})
    changes = ed.get("/changes", params={"since": cursor, "timeout": 0}).json()["changes"]
    assert [(one["type"], one["version"]) for one in changes if one["id"] == note] == [("note.deleted", 3)]


def test_link_token_is_not_stored(database: Database[Json], ann: Browser, note: int) -> None:
    token = share(ann, note, link="viewer")["link"]["token"]
    stored = "".join(str(one) for name in database.list_collection_names() for one in database[name].find())
    assert token not in stored


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"members": [{"name": "nobody.here", "role": "viewer"}]}, "nobody.here"),
        ({"owner": "nobody.here"}, "nobody.here"),
        ({"members": [ED, ED]}, "twice"),
        ({"members": [{"name": "ed", "role": "owner"}]}, "role"),
        ({"members": [{"name": {"$gt": ""}, "role": "viewer"}]}, "name"),
        ({"members": [{"name": f"user{number}", "role": "viewer"} for number in range(MAX_MEMBERS + 1)]}, "members"),
        ({"link": "owner"}, "link"),
        ({"link": {"$gt": ""}}, "link"),
        ({"public": "yes"}, "public"),
        ({"owner": {"$ne": None}}, "owner"),
        ({"readers": ["*"]}, "readers"),
    ],
)
def test_invalid_access_rights_are_refused(ann: Browser, ed: Browser, note: int, body: Json, said: str) -> None:
    answer = ann.put(f"/notes/{note}/access", json=body)
    assert answer.status_code == 422
    assert said in answer.text
    assert ann.get(f"/notes/{note}/access").headers["ETag"] == '"v1"'


def test_viewer_cannot_probe_user_names(ann: Browser, ed: Browser, note: int) -> None:
    share(ann, note, members=[{"name": "ed", "role": "viewer"}])
    bodies = [{"owner": "nobody.here"}, {"owner": "root"}]
    assert len({ed.put(f"/notes/{note}/access", json=body).text for body in bodies}) == 1


def test_idempotency_keys_are_separate_per_user(ann: Browser, ed: Browser) -> None:
    key = {"Idempotency-Key": "the-same"}
    made = [who.post("/notes/", json=note_in(), headers=key).json()["id"] for who in (ann, ed, ann, ed)]
    assert made[0] == made[2] != made[1] == made[3]


def test_repeated_write_returns_404_after_access_was_revoked(ann: Browser, ed: Browser, note: int) -> None:
    share(ann, note, members=[ED])
    key = {"Idempotency-Key": "again"}
    assert ed.patch(f"/notes/{note}/", json={"title": "By Ed"}, headers=key).status_code == 200
    share(ann, note)
    assert ed.patch(f"/notes/{note}/", json={"title": "By Ed"}, headers=key).status_code == 404


def test_import_keeps_ids_only_for_admins(ann: Browser, root: Browser, note: int) -> None:
    files = {"files": ("one.md", f"---\nid: {note + 1000}\ntitle: One more\ndescription: of mine\n---\ntext".encode())}
    for who, status in ((ann, 403), (root, 200), (root, 409)):
        assert who.post("/import?keep_ids=true", files=files).status_code == status


def test_import_keeps_dates_only_for_admins(ann: Browser, root: Browser) -> None:
    text = "---\ntitle: Old note\ncreated: 2020-01-02\nupdated: 2021-01-02\n---\nwords"
    files = [("files", (f"{number}.md", text.encode())) for number in range(3)]
    for who, year in ((ann, None), (root, "2020")):
        answer = who.post("/import", files=files, headers={"Idempotency-Key": "dates"}).json()
        notes = [who.get(f"/notes/{id}/").json() for id in answer["ids"]]
        assert all(note["content"] == text for note in notes)
        assert {note["created_date"][:4] == (year or note["updated_date"][:4]) for note in notes} == {True}
        assert {note["created_date"] > "2026" for note in notes} == {year is None}
        assert answer["changed"] == (
            []
            if year
            else [
                {
                    "file": "0.md",
                    "reason": "created, updated: only administrators can keep dates; the notes got the time of the"
                    " import",
                }
            ]
        )
        assert who.post("/import", files=files, headers={"Idempotency-Key": "dates"}).json() == answer


def test_audit_log_records_actions_on_notes(host: TestClient, root: Browser, ann: Browser, note: int) -> None:
    share(ann, note, public=True)
    ann.delete(f"/notes/{note}/")
    ann.post(f"/trash/{note}/restore")
    ann.delete(f"/notes/{note}/")
    ann.delete(f"/trash/{note}/")
    entries: list[Json] = []
    while len(entries) < 7:  # the sign-up and six actions on the note, which are stored with a delay
        entries = root.get("/audit", params={"who": ann.name}).json()
    actions = [(entry["action"], entry["target"]) for entry in reversed(entries)]
    acts = ("create", "share", "delete", "restore", "delete", "purge")
    assert actions[-6:] == [(f"note.{act}", str(note)) for act in acts]


def test_room_is_not_loaded_without_access_to_the_note(
    host: TestClient, ed: Browser, note: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []
    monkeypatch.setattr(parts_of(host).rooms, "join", lambda id, *_: joined.append(id))
    path = f"ws://127.0.0.1/sync/{note}"
    assert refused_handshake(ed, path, Origin=HERE).status_code == 404
    record = run(host, lambda: parts_of(host).store.notes.find(note))
    assert record.lineage is None
    assert joined == []


def test_content_is_not_read_without_access_to_the_note(
    database: Database[Json], ann: Browser, ed: Browser, note: int
) -> None:
    """The time to read it would reveal its length."""
    trashed = create_note(ann)["id"]
    ann.delete(f"/notes/{trashed}/")
    database.notes.update_many({"_id": {"$in": [note, trashed]}}, {"$unset": {"content": ""}})  # reading them fails
    for path in (f"/notes/{note}/", f"/notes/{note}/access", f"/trash/{trashed}/"):
        with pytest.raises(KeyError):
            ann.get(path)
        assert ed.get(path).status_code == 404


@pytest.fixture
def access_lost_during_write(
    host: TestClient, ann: Browser, ed: Browser, note: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let Ann transfer the note after the check of her access rights and before the note is read for the write."""
    parts, owner = parts_of(host), Principal(frozenset({key_of(ann.name)}), ann.name, digest(ann.secret))
    share(ann, note, members=[ED])
    find = parts.store.notes.find

    async def find_after_transfer(id: int) -> Any:
        monkeypatch.undo()
        await parts.sharing.change(owner, id, AccessRequest(owner="root"), None)
        return await find(id)

    monkeypatch.setattr(parts.store.notes, "find", find_after_transfer)


def test_editor_losing_access_during_a_write_gets_404(ed: Browser, note: int, access_lost_during_write: None) -> None:
    answer = ed.patch(f"/notes/{note}/?base_version=9", json={"content": "of Ed"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Note not found"})


def test_retried_write_is_refused_after_the_session_ended(
    host: TestClient, ann: Browser, note: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(host)
    update, principal = parts.store.notes.update, Principal(None, ann.name, ann.get("/auth/sessions").json()[0]["id"])

    async def update_after_conflict(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        await update(note, {"title": "Another was faster"}, None, None)
        await parts.authenticator.end(ann.name)
        await eventually(lambda: is_rejected(parts.feed, principal))
        return await update(*arguments, **options)

    monkeypatch.setattr(parts.store.notes, "update", update_after_conflict)
    answer = ann.post(f"/notes/{note}/content", json=[{"op": "append", "text": "more"}])
    assert (answer.status_code, answer.json()) == (401, {"detail": "Not signed in"})


def test_former_owner_cannot_share_a_transferred_note(
    host: TestClient, ann: Browser, note: int, access_lost_during_write: None
) -> None:
    class OwnedByAnn:
        def apply(self, current: Access) -> Access:
            return replace(current, owner=ann.name)

    async def share_again() -> None:
        with pytest.raises(NoteNotFound):
            await parts_of(host).notes.share(Principal(frozenset({key_of(ann.name)}), ann.name), note, OwnedByAnn())

    run(host, share_again)
