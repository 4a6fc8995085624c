"""Deletion of accounts: open sessions, the notes of the account, and the reserved name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.auth.permissions import Principal, key_of
from realtime.notes.deleted_accounts import SETTLING_PERIOD
from realtime.notes.models import NoteIn
from tests.support.accounts import PASSWORD, Browse, Browser, bearer, expire_confirmation, parts_of, run
from tests.support.harness import Json, create_note, note_in
from tests.support.http import read_until_close


def make(who: Browser, title: str, **access: object) -> Json:
    """Create a note and share it."""
    note = create_note(who, title)
    answer = who.put(f"/notes/{note['id']}/access", json=access)
    assert answer.status_code == 200, answer.text
    return {**note, "link": answer.json()["link"]}


def unsettled(host: TestClient) -> list[str]:
    """Return the deleted accounts whose notes may not be settled yet."""
    return [one.name for one in run(host, parts_of(host).store.users.unsettled)]


def test_deleted_account_loses_all_access_and_its_name_stays_reserved(
    browse: Browse, ann: Browser, root: Browser
) -> None:
    phone, token = browse().sign_in(ann.name), bearer(ann.token()["token"])
    signed = browse().signed_token(ann.name)
    with phone.open_feed() as feed:
        assert feed.receive_json()["type"] == "ready"
        answer = ann.delete("/auth/account")
        assert answer.status_code == 204, answer.text
        assert read_until_close(feed)[0] == 4501
    assert list(ann.cookies) == ["realtime-device"]
    assert not phone.user
    for header in (token, bearer(signed)):
        assert browse().get("/auth/me", headers=header).status_code == 401
    assert browse().try_sign_in(ann.name).status_code == 401
    taken = browse().post("/auth/sign-up", json={"name": ann.name, "password": PASSWORD})
    assert (taken.status_code, taken.json()) == (409, {"detail": "This name is already taken"})
    assert ann.name not in [one["name"] for one in root.get("/users").json()]
    for act in ("enable", "disable", "promote", "demote"):
        assert root.post(f"/users/{ann.name}/{act}").status_code == 404
    assert root.delete(f"/users/{ann.name}").status_code == 404
    (entry,) = root.get("/audit", params={"who": ann.name, "action": "user.delete"}).json()
    assert (entry["target"], entry["ok"]) == (ann.name, True)
    assert entry["address"].startswith("10.0.")


def test_deleted_account_keeps_no_password_hash(database: Database[Json], ann: Browser) -> None:
    ann.delete("/auth/account")
    document = database.people.find_one({"_id": ann.name}) or {}
    assert (document["hash"], document["disabled"], document["admin"]) == ("", True, False)


def test_notes_are_transferred_with_members_but_without_links(
    browse: Browse, ann: Browser, bob: Browser, root: Browser
) -> None:
    cid = browse().sign_up()
    private = make(ann, "Private")
    members = [{"name": bob.name, "role": "viewer"}, {"name": cid.name, "role": "editor"}]
    shared = make(ann, "Shared", members=members, link="editor", public=True)
    guest = browse()
    guest.post("/auth/links", json={"token": shared["link"]["token"]})
    assert guest.patch(f"/notes/{shared['id']}/", json={"title": "By guest"}).status_code == 200
    assert ann.delete(f"/auth/account?transfer_to={bob.name}").status_code == 204
    assert bob.get(f"/notes/{private['id']}/access").json()["role"] == "owner"
    access = bob.get(f"/notes/{shared['id']}/access").json()
    assert (access["owner"], access["members"], access["link"], access["public"]) == (
        bob.name, [{"name": cid.name, "role": "editor"}], None, True
    )  # fmt: skip
    assert cid.patch(f"/notes/{shared['id']}/", json={"title": "By cid"}).status_code == 200
    assert guest.patch(f"/notes/{shared['id']}/", json={"title": "By guest"}).status_code == 403  # public to read
    assert guest.post("/auth/links", json={"token": shared["link"]["token"]}).status_code == 404
    assert bob.get(f"/notes/{private['id']}/history/").json()[-1]["author"] == ann.name
    assert root.get(f"/notes/{private['id']}/").status_code == 404


def test_without_a_recipient_shared_notes_stay_and_others_are_trashed(
    browse: Browse, ann: Browser, bob: Browser, root: Browser
) -> None:
    private = make(ann, "Private")
    linked = make(ann, "Linked", link="viewer")
    public = make(ann, "Public", public=True)
    shared = make(ann, "Shared", members=[{"name": bob.name, "role": "editor"}])
    cursor = bob.get("/notes/").headers["X-Cursor"]
    assert ann.delete("/auth/account").status_code == 204
    for note in (shared, public):
        assert root.get(f"/notes/{note['id']}/access").json()["role"] == "owner"
    assert bob.patch(f"/notes/{shared['id']}/", json={"title": "Still there"}).status_code == 200
    assert browse().get(f"/notes/{public['id']}/").status_code == 200
    changes = bob.get("/changes", params={"since": cursor, "timeout": 0}).json()["changes"]
    assert "note.deleted" not in [one["type"] for one in changes if one["id"] in (shared["id"], public["id"])]
    for note in (private, linked):
        for who in (root, bob):
            assert who.get(f"/notes/{note['id']}/").status_code == 404
            assert who.get(f"/trash/{note['id']}/").status_code == 404
        assert run(root, partial(parts_of(root).store.lists.trashed, note["id"])) is not None


def test_administrator_can_delete_the_account_of_another_user(ann: Browser, bob: Browser, root: Browser) -> None:
    note = make(ann, "Of ann")
    assert bob.delete(f"/users/{ann.name}").json() == {"detail": "Only administrators can do this"}
    assert root.delete(f"/users/{ann.name}?transfer_to={bob.name}").status_code == 204
    assert not ann.user
    assert bob.get(f"/notes/{note['id']}/").status_code == 200
    assert bob.get(f"/notes/{note['id']}/history/").json()[0]["author"] == "root"
    (entry,) = root.get("/audit", params={"who": "root", "action": "user.delete"}).json()
    assert entry["target"] == ann.name


def test_deletion_requires_a_session_with_a_confirmed_password(
    database: Database[Json], browse: Browse, ann: Browser, root: Browser
) -> None:
    token = bearer(ann.token()["token"])
    assert browse().delete("/auth/account", headers=token).status_code == 403
    assert browse().delete("/auth/account").status_code == 401
    by_token = browse().delete(f"/users/{ann.name}", headers=bearer(root.token()["token"]))
    assert by_token.status_code == 403
    other = browse().sign_in("root")
    for who, path in ((ann, "/auth/account"), (other, f"/users/{ann.name}")):
        expire_confirmation(database, who)
        assert who.delete(path).json()["required"] == "password_confirmation"
    assert ann.user


@pytest.mark.parametrize("recipient", ["missing", "self", "disabled", "deleted"])
def test_transfer_to_an_invalid_recipient_is_refused(ann: Browser, bob: Browser, root: Browser, recipient: str) -> None:
    name = {"missing": "nobody", "self": ann.name}.get(recipient, bob.name)
    if recipient == "disabled":
        root.post(f"/users/{bob.name}/disable")
    if recipient == "deleted":
        bob.delete("/auth/account")
    answer = ann.delete(f"/auth/account?transfer_to={name}")
    said = f"transfer_to: {name} cannot get the notes. Name another user who is not disabled"
    assert (answer.status_code, answer.json()) == (422, {"detail": said})
    assert ann.user
    assert ann.delete("/auth/account?heir=x").status_code == 422
    assert ann.delete("/auth/account?transfer_to=$ne").status_code == 422


def test_last_administrator_cannot_be_deleted(root: Browser) -> None:
    for path in ("/auth/account", "/users/root"):
        answer = root.delete(path)
        assert answer.status_code == 409
        assert answer.json()["detail"].startswith("root is the last administrator")
    assert root.user


def test_deleted_member_stays_in_the_list_until_removed(ann: Browser, bob: Browser) -> None:
    members = [{"name": bob.name, "role": "viewer"}]
    note = make(ann, "Of ann", members=members)
    fresh = make(ann, "Another")
    bob.delete("/auth/account")
    path = f"/notes/{note['id']}/access"
    assert ann.put(path, json={"members": members, "public": True}).status_code == 200
    for refused in (
        ann.put(path, json={"members": members, "owner": bob.name}),
        ann.put(f"/notes/{fresh['id']}/access", json={"members": members}),
    ):
        assert (refused.status_code, refused.json()["unknown"]) == (422, [bob.name])
    assert ann.put(path, json={}).json()["members"] == []


def test_notes_of_deleted_accounts_are_settled_in_the_background(
    database: Database[Json], host: TestClient, ann: Browser, bob: Browser
) -> None:
    """As after a deletion on the command line, and for a note that a request creates after the deletion."""
    parts = parts_of(host)
    note = make(ann, "Of ann")
    run(host, lambda: parts.accounts.users.delete(ann.name, bob.name))
    assert ann.name in unsettled(host)
    run(host, parts.deleted_accounts.settle_all)
    assert bob.get(f"/notes/{note['id']}/access").json()["role"] == "owner"
    principal = Principal(frozenset({key_of(ann.name)}), ann.name)
    late = run(host, lambda: parts.notes.create(principal, NoteIn.model_validate(note_in("Late"))))
    run(host, parts.deleted_accounts.settle_all)
    assert bob.get(f"/notes/{late.id}/access").json()["role"] == "owner"
    assert ann.name in unsettled(host)
    then = datetime.now(UTC) - SETTLING_PERIOD - timedelta(seconds=1)
    database.people.update_one({"_id": ann.name}, {"$set": {"deleted.date": then}})
    run(host, parts.deleted_accounts.settle_all)
    assert ann.name not in unsettled(host)


def test_invites_of_a_deleted_administrator_are_revoked(root: Browser, ann: Browser) -> None:
    assert root.post(f"/users/{ann.name}/promote").status_code == 200
    assert ann.post("/invites").status_code == 201
    assert ann.delete("/auth/account").status_code == 204
    assert root.get("/invites").json() == []
