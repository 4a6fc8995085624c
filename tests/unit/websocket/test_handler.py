"""A client whose messages take time: they are handled in order and bounded, and an error disconnects it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect

from realtime import create_app
from realtime.core.close_codes import CloseCode
from realtime.core.frames import CLOSE, TEXT, framed
from realtime.core.turns import Turns
from realtime.errors import BusUnavailable
from realtime.server.serve import listen
from realtime.settings import Settings
from realtime.websocket.connection import WebSocketConnection
from realtime.websocket.handler import MAX_WAITING_BYTES, MAX_WAITING_MESSAGES, Handler
from realtime.websocket.handshake import Handshake
from realtime.websocket.http_protocol import HttpProtocol
from tests.faults.raw import frame
from tests.support.harness import eventually, note_in, rest_client
from tests.support.websocket import Memory


class Slow(Handler):
    """Handles most messages one by one, each with a permit; some at once, and some with an error."""

    expected = (BusUnavailable,)

    def __init__(self, connection: WebSocketConnection) -> None:
        super().__init__(connection)
        self.handled: list[str | bytes] = []
        self.permits = asyncio.Semaphore(0)
        self.ends: list[str] = []

    def handle(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        if message in ("refused", "broken"):
            self._fail(str(message))
        if message == "now":
            self.handled.append(message)
            return None
        return self._handle_later(message)

    async def _handle_later(self, message: str | bytes) -> None:
        await self.permits.acquire()
        if isinstance(message, str) and message.startswith("late "):
            self._fail(message[5:])
        self.handled.append(message)

    def _fail(self, how: str) -> None:
        if how == "panic":
            raise _Panic
        raise BusUnavailable("away") if how == "refused" else ZeroDivisionError

    def failed(self, error: Exception) -> None:
        self.ends.append("failed")
        self.connection.close(CloseCode.RESUME, "")

    def full(self) -> None:
        assert self.connection.closing

    def writable(self) -> None:
        raise AssertionError

    def released(self) -> None:
        self.ends.append("left")


class _Panic(BaseException):
    """A ``BaseException``, as pyo3 raises on a panic."""


def open_session() -> tuple[Slow, WebSocketConnection, Memory]:
    transport = Memory()
    connection = WebSocketConnection(transport, set(), None, Turns())
    session = Slow(connection)
    connection.set_handler(session)
    return session, connection, transport


def allow(session: Slow, times: int) -> None:
    for _ in range(times):
        session.permits.release()


async def test_messages_are_handled_in_order_and_many_pause_reading() -> None:
    session, connection, transport = open_session()
    sent = [f"message {number}" if number % 3 else "now" for number in range(MAX_WAITING_MESSAGES + 2)]
    sent[0] = "first"
    connection.data_received(b"".join(frame(TEXT, text.encode()) for text in sent[:-1]))
    assert transport.is_reading()
    connection.data_received(frame(TEXT, sent[-1].encode()))
    assert not transport.is_reading()
    allow(session, 1)
    await eventually(lambda: session.handled == ["first"])
    assert not transport.is_reading()
    allow(session, len(sent))
    await eventually(lambda: transport.reading)
    assert session.handled == sent
    connection.data_received(frame(TEXT, b"now"))
    assert session.handled[-1] == "now"
    assert session.ends == []


async def test_reading_pauses_while_large_messages_wait() -> None:
    session, connection, transport = open_session()
    large = b"x" * (MAX_WAITING_BYTES + 1)
    connection.data_received(frame(TEXT, large))
    assert transport.is_reading(), "it is being handled and does not wait"
    connection.data_received(frame(TEXT, large))
    assert not transport.is_reading()
    allow(session, 2)
    await eventually(lambda: transport.reading)
    assert len(session.handled) == 2
    connection.data_received(frame(TEXT, b"a") + frame(TEXT, b"b"))
    assert transport.is_reading(), "handled messages are no longer counted"


@pytest.mark.parametrize("text", ["refused", "late refused"])
async def test_expected_error_closes_the_connection_and_stops_handling(text: str) -> None:
    session, connection, transport = open_session()
    connection.data_received(b"".join(frame(TEXT, one.encode()) for one in ("one", text, "two")))
    connection.data_received(b"".join(frame(TEXT, b"more") for _ in range(MAX_WAITING_MESSAGES)))
    assert not transport.is_reading()
    allow(session, 9)
    await eventually(lambda: session.ends == ["failed"])
    assert transport.written == framed(CLOSE, CloseCode.RESUME.to_bytes(2))
    assert transport.is_reading(), "to receive the confirmation"
    connection.data_received(frame(TEXT, b"three") + frame(CLOSE, CloseCode.RESUME.to_bytes(2)))
    assert transport.closed
    connection.connection_lost(None)
    assert session.handled == ["one"]
    assert session.ends == ["failed", "left"]


@pytest.mark.parametrize("text", ["broken", "late broken", "late panic"])
async def test_unexpected_error_aborts_the_connection_and_is_logged(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, connection, transport = open_session()
    connection.data_received(frame(TEXT, b"one") + frame(TEXT, text.encode()) + frame(TEXT, b"two"))
    allow(session, 9)
    await eventually(lambda: transport.closed)
    connection.connection_lost(None)
    assert session.handled == ["one"]
    assert session.ends == ["left"]
    assert "ZeroDivisionError" in caplog.text or "_Panic" in caplog.text


@pytest.mark.parametrize("turns", [0, 1])
async def test_lost_connection_cancels_the_pending_message(turns: int) -> None:
    session, connection, transport = open_session()
    connection.data_received(frame(TEXT, b"one") + frame(TEXT, b"two"))
    (task,) = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(turns):
        await asyncio.sleep(0)
    transport.abort()
    connection.connection_lost(ConnectionResetError())
    allow(session, 2)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session.handled == []
    assert session.ends == ["left"]


# In the whole application


class _Fails:
    """Raises an error when it is called, or when it is awaited."""

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once

    def __call__(self, *_: Any) -> Coroutine[Any, Any, None]:
        if self._at_once:
            raise _Panic
        return self._later()

    async def _later(self) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError


async def test_failed_and_aborted_clients_leave_no_state_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, http=HttpProtocol, ws=Handshake, log_config=None))
    with closing(listen("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        await eventually(lambda: server.started)
        url = f"127.0.0.1:{listener.getsockname()[1]}"
        async with rest_client(f"http://{url}") as rest:
            await rest.post("/notes/", json=note_in())
        parts = app.state.services

        def clients() -> list[int]:
            samples = dict(line.rsplit(" ", 1) for line in parts.metrics.render().decode().splitlines())
            counted = [int(float(samples[f'realtime_clients{{transport="{way}"}}'])) for way in ("ws", "sync")]
            return [parts.feed.subscriber_count, len(parts.rooms.peers()), *counted]

        async def send_until_closed(path: str, message: str | bytes) -> None:
            socket = await connect(f"ws://{url}{path}")
            await socket.send(message)
            await socket.wait_closed()
            await eventually(lambda: clients() == [0, 0, 0, 0])

        for at_once in (False, True):
            caplog.clear()
            monkeypatch.setattr("realtime.websocket.feed_endpoint.FeedHandler.handle", _Fails(at_once=at_once))
            await send_until_closed("/ws", "{}")
            monkeypatch.setattr("realtime.rooms.room.Room.receive", _Fails(at_once=at_once))
            await send_until_closed("/sync/1", b"\0\0")
            assert caplog.text.count("_Panic" if at_once else "ZeroDivisionError") >= 2
        monkeypatch.setattr("realtime.rooms.room.Room.join", _Fails(at_once=True))
        await send_until_closed("/sync/1", b"\0\0")
        monkeypatch.undo()
        for path in ("/ws", "/ws?since=e:0", "/sync/1", "/sync/1"):  # aborted at various times while joining
            for turns in range(0, 30, 3):
                socket = await connect(f"ws://{url}{path}")
                for _ in range(turns):
                    await asyncio.sleep(0)
                socket.transport.abort()
        await eventually(lambda: clients() == [0, 0, 0, 0])
        server.should_exit = True
        await running
