"""Middleware of all routes: size limits and response headers."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Message

from realtime import create_app
from realtime.api.middleware import body_limit
from realtime.api.middleware.body_limit import BodyLimit
from realtime.auth.permissions import UNRESTRICTED
from realtime.settings import Settings
from tests.support.accounts import Browser, accounts_server
from tests.support.harness import note_in


@pytest.mark.parametrize("auth", ["open", "accounts"])
def test_responses_have_security_and_cache_headers(settings: Settings, auth: str) -> None:
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


def test_write_rate_is_limited_per_user(settings: Settings) -> None:
    with accounts_server(settings, max_writes_per_second=1) as host:
        ann, bob, stranger = Browser(host).sign_up(), Browser(host).sign_up(), Browser(host)
        answers = [ann.post("/notes/", json=note_in()) for _ in range(8)]
        assert [answer.status_code for answer in answers[:4]] == [201] * 4
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(1 <= int(answer.headers["Retry-After"]) <= 4 for answer in refused)
        assert refused[0].json() == {"detail": "Too many requests. Try again later"}
        assert ann.get("/notes/").status_code == 200
        assert bob.post("/notes/", json=note_in()).status_code == 201
        assert 429 in [stranger.post("/notes/", json=note_in()).status_code for _ in range(8)]


def test_connections_over_the_accept_limit_get_503(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_connects_per_second": 2}))) as client:
        accepted, started = 0, time.monotonic()
        with pytest.raises(WebSocketDenialResponse) as refused:
            for path in itertools.cycle(["/ws", "/ws/", "/sync/1"]):
                with client.websocket_connect(path):
                    accepted += 1
        assert 2 <= accepted <= 2 + 2 * (time.monotonic() - started)
        assert refused.value.status_code == 503
        assert refused.value.headers["Retry-After"] == "1"
        assert client.get("/changes").status_code == 200


def test_flooding_client_exhausts_only_its_share_of_the_accept_limit(settings: Settings) -> None:
    with accounts_server(settings, max_connects_per_second=8, drain_seconds=0) as host:
        ann, flood, other = Browser(host).sign_up(), Browser(host), Browser(host)
        for _ in range(40):  # unauthenticated, so that no connection is opened
            assert flood.get("/events", headers={"Authorization": "Bearer rt_nonsense"}).status_code == 401
        statuses = set()
        for _ in range(40):
            try:
                with flood.websocket_connect("ws://127.0.0.1/ws"):
                    pass
            except WebSocketDenialResponse as refused:
                statuses.add(refused.status_code)
        assert statuses == {503}
        for client in (ann, other):
            with client.open_feed():
                pass


def test_event_stream_over_the_accept_limit_sends_a_retry_delay(settings: Settings) -> None:
    """A browser's EventSource does not reconnect after a status other than 200."""
    with TestClient(create_app(settings.model_copy(update={"max_connects_per_second": 1}))) as client:
        client.head("/events")
        delays = set()
        for path in ("/events", "/events/", "/events?since=none:0"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            match = re.fullmatch(r"retry: (\d+)\n\n", answer.text)
            assert match
            assert 1000 <= int(match[1]) <= 5000
            delays.add(match[1])
        assert len(delays) > 1, "reconnections are spread"


async def _status_of_slow_body(pieces: list[bytes], pause: float) -> int:
    """Send a body in pieces, keep the connection open, and return the status of the response."""
    answer: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(pause)
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Message) -> None:
        answer.append(message)

    async def read(request: Request) -> Response:
        await request.body()
        assert await request.is_disconnected() is False
        assert (await request.receive())["type"] == "http.disconnect"
        return Response()

    app = Starlette(routes=[Route("/", read, methods=["POST"])])
    app.add_middleware(BodyLimit, limit=1000, overrides={})
    await app({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
    return int(answer[0]["status"])


async def test_slow_request_body_returns_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "BODY_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(body_limit, "BYTES_PER_SECOND", 500)
    assert await _status_of_slow_body([b"a"] * 8, 0.1) == 408
    assert await _status_of_slow_body([b"a" * 100] * 8, 0.1) == 200, "each 100 bytes refill 0.2 s"
    assert await _status_of_slow_body([b"a" * 900] + [b"a"] * 8, 0.1) == 408, (
        "a fast start does not extend the time for the rest"
    )
    assert await _status_of_slow_body([b"a"], 0.2) == 200, "there is no timeout after the end of the body"


async def test_large_bodies_are_limited_to_one_per_caller() -> None:
    app = Starlette(routes=[Route("/import", _read, methods=["POST"])])
    app.add_middleware(BodyLimit, limit=10, overrides={"/import": 1000})
    app.state.anyone = UNRESTRICTED
    arrived, end = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        arrived.set()
        await end.wait()
        yield b"end"

    async def send(address: str, content: Any) -> int:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post("/import", content=content)).status_code

    first = asyncio.create_task(send("10.0.0.1", body()))
    await arrived.wait()
    assert await send("10.0.0.1", b"second") == 429
    assert await send("10.0.0.2", b"other") == 200
    end.set()
    assert await first == 200
    assert await send("10.0.0.1", b"second") == 200


async def _read(request: Request) -> Response:
    await request.body()
    return Response()
