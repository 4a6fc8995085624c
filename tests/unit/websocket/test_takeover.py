"""The takeover of a WebSocket connection by a handler, after the application accepted it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from realtime.core.frames import framed
from realtime.websocket import connection as websocket_connection
from realtime.websocket.asgi_adapter import DIRECT_EXTENSION
from realtime.websocket.connection import WebSocketConnection
from realtime.websocket.handler import MAX_WAITING_BYTES
from realtime.websocket.handshake import Handshake
from realtime.websocket.http_protocol import HttpProtocol
from tests.faults.raw import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.support.harness import UNIT, eventually
from tests.support.websocket import (
    PARTS,
    Heard,
    Message,
    SingleSocketApp,
    accept_websocket,
    close_of,
    handshake_request,
    open_websocket,
    sent_request,
    serving,
)


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "ABORT_DELAY_SECONDS", 0.1 * UNIT)


class TakeOverApp:
    """An application whose own handler takes over the connection, as soon as it is allowed."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.allowed = asyncio.Event()
        self.allowed.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await self.allowed.wait()
        scope["extensions"][DIRECT_EXTENSION].take_over(self.heard)


async def test_messages_before_the_takeover_are_delivered_first() -> None:
    application = TakeOverApp()
    early = frame(TEXT, b"text") + frame(BINARY, b"bytes") + PARTS
    messages = ["text", b"bytes", "äb", "late"]
    async with serving(application) as (port, _):
        for at in range(len(early) + 1):
            application.heard = Heard()
            application.allowed.clear()
            async with open_websocket(port) as (reader, writer):
                writer.write(early[:at])
                for _turn in range(5):  # of the event loop, in which this is received
                    await asyncio.sleep(0)
                application.allowed.set()
                writer.write(early[at:] + frame(TEXT, b"late") + frame(CLOSE))
                assert (await reader.read()) == framed(PONG, b"p") + framed(CLOSE, b"")
            assert application.heard.messages == messages, at


async def test_frames_before_accept_are_delivered_after_the_takeover() -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await allowed.wait()
        await accept_websocket(scope, receive, send)
        scope["extensions"][DIRECT_EXTENSION].take_over(heard)

    started, allowed, heard = asyncio.Event(), asyncio.Event(), Heard()
    async with (
        serving(SingleSocketApp(act)) as (port, open_connections),
        sent_request(port, handshake_request()) as (reader, writer),
    ):
        await started.wait()
        (handshake,) = (one for one in open_connections if isinstance(one, Handshake))
        writer.write(frame(TEXT, b"early") + frame(TEXT, b"half")[:5])
        await eventually(lambda: not handshake.transport.is_reading())
        allowed.set()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(TEXT, b"half")[5:])
        await eventually(lambda: heard.messages == ["early", "half"])


async def test_takeover_resumes_paused_reading() -> None:
    application = TakeOverApp()
    application.allowed.clear()
    sent: list[Message] = ["a" * MAX_WAITING_BYTES, "b"]
    async with serving(application) as (port, open_connections), open_websocket(port) as (_, writer):
        (connection,) = (one for one in open_connections if isinstance(one, WebSocketConnection))
        writer.write(frame(TEXT, b"a" * MAX_WAITING_BYTES) + frame(TEXT, b"b"))
        await eventually(lambda: not connection.transport.is_reading())
        application.allowed.set()
        await eventually(lambda: application.heard.messages == sent)
        assert connection.transport.is_reading()


async def test_takeover_of_a_lost_connection_reports_the_loss() -> None:
    application = TakeOverApp()
    async with serving(application) as (port, open_connections):
        for last in (frame(CLOSE), b""):
            application.heard = Heard()
            application.allowed.clear()
            async with open_websocket(port) as (_, writer):
                writer.write(frame(TEXT, b"last") + last)
            await eventually(lambda: not open_connections)
            application.allowed.set()
            await eventually(lambda: application.heard.calls == ["lost"])
            assert not open_connections


async def test_failing_early_message_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Message) -> None:
        raise ZeroDivisionError

    application = TakeOverApp()
    application.heard = Heard(fail)
    application.allowed.clear()
    async with serving(application) as (port, open_connections), open_websocket(port) as (reader, writer):
        writer.write(frame(TEXT, b"first") + frame(TEXT, b"second") + frame(PING))
        assert await reader.readexactly(2) == framed(PONG, b"")
        application.allowed.set()
        await eventually(lambda: application.heard.calls[-1:] == ["lost"])
        assert not open_connections
    assert application.heard.messages == ["first"]
    assert "ZeroDivisionError" in caplog.text


async def test_missing_pong_after_the_takeover_closes_the_connection() -> None:
    async with (
        serving(TakeOverApp(), ws_ping_interval=0.05) as (port, open_connections),
        open_websocket(port) as (reader, _),
    ):
        assert (await reader.read()).endswith(close_of(4012, b"no pong"))
        await eventually(lambda: not open_connections)


async def test_handshake_objects_are_freed_after_the_takeover() -> None:
    """They do not need the garbage collector, which would otherwise run after a number of connections."""
    made: list[weakref.ref[Any]] = []

    class Watched(HttpProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            made.append(weakref.ref(self))
            super().connection_made(transport)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        made.append(weakref.ref(scope["extensions"][DIRECT_EXTENSION]))
        await accept_websocket(scope, receive, send)
        scope["extensions"][DIRECT_EXTENSION].take_over(heard)

    heard = Heard()
    gc.disable()
    try:
        async with serving(application, http=Watched) as (port, _), open_websocket(port) as (reader, writer):
            await eventually(lambda: [one() for one in made] == [None, None])
            writer.write(frame(TEXT, b"a") + frame(PING))
            assert await reader.readexactly(2) == framed(PONG, b"")
            assert heard.messages == ["a"]
    finally:
        gc.enable()
