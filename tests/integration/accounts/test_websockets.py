"""Authentication of WebSockets: by cookie, by header, by the first frame, and by ticket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession

from realtime.auth.permissions import Principal
from realtime.auth.tokens import digest
from realtime.core.close_codes import CloseCode
from realtime.feed.query import FeedQuery
from realtime.feed.subscriber import Subscriber
from realtime.settings import Settings
from realtime.websocket import authenticate
from tests.support.accounts import HERE, Browse, Browser, bearer, parts_of, with_accounts
from tests.support.harness import Json, create_note
from tests.support.http import read_until_close, refused_handshake

OTHER = "http://notes.example"
FEED = "ws://127.0.0.1/ws"


@pytest.fixture(scope="module")
def module_settings(module_settings: Settings) -> Settings:
    return with_accounts(module_settings, origins=OTHER)


def feed(browser: Browser, **headers: str) -> WebSocketTestSession:
    return browser.websocket_connect(FEED, headers=headers)


@pytest.fixture
def principals(host: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[Principal]:
    """Record the principals that join the feed."""
    joined: list[Principal] = []
    join = parts_of(host).feed.join

    def record(query: FeedQuery, principal: Principal) -> Subscriber:
        joined.append(principal)
        subscriber: Subscriber = join(query, principal)
        return subscriber

    monkeypatch.setattr(parts_of(host).feed, "join", record)
    return joined


@pytest.mark.parametrize(
    ("origin", "signed_in"), [(HERE, True), (OTHER, True), ("https://127.0.0.1", False), (None, False)]
)
def test_cookie_authenticates_only_pages_of_exact_origins(
    principals: list[Principal], ann: Browser, origin: str | None, signed_in: bool
) -> None:
    with feed(ann, **({"Origin": origin} if origin else {})) as socket:
        if not signed_in:
            socket.send_json({"type": "auth"})
        assert socket.receive_json()["type"] == "ready"
        assert [principal.name for principal in principals] == [ann.name if signed_in else None]


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:81", "http://127.0.0.1.example", "null"])
def test_websocket_from_a_foreign_origin_is_refused(ann: Browser, origin: str) -> None:
    for path in ("ws://127.0.0.1/ws", "ws://127.0.0.1/sync/1"):
        assert refused_handshake(ann, path, Origin=origin).status_code == 403


def test_authorization_header_authenticates_a_websocket(
    principals: list[Principal], browse: Browse, ann: Browser
) -> None:
    made = ann.token(scope="read")
    with feed(browse(), **bearer(made["token"])) as socket:
        assert socket.receive_json()["type"] == "ready"
        (principal,) = principals
        assert (principal.name, principal.writes, principal.session) == (ann.name, False, made["id"])
    for path in ("ws://127.0.0.1/ws", "ws://127.0.0.1/sync/1"):
        refused = refused_handshake(browse(), path, **bearer("rt_nonsense"))
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_first_frame_authenticates_once(principals: list[Principal], browse: Browse, ann: Browser) -> None:
    token = ann.token()["token"]
    for frame, name in (({"type": "auth", "token": token}, ann.name), ({"type": "auth"}, None)):
        with feed(browse()) as socket:
            socket.send_json(frame)
            assert socket.receive_json()["type"] == "ready"
            assert [principals.pop().name, *principals] == [name]
            socket.send_json(frame)
            code, frames = read_until_close(socket)
            assert (code, frames[-1]["type"]) == (CloseCode.BAD_FRAME, "error")


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "auth", "token": "rt_wrong"}',
        '{"type": "auth", "token": {"$ne": ""}}',
        '{"type": "pong"}',
        '{"type": "presence", "id": 1, "state": {}}',
        "nonsense",
        '{"type": "auth", "token": "' + "x" * 100_000 + '"}',
    ],
)
def test_invalid_first_frame_closes_the_connection(browse: Browse, text: str) -> None:
    with feed(browse()) as socket:
        socket.send_text(text)
        code, (error,) = read_until_close(socket)
        assert (code, error["type"]) == (CloseCode.NOT_SIGNED_IN, "error")
        assert "rt_wrong" not in error["detail"]
    with feed(browse()) as socket:
        socket.send_bytes(b"{}")
        assert read_until_close(socket)[0] == CloseCode.NOT_SIGNED_IN


def test_connection_without_a_first_frame_is_closed(browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert authenticate.AUTH_TIMEOUT_SECONDS == 10
    monkeypatch.setattr(authenticate, "AUTH_TIMEOUT_SECONDS", 0.05)
    with feed(browse()) as socket:
        code, (error,) = read_until_close(socket)
        assert (code, error["type"]) == (CloseCode.NOT_SIGNED_IN, "error")
    with feed(browse()):
        pass  # a client may disconnect before it authenticates


def test_auth_frame_is_refused_in_open_mode(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "ready"
        socket.send_json({"type": "auth"})
        code, (error,) = read_until_close(socket)
        assert (code, "no accounts" in error["detail"]) == (CloseCode.BAD_FRAME, True)


def test_presence_has_the_name_of_the_user(ann: Browser, note: int) -> None:
    with ann.open_feed(f"?notes={note}") as socket:
        frame = socket.receive_json()
        while frame["type"] != "ready":  # the note's own event may come first
            frame = socket.receive_json()
        socket.send_json({"type": "presence", "id": note, "state": {"name": "root", "color": "red"}})
        assert socket.receive_json()["state"] == {"name": ann.name, "color": "red"}


def enter(browser: Browser, note: int, ticket: str) -> int | None:
    """Enter a room, and return the status if it is rejected."""
    try:
        with browser.websocket_connect(f"ws://127.0.0.1/sync/{note}?ticket={ticket}") as socket:
            socket.receive_bytes()
    except WebSocketDenialResponse as refused:
        return refused.status_code
    return None


def test_ticket_opens_one_room_once(database: Database[Json], browse: Browse, ann: Browser) -> None:
    first, second = (create_note(ann)["id"] for _ in range(2))

    def new(note: int = first) -> str:
        answer = ann.post("/auth/ticket", json={"note": note}).json()
        assert answer["expires_in"] == 30
        ticket: str = answer["ticket"]
        return ticket

    used = new()
    assert enter(browse(), first, used) is None
    assert enter(browse(), first, used) == 401
    other = new(second)
    assert enter(browse(), first, other) == 401
    assert enter(browse(), second, other) == 401  # the failed attempt used it up
    assert enter(browse(), first, "nonsense") == 401
    late = new()
    past = datetime.now(UTC) - timedelta(seconds=1)
    database.passes.update_one({"_id": digest(late)}, {"$set": {"expires_date": past}})
    assert enter(browse(), first, late) == 401
    orphan = new()
    ann.post("/auth/sign-out")
    assert enter(browse(), first, orphan) == 401
    assert browse().post("/auth/ticket", json={"note": 1}).status_code == 401
