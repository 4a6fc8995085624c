"""Sign-up, sign-in and sign-out: access, cookies, and what an anonymous client can find out."""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from pwdlib import PasswordHash
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.auth.password_rules import ADVICE
from realtime.errors import NameTaken
from realtime.settings import Settings
from tests.support.accounts import HERE, PASSWORD, Browse, Browser, accounts_server, bearer, parts_of, run
from tests.support.harness import Json, create_note
from tests.support.http import refused_handshake
from tests.support.workers import open_stores


def test_open_mode_has_no_accounts(client: TestClient) -> None:
    assert client.get("/auth/me").json() == {
        "mode": "open", "sign_up": "closed", "user": None, "failed_sign_ins": None,
    }  # fmt: skip
    body = {"name": "ann", "password": PASSWORD}
    create_note(client)
    for answer in (
        client.post("/auth/sign-up", json=body),
        client.post("/auth/sign-in", json=body),
        client.post("/auth/sign-out"),
        client.post("/auth/token", data={"username": "ann", "password": PASSWORD}),
        client.get("/auth/sessions", headers=bearer("whatever")),
        client.get("/users"),
        client.post("/invites"),
        client.get("/audit"),
        client.get("/notes/1/access"),
        client.put("/notes/1/access", json={}),
        client.post("/auth/links", json={"token": "ln_x"}),
    ):
        assert (answer.status_code, answer.json()) == (404, {"detail": "This server has no accounts"})


def test_user_signs_up_signs_in_and_signs_out(browse: Browse) -> None:
    ann = browse()
    assert ann.user is None
    assert ann.sign_up().user == {"name": ann.name, "admin": False, "via": "session"}
    assert browse().sign_up_status(name=ann.name) == 409
    elsewhere = browse().sign_in(ann.name.upper())
    assert elsewhere.user == ann.user
    assert ann.post("/auth/sign-out").status_code == 204
    assert (ann.user, list(ann.cookies)) == (None, ["realtime-device"])
    assert elsewhere.user is not None


def test_first_user_is_admin(root: Browser, ann: Browser) -> None:
    assert root.user == {"name": "root", "admin": True, "via": "session"}
    assert ann.get("/users").status_code == 403
    assert {name: value for name, value in root.get("/users").json()[0].items() if name != "created_date"} == {
        "name": "root",
        "admin": True,
        "disabled": False,
    }


async def test_concurrent_first_users_include_exactly_one_admin(settings: Settings) -> None:
    async with open_stores(settings) as stores:
        people = await asyncio.gather(*(stores[n % 2].users.add(f"user{n}", "hash", admin=False) for n in range(8)))
        assert [person.admin for person in people].count(True) == 1
        assert sorted(person.admin for person in await stores[0].users.all()) == [False] * 7 + [True]
        with pytest.raises(NameTaken):
            await stores[0].users.add("user3", "another", admin=True)


def test_sign_in_always_creates_a_new_session_secret(browse: Browse, ann: Browser) -> None:
    victim, name = browse(), browse().sign_up().name
    for planted in ("a-secret-that-the-attacker-knows", ann.secret):
        victim.cookies.set("realtime", planted, domain="127.0.0.1")
        victim.sign_in(name)
        assert victim.secret != planted
        assert sorted(victim.cookies) == ["realtime", "realtime-device"]
    first = victim.secret
    victim.sign_in(name)
    assert victim.secret != first
    victim.cookies.set("realtime", first, domain="127.0.0.1")
    assert victim.user is None  # the new session replaced it
    assert ann.user is None  # and the planted one


def test_session_ids_and_swapped_secrets_do_not_authenticate(host: TestClient, ann: Browser, browse: Browse) -> None:
    (session,) = ann.get("/auth/sessions").json()
    thief = browse()
    thief.cookies.set("realtime", session["id"], domain="127.0.0.1")
    assert thief.user is None
    assert thief.get("/auth/sessions", headers=bearer(session["id"])).status_code == 401
    assert thief.get("/auth/sessions", headers=bearer(ann.secret)).status_code == 401  # a cookie is not a token
    thief.cookies.set("realtime", ann.token()["token"], domain="127.0.0.1")
    assert thief.user is None  # and a token is not a cookie


