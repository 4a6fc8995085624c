"""Heads of requests: limits on size and time, which apply to nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import connect

from realtime.auth import open_connections
from realtime.auth.open_connections import ConnectionLimits, OpenConnections
from realtime.websocket import http_protocol
from realtime.websocket.handshake import Handshake
from realtime.websocket.http_protocol import MAX_HEAD_BYTES, HttpProtocol
from tests.support.harness import UNIT, eventually

HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n"
TIMEOUT_SECONDS = 0.1


async def _application(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "heard"})
        return
    while message.get("more_body") and scope["path"] != "/refused":
        message = await receive()
    await asyncio.sleep(2 * TIMEOUT_SECONDS if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.fixture(autouse=True)
def without_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALL_MARGIN_SECONDS", 0.0)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Yield the port of a server with a short timeout for heads."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    config = uvicorn.Config(_application, lifespan="off", ws=Handshake, log_config=None, access_log=False)
    config.timeout_keep_alive = 3 * TIMEOUT_SECONDS  # type: ignore[assignment]
    config.load()
    make: Any = lambda: HttpProtocol(config, ServerState(), {})  # noqa: E731
    async with await asyncio.get_running_loop().create_server(make, "127.0.0.1") as server:
        yield server.sockets[0].getsockname()[1]


async def _statuses(port: int, *pieces: bytes, pause: float = 0) -> list[str]:
    """Return the statuses of all responses until the server closes the connection, or a timeout."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        async with asyncio.timeout(5 * UNIT):
            while (head := await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200"):
                answers.append("200")
            body = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return answers
    finally:
        writer.transport.abort()
    assert json.loads(body)["detail"]
    assert b"connection: close" in head
    return [*answers, head.split()[1].decode()]


async def test_too_large_head_is_rejected_with_431(port: int) -> None:
    for name, value in ((b"a", b""), (b"a", b"b" * 60_000), (b"a" * 60_000, b"")):
        line = name + b":" + value + b"\r\n"
        lines = [line * (100_000 // len(line) + 1)] * 4
        assert await _statuses(port, HEAD, *lines) == ["431"]
    assert await _statuses(port, b"GET /", *[b"a" * 50_000] * 3) == ["431"]
    more = [b"a:" + b"b" * MAX_HEAD_BYTES] * 4
    assert await _statuses(port, HEAD + b"\r\n", HEAD, *more, pause=TIMEOUT_SECONDS / 5) == ["200", "431"]
    assert await _statuses(port, SLOW + HEAD, *more) == []


async def test_slow_head_is_rejected_with_408(port: int) -> None:
    assert await _statuses(port, HEAD) == ["408"]
    assert await _statuses(port, HEAD + b"\r\n", HEAD, pause=TIMEOUT_SECONDS / 5) == ["200", "408"]
    assert await _statuses(port, *(HEAD[at : at + 1] for at in range(10)), pause=TIMEOUT_SECONDS / 5) == ["408"]


async def test_idle_connection_is_closed_without_a_response(port: int) -> None:
    assert await _statuses(port) == []
    assert await _statuses(port, HEAD + b"\r\n", b"\r\n\r\n") == ["200"]


async def test_head_timeout_does_not_apply_to_websockets(port: int) -> None:
    async with connect(f"ws://127.0.0.1:{port}") as socket:
        await asyncio.sleep(1.5 * TIMEOUT_SECONDS)
        await socket.send("message")
        assert await socket.recv() == "heard"


async def test_unread_body_after_the_response_has_a_timeout(port: int) -> None:
    """The application responds at once, and the peer keeps sending its body."""
    body = HEAD.replace(b"GET / ", b"POST /refused ") + b"Content-Length: 1000\r\n\r\n"
    assert await _statuses(port, body, b"a" * 1000, HEAD + b"\r\n", pause=TIMEOUT_SECONDS / 5) == ["200", "200"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(body + b"a")
    async with asyncio.timeout(5 * UNIT):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(TIMEOUT_SECONDS / 5)
    writer.transport.abort()


async def test_bodies_and_slow_responses_have_no_head_timeout(port: int) -> None:
    body = HEAD + b"Content-Length: 3\r\n\r\n", b"a", b"b", b"c"
    assert (await _statuses(port, *body, HEAD, pause=TIMEOUT_SECONDS * 1.2))[:1] == ["200"]
    assert await _statuses(port, SLOW + SLOW + HEAD, b"\r\n", HEAD) == ["200", "200", "200"]


STALL = 0.3 * UNIT
PIECE = b"x" * 65536


async def _endless(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await asyncio.sleep(0)


@pytest.mark.parametrize(("pieces", "stays"), [(0, False), (1, False), (12, True)])
async def test_peer_that_reads_a_response_too_slowly_is_dropped(
    monkeypatch: pytest.MonkeyPatch, pieces: int, stays: bool
) -> None:
    monkeypatch.setattr(http_protocol, "UNREAD_BYTES_PER_SECOND", 256 * 1024 / STALL)
    async with _serving(_endless) as (state, address):
        reader, writer = await asyncio.open_connection(*address, limit=65536)
        writer.write(HEAD + b"\r\n")
        await reader.readexactly(1024 * 1024)
        for _ in range(12):
            await reader.readexactly(256 * 1024 if pieces > 1 else 1024)
            await asyncio.sleep(STALL / 4)
        assert bool(state.connections) == stays
        await eventually(lambda: not state.connections, within=10)
        writer.transport.abort()


async def test_clients_beyond_the_unread_bytes_limit_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_connections, "MAX_UNREAD_BYTES", 1)
    limits = ConnectionLimits(total=20, guests=20, waiting=10, proxy_waiting=10)
    async with _serving(_endless, open_connections=OpenConnections(limits, ()), stall=60.0) as (state, address):
        readers = [await asyncio.open_connection(*address) for _ in range(3)]
        for _, writer in readers:
            writer.write(HEAD + b"\r\n")
        await eventually(lambda: len(state.connections) == 1)
        for _, writer in readers:
            writer.transport.abort()


@asynccontextmanager
async def _serving(app: Any, **options: Any) -> AsyncIterator[tuple[ServerState, tuple[str, int]]]:
    """Serve an application, and yield the state of the server and its address."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    make: Any = lambda: HttpProtocol(config, state, {}, **{"stall": STALL, **options})  # noqa: E731
    async with await asyncio.get_running_loop().create_server(make, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()[:2]
        yield state, (host, port)
        for task in state.tasks:
            task.cancel()
