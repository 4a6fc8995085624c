"""Sessions, tokens and tickets: what they give access to, and how they end."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import jwt
import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.auth.sign_in_guard import ClientInfo
from realtime.auth.tokens import TokenClaims, make_jwt, read_jwt
from realtime.errors import NotSignedIn
from realtime.notes.service import MAX_BATCH_NOTES
from realtime.store.lists import EXPORT_BATCH_NOTES
from realtime.transfer import bundle
from tests.support.accounts import PASSWORD, Browse, Browser, bearer, parts_of, run, slowly
from tests.support.harness import Json, note_in
from tests.support.http import pages_of

OTHER = "another horse and another staple"


def test_sessions_are_listed_and_ended(browse: Browse, ann: Browser) -> None:
    phone = browse()
    phone.headers["User-Agent"] = "Phone/1.0 " + "x" * 300
    phone.sign_in(ann.name)
    listed = ann.get("/auth/sessions").json()
    assert [one["current"] for one in listed] == [False, True]
    assert listed[0]["agent"] == ("Phone/1.0 " + "x" * 300)[:200]
    assert listed[0]["address"].startswith("10.0.")
    assert ann.delete(f"/auth/sessions/{listed[0]['id']}").status_code == 204
    assert phone.user is None
    assert ann.delete(f"/auth/sessions/{listed[0]['id']}").json() == {"detail": "Session not found"}
    third = browse().sign_in(ann.name)
    assert ann.delete("/auth/sessions").status_code == 204
    assert third.user is None
    assert [one["current"] for one in ann.get("/auth/sessions").json()] == [True]


def test_user_cannot_end_sessions_of_another_user(ann: Browser, bob: Browser) -> None:
    (session,) = ann.get("/auth/sessions").json()
    token = ann.token()
    assert bob.delete(f"/auth/sessions/{session['id']}").status_code == 404
    assert bob.delete(f"/auth/tokens/{token['id']}").status_code == 404
    assert ann.delete(f"/auth/sessions/{token['id']}").status_code == 404
    assert ann.user is not None


def test_password_change_ends_other_sessions_but_keeps_api_tokens(browse: Browse, ann: Browser) -> None:
    phone = browse().sign_in(ann.name)
    token = ann.token()["token"]
    signed = browse().signed_token(ann.name)
    assert ann.post("/auth/password", json={"old": PASSWORD, "new": OTHER}).status_code == 204
    assert ann.user
    assert not phone.user
    assert browse().get("/auth/me", headers=bearer(signed)).status_code == 401
    assert browse().get("/auth/me", headers=bearer(token)).status_code == 200
    assert browse().try_sign_in(ann.name).status_code == 401
    browse().sign_in(ann.name, OTHER)


def test_password_change_revokes_api_tokens_on_request(browse: Browse, ann: Browser) -> None:
    phone, token = browse().sign_in(ann.name), ann.token()["token"]
    wrong = {"old": OTHER, "new": OTHER, "revoke_tokens": True}
    assert ann.post("/auth/password", json=wrong).status_code == 403
    assert browse().get("/auth/me", headers=bearer(token)).status_code == 200
    assert ann.post("/auth/password", json={**wrong, "old": PASSWORD}).status_code == 204
    assert ann.get("/auth/tokens").json() == []
    assert browse().get("/auth/me", headers=bearer(token)).status_code == 401
    assert not phone.user
    assert ann.user
    assert browse().get("/auth/me", headers=bearer(ann.token()["token"])).status_code == 200


def test_password_change_requires_the_old_password(browse: Browse, ann: Browser) -> None:
    phone = browse().sign_in(ann.name)
    assert ann.post("/auth/password", json={"old": OTHER, "new": OTHER}).json() == {
        "detail": "The old password is wrong"
    }
    assert ann.post("/auth/password", json={"old": PASSWORD, "new": "too short"}).status_code == 422
    assert phone.user
    browse().sign_in(ann.name)


def test_disabled_user_loses_all_sessions_and_tokens(browse: Browse, root: Browser, ann: Browser) -> None:
    token = ann.token()["token"]
    signed = browse().signed_token(ann.name)
    assert root.post(f"/users/{ann.name.upper()}/disable").json()["disabled"] is True
    assert not ann.user
    for one in (token, signed):
        assert browse().get("/auth/me", headers=bearer(one)).status_code == 401
    assert browse().try_sign_in(ann.name).status_code == 401
    assert root.post(f"/users/{ann.name}/enable").json()["disabled"] is False
    browse().sign_in(ann.name)
    assert browse().get("/auth/me", headers=bearer(token)).status_code == 401
    assert root.post("/users/root/disable").status_code == 403
    assert root.post("/users/nobody/disable").json() == {"detail": "User not found"}


def test_api_token_authenticates_until_it_is_revoked(browse: Browse, ann: Browser) -> None:
    made = ann.token(scope="read", expires_days=1)
    assert made["token"].startswith("rt_")
    program = browse()
    assert program.get("/auth/me", headers=bearer(made["token"])).json()["user"]["via"] == "token"
    (listed,) = ann.get("/auth/tokens").json()
    assert listed["used_date"] is not None
    assert {**listed, "used_date": None} == {name: value for name, value in made.items() if name != "token"}
    for method, path in (("GET", "/auth/sessions"), ("POST", "/auth/tokens"), ("DELETE", "/auth/sessions")):
        body = {"name": "heir"} if method == "POST" else None
        assert program.request(method, path, json=body, headers=bearer(made["token"])).status_code == 403
    assert ann.delete(f"/auth/tokens/{made['id']}").status_code == 204
    answer = program.get("/notes/", headers=bearer(made["token"]))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert ann.get("/auth/tokens").json() == []


def test_read_only_token_of_an_admin_cannot_write(browse: Browse, root: Browser, ann: Browser) -> None:
    read_only = bearer(root.token(scope="read")["token"])
    assert browse().get("/users", headers=read_only).status_code == 200
    assert browse().post(f"/users/{ann.name}/disable", headers=read_only).status_code == 403


def test_signed_token_authenticates_until_its_session_ends(browse: Browse, ann: Browser) -> None:
    program = browse()
    grant = program.post("/auth/token", data={"grant_type": "password", "username": ann.name, "password": PASSWORD})
    assert grant.headers["cache-control"] == "no-store"
    token = grant.json()["access_token"]
    assert {**grant.json(), "access_token": ""} == {
        "access_token": "",
        "token_type": "bearer",
        "expires_in": 900,
        "scope": "read write",
    }
    assert program.get("/auth/me", headers=bearer(token)).json()["user"]["name"] == ann.name
    (session,) = [one for one in ann.get("/auth/sessions").json() if not one["current"]]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["sid"]) == (ann.name, session["id"])
    assert ann.delete(f"/auth/sessions/{session['id']}").status_code == 204
    assert program.get("/auth/me", headers=bearer(token)).status_code == 401


def test_read_only_signed_token_cannot_write(browse: Browse, ann: Browser) -> None:
    form = {"username": ann.name, "password": PASSWORD, "scope": "read"}
    read_only = bearer(browse().post("/auth/token", data=form).json()["access_token"])
    assert browse().get("/auth/me", headers=read_only).json()["user"]["name"] == ann.name
    for path, body in (("/auth/tokens", {"name": "heir"}), ("/auth/password", {"old": PASSWORD, "new": OTHER})):
        assert browse().post(path, json=body, headers=read_only).status_code == 403


@pytest.mark.parametrize("scheme", ["Basic Og==", "Digest x", "", "Bearer"])
def test_authorization_header_without_a_bearer_token_is_ignored(browse: Browse, ann: Browser, scheme: str) -> None:
    form = {"username": ann.name, "password": PASSWORD}  # Swagger UI sends a Basic header along
    assert browse().post("/auth/token", data=form, headers={"Authorization": scheme}).status_code == 200


def test_forged_token_is_rejected(host: TestClient, browse: Browse, ann: Browser) -> None:
    key: str = run(host, parts_of(host).authenticator.key)
    mine = ann.get("/auth/sessions").json()[0]["id"]
    now = datetime.now(UTC)
    good = {"sub": ann.name, "sid": mine, "jti": "x", "exp": now + timedelta(minutes=1)}
    assert browse().get("/auth/me", headers=bearer(jwt.encode(good, key, "HS256"))).status_code == 200
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode().rstrip("=")
    forged = [
        jwt.encode(good, "x" * 64, "HS256"),
        jwt.encode(good, key, "HS512"),
        jwt.encode(good, None, "none"),
        jwt.encode({**good, "sub": "root"}, key, "HS256"),
        jwt.encode({**good, "sid": "0" * 32}, key, "HS256"),
        jwt.encode({**good, "sid": {"$ne": ""}}, key, "HS256"),
        jwt.encode({**good, "exp": now - timedelta(seconds=1)}, key, "HS256"),
        jwt.encode({name: value for name, value in good.items() if name != "exp"}, key, "HS256"),
        f"{none}.{make_jwt(key, TokenClaims(ann.name, mine)).split('.')[1]}.",
        "rt_" + "x" * 43,
        "..",
        "x" * 9000,
    ]
    for token in forged:
        assert browse().get("/auth/me", headers=bearer(token)).status_code == 401, token
    with pytest.raises(ValueError, match="Signature"):
        read_jwt("another key of more than 32 bytes length", make_jwt(key, TokenClaims("ann", mine)))


def test_session_expires_without_use(database: Database[Json], host: TestClient, ann: Browser) -> None:
    parts = parts_of(host)
    id = ann.get("/auth/sessions").json()[0]["id"]
    now = datetime.now(UTC)

    async def forget() -> None:
        parts.authenticator.forget([id])

    def age(**fields: datetime) -> None:
        database.sessions.update_one({"_id": id}, {"$set": fields})
        run(host, forget)

    age(used_date=now - timedelta(days=13), expires_date=now + timedelta(days=1))
    assert ann.user is not None
    (listed,) = ann.get("/auth/sessions").json()
    left = datetime.fromisoformat(listed["expires_date"]) - now
    assert timedelta(days=13.9) < left < timedelta(days=14.1)
    near = now + timedelta(hours=1)
    age(used_date=now - timedelta(days=13), ends_date=near)
    assert ann.user is not None
    left = datetime.fromisoformat(ann.get("/auth/sessions").json()[0]["expires_date"]) - now
    assert left < timedelta(hours=1.1)
    age(expires_date=now - timedelta(seconds=1))
    assert ann.user is None


def test_audit_log_lists_account_actions_for_administrators(browse: Browse, root: Browser, ann: Browser) -> None:
    assert ann.get("/audit").status_code == 403
    assert browse().get("/audit").status_code == 401
    browse().try_sign_in(ann.name, "wrong wrong wrong wrong")
    browse().try_sign_in("perhaps-a-password")
    ann.delete(f"/auth/tokens/{ann.token()['id']}")
    ann.post("/auth/sign-out")
    mine = root.get("/audit", params={"who": ann.name}).json()
    assert [(entry["action"], entry["ok"]) for entry in mine] == [
        ("sign-out", True), ("token.end", True), ("token.make", True), ("sign-in", False), ("sign-up", True),
    ]  # fmt: skip
    assert mine[1]["target"] == mine[2]["target"]
    assert all(entry["address"].startswith("10.0.") for entry in mine)
    everything = root.get("/audit", params={"limit": 1000})
    assert "link" not in everything.headers
    assert "perhaps-a-password" not in everything.text
    pages = list(pages_of(root, "/audit?limit=3&action=sign-up"))
    assert all(len(page) <= 3 for page in pages)
    sign_ups = [entry for entry in everything.json() if entry["action"] == "sign-up"]
    assert [entry for page in pages for entry in page] == sign_ups
    for after in ("nonsense", "WyJpZCIsMSwxXQ", "WyJhdWRpdCIseyIkbmUiOjF9LDBd"):
        assert root.get("/audit", params={"after": after}).status_code == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [("/notes/", note_in()), ("/auth/tokens", {"name": "to stay"}), ("/auth/ticket", {"note": 1})],
)
def test_request_body_after_the_session_ended_is_refused(host: TestClient, ann: Browser, path: str, body: Json) -> None:
    async def end() -> None:
        await parts_of(host).authenticator.end(ann.name)

    assert slowly(ann, "POST", path, body, end).startswith(b"401 ")


def test_export_stops_when_its_session_ends(host: TestClient, ann: Browser) -> None:
    for _ in range(EXPORT_BATCH_NOTES + 1):
        ann.post("/notes/", json=note_in())

    async def end() -> None:
        await parts_of(host).authenticator.end(ann.name)

    exported = slowly(ann, "GET", "/export", None, end)
    assert exported.startswith(b"200 PK")
    assert not zipfile.is_zipfile(io.BytesIO(exported[4:]))


def test_import_stops_when_its_session_ends(host: TestClient, ann: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = parts_of(host).notes
    made = 0

    async def import_notes(*arguments: Any) -> AsyncIterator[Sequence[int]]:
        nonlocal made
        async for ids in import_all(*arguments):
            made += len(ids)
            await parts_of(host).authenticator.end(ann.name)
            yield ids

    import_all = notes.import_notes
    monkeypatch.setattr(notes, "import_notes", import_notes)
    files = [("files", (f"{n}.md", b"# A note\n\nwith words")) for n in range(3 * MAX_BATCH_NOTES)]
    assert ann.post("/import", files=files).status_code == 401
    assert made == MAX_BATCH_NOTES


def test_import_does_not_start_after_its_session_ended(
    database: Database[Json], host: TestClient, ann: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = bundle.check

    def read(*arguments: Any, **options: Any) -> Any:  # in a thread
        run(host, partial(parts_of(host).authenticator.end, ann.name))
        return check(*arguments, **options)

    monkeypatch.setattr(bundle, "check", read)
    assert ann.post("/import", files={"files": ("one.md", b"# A note\n\nwith words")}).status_code == 401
    assert database.notes.count_documents({"access.owner": ann.name}) == 0


def test_token_is_not_created_for_an_ended_session(host: TestClient, ann: Browser) -> None:
    async def make() -> None:
        parts = parts_of(host)
        principal = await parts.authenticator.of_secret(ann.secret, None)
        await parts.accounts.users.reset(ann.name, "another password of hers")
        with pytest.raises(NotSignedIn):
            await parts.accounts.make_token(principal, "to stay", 366, ClientInfo(), writes=True)

    run(host, make)
