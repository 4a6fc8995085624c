"""Around all routes: pages of other sites can neither write nor listen."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse

from realtime import create_app
from realtime.settings import Settings
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
