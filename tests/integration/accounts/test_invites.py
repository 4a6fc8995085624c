"""Invites: listing, revocation, and rejection of revoked invites."""

from __future__ import annotations

from datetime import datetime, timedelta

from tests.support.accounts import Browse, Browser, bearer

CHANGES = {"sign_up": "invite"}


def test_invites_are_listed_until_they_are_used_or_revoked(browse: Browse, root: Browser) -> None:
    first, second = root.post("/invites").json(), root.post("/invites").json()
    listed = root.get("/invites")
    assert listed.headers["cache-control"] == "no-store"
    assert [one["id"] for one in listed.json()] == [second["id"], first["id"]]
    assert {one["by"] for one in listed.json()} == {"root"}
    dates = [datetime.fromisoformat(listed.json()[0][name]) for name in ("created_date", "expires_date")]
    assert dates[1] - dates[0] == timedelta(days=7)
    assert first["invite"] not in listed.text
    ann = browse().sign_up(invite=first["invite"])
    assert [one["id"] for one in root.get("/invites").json()] == [second["id"]]
    assert root.delete(f"/invites/{second['id']}").status_code == 204
    assert root.get("/invites").json() == []
    assert browse().sign_up_status(invite=second["invite"]) == 403
    for id in (first["id"], second["id"], "0" * 32):
        gone = root.delete(f"/invites/{id}")
        assert (gone.status_code, gone.json()["detail"][:16]) == (404, "Invite not found")
    assert ann.get("/invites").status_code == 403
    assert ann.delete(f"/invites/{second['id']}").status_code == 403
    entries = root.get("/audit", params={"who": "root", "action": "invite.revoke"}).json()
    assert [(one["target"], one["ok"]) for one in entries] == [(second["id"], True)]


def test_read_only_token_lists_invites_but_cannot_revoke_them(browse: Browse, root: Browser) -> None:
    made = root.post("/invites").json()
    read_only = bearer(root.token(scope="read")["token"])
    assert [one["id"] for one in browse().get("/invites", headers=read_only).json()] == [made["id"]]
    assert browse().delete(f"/invites/{made['id']}", headers=read_only).status_code == 403
    assert browse().get("/invites").status_code == 401
    assert root.delete("/invites/not-an-id").status_code == 422
