"""Around all routes: pages of other sites can neither write nor listen, and nobody writes too much."""

from __future__ import annotations

import pytest
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


def test_origins_that_are_allowed(settings: Settings) -> None:
    allowed = settings.model_copy(update={"origins": "https://notes.example http://other.example:8080"})
    with TestClient(create_app(allowed)) as client:
        for origin, status in (
            ("https://notes.example", 201),
            ("http://other.example:8080", 201),
            ("http://notes.example", 403),
        ):
            assert client.post("/notes/", json=note_in(), headers={"Origin": origin}).status_code == status


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
    with TestClient(create_app(settings.model_copy(update={"accepts": 3}))) as client:
        for path in ("/ws", "/ws/", "/sync/1"):
            with client.websocket_connect(path):
                pass
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/sync/1"):
            pass
        for answer in (refused.value, client.get("/events")):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/changes").status_code == 200
