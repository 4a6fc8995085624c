"""Around all routes: nobody writes too much, and answers are taken for what they are."""

from __future__ import annotations

import itertools
import time

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from realtime import create_app
from realtime.settings import Settings
from tests.accounts.people import HERE, Browser, with_accounts
from tests.harness import note_in


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