def test_secrets_are_long_and_not_stored(database: Database[Json], ann: Browser) -> None:
    token = ann.token()["token"]
    assert {len(urlsafe_b64decode(f"{secret}=")) for secret in (ann.secret, token.removeprefix("rt_"))} == {256 // 8}
    everything = "".join(str(one) for name in database.list_collection_names() for one in database[name].find())
    assert "'hash': '$argon2id$" in everything
    for secret in (PASSWORD, ann.secret, token):
        assert secret not in everything


@pytest.mark.parametrize(
    ("url", "name", "secure"),
    [
        (HERE, "realtime", False),
        ("http://localhost:8000", "realtime", False),
        ("https://notes.example", "__Host-realtime", True),
    ],
)
def test_session_cookie_has_secure_attributes(browse: Browse, ann: Browser, url: str, name: str, secure: bool) -> None:
    answer = browse(url).try_sign_in(ann.name)
    cookies = answer.headers.get_list("set-cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == [name, f"{name}-device"]
    for cookie in cookies:
        rules = cookie.split("; ")
        assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(rules)
        assert ("Secure" in rules) is secure
        assert not any(rule.startswith("Domain") for rule in rules)
    assert answer.headers["cache-control"] == "no-store"


def test_password_over_plain_http_from_a_remote_host_is_refused(browse: Browse) -> None:
    for url in ("http://notes.example", "http://127.0.0.1.example", "http://10.0.0.1:8000"):
        browser = browse(url)
        for answer in (
            browser.try_sign_in("root"),
            browser.post("/auth/sign-up", json={"name": browser.name, "password": PASSWORD}),
            browser.post("/auth/token", data={"username": "root", "password": PASSWORD}),
        ):
            assert answer.status_code == 400
            assert "HTTPS" in answer.json()["detail"]
            assert "set-cookie" not in answer.headers
    body = {"name": "root", "password": PASSWORD}
    assert browse().post("/auth/sign-in", json=body, headers={"Host": "[::1"}).status_code == 400


def test_sign_in_failures_have_the_same_response_and_work(
    browse: Browse, ann: Browser, root: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    verify = PasswordHash.verify_and_update

    def recorded(self: PasswordHash, password: str, hash: str) -> Any:
        compared.append("$".join(hash.split("$")[:4]))  # kind, version, memory and passes
        return verify(self, password, hash)

    monkeypatch.setattr(PasswordHash, "verify_and_update", recorded)
    root.post(f"/users/{ann.name}/disable")
    answers = [
        browse().try_sign_in("nobody-here"),
        browse().try_sign_in("root", "wrong wrong wrong wrong"),
        browse().try_sign_in(ann.name),
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {
        (401, '{"detail":"The name or the password is wrong"}')
    }
    assert [dict(answer.headers) for answer in answers] == [dict(answers[0].headers)] * 3
    assert len(compared) == 3
    assert len(set(compared)) == 1


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("fourteen chars", "15"),
        ("ﬁﬁﬁﬁﬁﬁﬁ", "15"),
        ("x" * 1025, "1024"),
        ("é" * 600, "1024"),
        ("passwordpassword", "too easy to guess"),
    ],
)
def test_invalid_password_is_refused(browse: Browse, password: str, said: str) -> None:
    answer = browse().post("/auth/sign-up", json={"name": "somebody", "password": password})
    assert answer.status_code == 422
    assert said in answer.text
    assert password not in answer.text


def test_password_of_user_and_server_names_is_refused(browse: Browse) -> None:
    name = "a-rather-long-name"
    said = "password: too easy to guess. Your name and the name of this server are ignored. " + ADVICE
    for password in (
        name,
        name.upper(),
        f" {name}{name} ",
        f"{name} 2026",
        "realtime-notes-realtime",
        "Notebook.Example!",
    ):
        browser = browse("https://notebook.example")
        answer = browser.post("/auth/sign-up", json={"name": name, "password": password})
        assert (answer.status_code, answer.json()["detail"]) == (422, said), password


def test_password_change_refuses_a_password_that_is_easy_to_guess(ann: Browser) -> None:
    answer = ann.post("/auth/password", json={"old": PASSWORD, "new": "passwordpassword"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("password: too easy to guess. Repeats like")
    assert ann.post("/auth/password", json={"old": PASSWORD, "new": PASSWORD}).status_code == 204


def test_password_matches_in_any_unicode_normalization(browse: Browse) -> None:
    ann = browse()
    ann.sign_up(password="Ångström Ångström")
    browse().sign_in(ann.name, "A\u030angstro\u0308m \u212bngstro\u0308m")


@pytest.mark.parametrize("name", ["a", "-ann", ".", "ann bob", "ann@x", "ännchen", "a" * 33, "$where", "", "ann\n"])
def test_invalid_user_name_is_refused(browse: Browse, name: str) -> None:
    assert browse().sign_up_status(name=name) == 422


def test_optional_field_accepts_null(browse: Browse) -> None:
    ann = browse()
    assert ann.sign_up_status(invite=None) == 201
    assert ann.post("/auth/ticket", json={"note": 1.0}).status_code == 200


def test_sign_ups_are_limited_by_address(browse: Browse) -> None:
    one = browse()
    assert [one.sign_up_status(name="a") for _ in range(30)] == [422] * 30
    assert [one.sign_up_status(name="root") for _ in range(21)] == [409] * 20 + [429]
    assert one.sign_in("root").user is not None


def test_invite_allows_one_sign_up(settings: Settings) -> None:
    with accounts_server(settings, sign_up="invite") as host:
        assert host.get("/auth/me").json()["sign_up"] == "invite"
        body = {"name": "ann", "password": PASSWORD}
        answer = host.post("/auth/sign-up", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (403, "You need an invite to sign up")
        run(host, lambda: parts_of(host).accounts.users.add("root", PASSWORD, admin=False))
        root = Browser(host).sign_in("root")
        assert root.user == {"name": "root", "admin": True, "via": "session"}
        invite = root.post("/invites").json()["invite"]
        ann, bob = Browser(host), Browser(host)
        assert ann.sign_up_status(name="root", invite=invite) == 409
        ann.sign_up(invite=invite)  # the rejected name did not use up the invite
        for used in (invite, "never-was-one"):
            assert bob.sign_up_status(invite=used) == 403
        assert ann.post("/invites").status_code == 403
        invite = root.post("/invites").json()["invite"]
        run(host, lambda: parts_of(host).accounts.users.set_disabled("root", True))
        assert bob.sign_up_status(invite=invite) == 403


def test_public_paths_ignore_credentials(browse: Browse) -> None:
    for path in ("/healthz", "/ping", "/openapi.json", "/docs", "/"):
        assert browse().get(path, headers=bearer("nonsense")).status_code == 200


def test_openapi_documents_authentication(host: TestClient, client: TestClient) -> None:
    described = host.get("/openapi.json").json()
    assert described["components"]["securitySchemes"]["password"]["flows"]["password"]["tokenUrl"] == "/auth/token"
    needed: list[dict[str, list[str]]] = [{"password": []}, {"token": []}]
    assert described["paths"]["/auth/sessions"]["get"]["security"] == needed
    assert described["paths"]["/auth/sign-in"]["post"]["security"] == []
    assert described["paths"]["/notes/"]["get"]["security"] == [{}, *needed]
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_session_is_found_in_a_repeated_cookie_header(browse: Browse, ann: Browser) -> None:
    """HTTP/2 splits the header, and not every proxy joins it again (RFC 9113, section 8.2.3)."""
    session, other = ("Cookie", f"realtime={ann.secret}"), ("Cookie", "theme=dark; a=b")
    for lines in ([session, other], [other, session], [other, session, ("Cookie", "c=d")]):
        answer = browse().get("/auth/me", headers=[("Host", "127.0.0.1"), *lines])
        assert answer.json()["user"]["name"] == ann.name


def test_secrets_are_not_logged(browse: Browse, ann: Browser, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "realtime")
    token = ann.token()["token"]
    ticket = ann.post("/auth/ticket", json={"note": 1}).json()["ticket"]
    browse().sign_in(ann.name)
    browse().try_sign_in(ann.name, "a wrong password, but whose?")
    ann.get("/notes/", headers=bearer(token))
    refused_handshake(ann, f"ws://127.0.0.1/sync/1?ticket={ticket}")  # there is no such note
    signed = browse().signed_token(ann.name)
    logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "/auth/sign-in" in logged
    for secret in (PASSWORD, "a wrong password", token, ticket, signed, ann.secret):
        assert secret not in logged
