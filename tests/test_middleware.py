"""Around all routes: pages of other sites can neither write nor listen, and nobody writes too much."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
from httpx2 import Response
from starlette.testclient import TestClient, WebSocketDenialResponse

from realtime import create_app
from realtime.settings import Settings
from tests.accounts.people import HERE, Browser, with_accounts
from tests.harness import note_in

OTHERS = ["http://evil.example", "null", "http://testserver.evil.example", "http://testserver:8000", "https://"]


@pytest.mark.parametrize("origin", OTHERS)
def test_other_sites_are_refused(client: TestClient, origin: str) -> None:
    answer = client.post("/notes/", json=note_in(), headers={"Origin": origin})
    assert answer.status_code == 403
    assert "origin" in answer.json()["detail"]
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/ws", headers={"Origin": origin}):
        pass
    assert refused.value.status_code == 403
    assert client.get("/notes/", headers={"Origin": origin}).json() == []


def test_own_page_and_programs_are_not_touched(client: TestClient) -> None:
    for headers in ({}, {"Origin": "http://testserver"}):
        assert client.post("/notes/", json=note_in(), headers=headers).status_code == 201
        with client.websocket_connect("/ws", headers=headers) as socket:
            assert socket.receive_json()["type"] == "ready"


OWN, ALLOWED, EVIL = "http://testserver", "https://notes.example", "http://evil.example"


@pytest.fixture(scope="module")
def others(module_settings: Settings) -> Iterator[TestClient]:
    """A server that lets in pages of other origins."""
    settings = module_settings.model_copy(update={"origins": f"{ALLOWED} http://other.example:8080"})
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.mark.parametrize(
    ("site", "origin", "let_in"),
    [
        (None, None, True),  # a program
        (None, OWN, True),  # an old browser
        (None, ALLOWED, True),
        (None, "http://other.example:8080", True),
        (None, EVIL, False),
        (None, "null", False),
        (None, "http://notes.example", False),
        (None, ALLOWED + ".evil.example", False),
        ("same-origin", OWN, True),
        ("same-origin", None, True),
        ("same-origin", "https://public.example", True),  # a proxy calls this server by another name
        ("none", None, True),  # a person, not a page
        ("none", "null", True),
        ("same-site", None, False),
        ("same-site", "http://app.testserver", False),
        ("same-site", ALLOWED, True),
        ("cross-site", None, False),
        ("cross-site", EVIL, False),
        ("cross-site", "null", False),
        ("cross-site", OWN, False),
        ("cross-site", ALLOWED, True),
        ("", EVIL, False),
        ("something-new", None, False),
    ],
)
def test_who_may_write_and_connect(others: TestClient, site: str | None, origin: str | None, let_in: bool) -> None:
    sent = {"Sec-Fetch-Site": site, "Origin": origin}
    headers = {name: value for name, value in sent.items() if value is not None}
    answer = others.post("/notes/", json=note_in(), headers=headers)
    assert answer.status_code == (201 if let_in else 403)
    assert others.get("/ping", headers=headers).status_code == 200
    if let_in:
        with others.websocket_connect("/ws", headers=headers) as socket:
            assert socket.receive_json()["type"] == "ready"
    else:
        with pytest.raises(WebSocketDenialResponse), others.websocket_connect("/ws", headers=headers):
            pass


def cors(answer: Response) -> dict[str, str]:
    """What an answer tells a browser about other origins."""
    prefix = "access-control-"
    return {name.removeprefix(prefix): value for name, value in answer.headers.items() if name.startswith(prefix)}


def preflight(client: TestClient, origin: str, method: str = "PUT", headers: str = "if-match,content-type") -> Response:
    """What a browser asks before it sends something for a page of another origin."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/notes/1/", headers={"Origin": origin, **asked})


def test_pages_of_other_origins_see_nothing_unless_these_are_named(client: TestClient, others: TestClient) -> None:
    for origin in (OWN, ALLOWED, EVIL, "null"):
        assert cors(client.get("/notes/", headers={"Origin": origin})) == {}
        assert cors(preflight(client, origin)) == {}
    for origin in (OWN, EVIL, "null", "http://notes.example", ALLOWED + ".evil.example"):
        answer = others.get("/notes/", headers={"Origin": origin})
        assert "allow-origin" not in cors(answer)
        assert "Origin" in answer.headers["Vary"]
        assert "allow-origin" not in cors(preflight(others, origin))


def test_pages_of_named_origins_may_do_what_the_own_page_may(others: TestClient) -> None:
    answer = others.post("/notes/", json=note_in(), headers={"Origin": ALLOWED})
    assert cors(answer) == {
        "allow-origin": ALLOWED,
        "allow-credentials": "true",
        "expose-headers": "ETag, Link, Location, Retry-After, X-Cursor, X-Total-Count",
    }
    assert answer.headers["Vary"] == "Origin"
    for refused in (
        others.get("/notes/0/", headers={"Origin": ALLOWED}),
        others.get("/x", headers={"Origin": ALLOWED}),
    ):
        assert cors(refused)["allow-origin"] == ALLOWED
    headers = "authorization,content-type,idempotency-key,if-match,if-none-match,last-event-id"
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        asked = preflight(others, ALLOWED, method, headers)
        assert asked.status_code == 200
        assert cors(asked)["allow-origin"] == ALLOWED
        assert cors(asked)["allow-credentials"] == "true"
    assert preflight(others, ALLOWED, "PUT", "x-other").status_code == 400
    assert preflight(others, ALLOWED, "TRACE").status_code == 400


@pytest.mark.parametrize("auth", ["open", "accounts"])
def test_answers_are_taken_for_what_they_are(settings: Settings, auth: str) -> None:
    with TestClient(create_app(settings.model_copy(update={"auth": auth}))) as client:
        for path in ("/ping", "/notes/", "/notes/9/", "/notes/0/", "/nothing", "/openapi.json", "/metrics", "/export"):
            answer = client.get(path)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers.get("Cache-Control") == (None if auth == "open" else "no-store")
            json = answer.headers["Content-Type"] == "application/json"
            policy = "default-src 'none'; frame-ancestors 'none'" if json else None
            assert answer.headers.get("Content-Security-Policy") == policy
        page = client.get("/")
        assert page.headers["Cache-Control"] == "no-cache"
        for name in ("X-Content-Type-Options", "Referrer-Policy", "Content-Security-Policy", "Cache-Control"):
            assert len(page.headers.get_list(name)) == 1


def test_writes_are_limited_for_each_user(settings: Settings) -> None:
    with TestClient(create_app(with_accounts(settings, writes=1)), base_url=HERE) as host:
        ann, bob, stranger = Browser(host).sign_up(), Browser(host).sign_up(), Browser(host)
        answers = [ann.post("/notes/", json=note_in()) for _ in range(8)]
        assert [answer.status_code for answer in answers[:4]] == [201] * 4
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(1 <= int(answer.headers["Retry-After"]) <= 4 for answer in refused)
        assert refused[0].json() == {"detail": "Too many requests, try again later"}
        assert ann.get("/notes/").status_code == 200
        assert bob.post("/notes/", json=note_in()).status_code == 201
        assert 429 in [stranger.post("/notes/", json=note_in()).status_code for _ in range(8)]


def test_a_herd_is_let_in_little_by_little(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"accepts": 2}))) as client:
        let_in, started = 0, time.monotonic()
        with pytest.raises(WebSocketDenialResponse) as refused:
            for path in itertools.cycle(["/ws", "/ws/", "/sync/1"]):
                with client.websocket_connect(path):
                    let_in += 1
        assert 2 <= let_in <= 2 + 2 * (time.monotonic() - started)
        for answer in (refused.value, client.get("/events")):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/changes").status_code == 200
