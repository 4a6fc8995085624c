"""Handshakes: rejections, the ASGI interface, and the start of a session."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import Any

import pytest
from uvicorn.protocols.utils import ClientDisconnected

from realtime.core.frames import framed
from realtime.websocket import connection as websocket_connection
from realtime.websocket.asgi_adapter import DIRECT_EXTENSION
from realtime.websocket.connection import WebSocketConnection
from realtime.websocket.handler import MAX_WAITING_BYTES, MAX_WAITING_MESSAGES
from realtime.websocket.handshake import MAX_TARGET_BYTES, Handshake, HandshakeRefused, accept_value
from tests.faults.raw import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.support.harness import UNIT, eventually
from tests.support.websocket import (
    ACCEPT,
    KEY,
    SingleSocketApp,
    accept_websocket,
    close_of,
    handshake_request,
    open_websocket,
    sent_request,
    serving,
)

INVALID_HANDSHAKES: dict[str, tuple[int, str, bytes]] = {
    "POST": (400, "GET", handshake_request(first=b"POST / HTTP/1.1")),
    "HEAD": (400, "GET", handshake_request(first=b"HEAD / HTTP/1.1")),
    "HTTP/1.0": (400, "HTTP/1.1", handshake_request(first=b"GET / HTTP/1.0")),
    "long target": (400, "8192", handshake_request(first=b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1")),
    "body": (400, "body", handshake_request(b"Content-Length: 1")),
    "chunks": (400, "body", handshake_request(b"Transfer-Encoding: chunked")[:-2] + b"\r\n0\r\n\r\n"),
    "no version": (426, "13", handshake_request(version=b"")),
    "old version": (426, "13", handshake_request(version=b"Sec-WebSocket-Version: 8")),
    "two versions": (426, "13", handshake_request(b"Sec-WebSocket-Version: 13")),
    "list of versions": (426, "13", handshake_request(version=b"Sec-WebSocket-Version: 13, 8")),
    "no key": (400, "Key", handshake_request(key=b"")),
    "two keys": (400, "Key", handshake_request(b"Sec-WebSocket-Key: " + KEY)),
    "short key": (400, "Key", handshake_request(key=b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j")),
    "long key": (400, "Key", handshake_request(key=b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWEh")),
    "broken key": (400, "Key", handshake_request(key=b"Sec-WebSocket-Key: " + KEY[:-1])),
    "invalid base64": (400, "Key", handshake_request(key=b"Sec-WebSocket-Key: " + KEY.replace(b"Z", b"-"))),
    "non-ASCII key": (400, "Key", handshake_request(key=b"Sec-WebSocket-Key: \xff" + KEY)),
}


async def response_to(port: int, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return the status, headers and body of the response to a request, which closes the connection."""
    async with sent_request(port, data) as (reader, _):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [line.lower().split(": ", 1) for line in lines]
    assert len(dict(headers)) == len(headers)
    assert dict(headers)["connection"] == "close"
    return int(first.split()[1]), dict(headers), body


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "ABORT_DELAY_SECONDS", 0.1 * UNIT)


async def _all_closed(open_connections: set[Any]) -> None:
    await eventually(lambda: not open_connections)


# Rejected handshakes


async def test_invalid_handshake_is_rejected_with_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    application = SingleSocketApp(accept_websocket)
    async with serving(application) as (port, open_connections):
        for name, (status, words, data) in INVALID_HANDSHAKES.items():
            got, headers, body = await response_to(port, data)
            assert (got, headers["content-type"]) == (status, "application/json"), name
            assert words in json.loads(body)["detail"], name
            assert (headers.get("sec-websocket-version") == "13") == (status == 426), name
        await eventually(lambda: not open_connections)
    assert application.scopes == []
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_non_ascii_target_is_rejected() -> None:
    with pytest.raises(HandshakeRefused, match="ASCII"):
        accept_value("GET", "1.1", b"/\xff", {})


@pytest.mark.parametrize(
    "data",
    [
        handshake_request(),
        handshake_request(connection=b"Connection: keep-alive, upgrade"),
        handshake_request(upgrade=b"Upgrade: WebSocket"),
        handshake_request(b"Sec-WebSocket-Extensions: permessage-deflate"),
        handshake_request().lower().replace(KEY.lower(), KEY).replace(b"get", b"GET").replace(b"http", b"HTTP"),
    ],
)
async def test_valid_handshake_variants_are_accepted(data: bytes) -> None:
    async with serving(SingleSocketApp(accept_websocket)) as (port, _), sent_request(port, data) as (reader, _writer):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"http/1.1 101 switching protocols"
        assert {b"upgrade: websocket", b"connection: upgrade"} < set(lines)
        assert b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n" in head
        assert b"date: " in head
        assert b"sec-websocket-extensions" not in head.lower()
        assert await reader.read() == close_of(1000)


async def test_handshake_pipelined_behind_an_unanswered_request_is_closed() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await asyncio.Event().wait()

    get = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    async with (
        serving(slow, timeout_graceful_shutdown=0) as (port, _),
        sent_request(port, get + handshake_request()) as (reader, _),
    ):
        assert await reader.read() == b""


# The ASGI interface


async def test_scope_describes_the_handshake_request() -> None:
    application = SingleSocketApp(accept_websocket)
    data = handshake_request(
        b"Sec-WebSocket-Protocol: one, two",
        b"Sec-WebSocket-Protocol: three",
        b"X-Name: \xc3\xa4",
        first=b"GET /a%20b/c?d=%20e&f HTTP/1.1",
    )
    async with serving(application, root_path="/base") as (port, _), sent_request(port, data) as (reader, writer):
        await reader.read()
        client = writer.get_extra_info("sockname")[:2]
    scope = application.scopes[0]
    extensions = scope.pop("extensions")
    assert extensions.pop(DIRECT_EXTENSION)
    assert extensions == {"websocket.http.response": {}}
    assert (b"x-name", b"\xc3\xa4") in scope["headers"]
    assert (b"sec-websocket-key", KEY) in scope.pop("headers")
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "server": ("127.0.0.1", port),
        "client": client,
        "root_path": "/base",
        "path": "/base/a b/c",
        "raw_path": b"/base/a%20b/c",
        "query_string": b"d=%20e&f",
        "subprotocols": ["one", "two", "three"],
        "state": {},
    }


async def test_each_scope_has_a_copy_of_the_lifespan_state() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["shared"] = "shared"
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        states.append(dict(scope["state"]))
        scope["state"]["mine"] = "mine"
        await accept_websocket(scope, receive, send)

    states: list[Any] = []
    async with serving(application, lifespan="on") as (port, _):
        for _ in range(2):
            async with open_websocket(port):
                pass
    assert states == [{"shared": "shared"}] * 2


async def test_messages_in_both_directions_end_with_a_disconnect() -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-more", b"more")]
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
        await send({"type": "websocket.send", "text": "ä"})
        await send({"type": "websocket.send", "bytes": b"\xff", "text": None})
        heard.extend([await receive() for _ in range(4)])
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "late"})

    heard: list[Any] = []
    async with serving(SingleSocketApp(act)) as (port, _), sent_request(port, handshake_request()) as (reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nSec-WebSocket-Protocol: two\r\n" in head
        assert b"\r\nx-more: more\r\n" in head
        writer.write(frame(TEXT, b"text") + frame(BINARY, b"bytes") + frame(CLOSE, (4321).to_bytes(2) + b"bye"))
        assert await reader.read() == framed(TEXT, "ä".encode()) + framed(BINARY, b"\xff") + close_of(4321, b"bye")
        await eventually(lambda: len(heard) == 4)
    end = {"type": "websocket.disconnect", "code": 4321, "reason": "bye"}
    assert heard == [
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "bytes": b"bytes"},
        end,
        end,
    ]


async def test_application_receives_1006_if_the_peer_vanishes() -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        await accept_websocket(scope, receive, send)
        heard.append(await receive())

    heard: list[Any] = []
    async with serving(SingleSocketApp(act)) as (port, _):
        async with open_websocket(port) as (_, writer):
            writer.transport.abort()
        await eventually(lambda: heard == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}])


async def test_close_by_the_application_is_sent_to_the_peer() -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        await accept_websocket(scope, receive, send)
        await send({"type": "websocket.close", "code": 4010, "reason": "why"})

    async with serving(SingleSocketApp(act)) as (port, _), open_websocket(port) as (reader, writer):
        writer.write(frame(CLOSE, (4010).to_bytes(2)))
        assert await reader.read() == close_of(4010, b"why")


def _is_paused(connection: WebSocketConnection) -> bool:
    return not connection.transport.is_reading()


async def test_reading_pauses_while_many_messages_wait() -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        await accept_websocket(scope, receive, send)
        await allowed.wait()
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(message["text"])

    heard: list[str] = []
    allowed = asyncio.Event()
    async with serving(SingleSocketApp(act)) as (port, open_connections):
        for sent in (["a"] * (MAX_WAITING_MESSAGES + 1), ["a" * (MAX_WAITING_BYTES + 1)]):
            heard.clear()
            allowed.clear()
            async with open_websocket(port) as (reader, writer):
                (connection,) = (one for one in open_connections if isinstance(one, WebSocketConnection))
                writer.write(b"".join(frame(TEXT, one.encode()) for one in sent[:-1]) + frame(PING))
                assert await reader.readexactly(2) == framed(PONG, b"")
                assert connection.transport.is_reading()
                writer.write(frame(TEXT, sent[-1].encode()))
                await eventually(partial(_is_paused, connection))
                allowed.set()
                writer.write(frame(TEXT, b"more"))
                await eventually(lambda: heard[-1:] == ["more"])
                assert heard == [*sent, "more"]
            await eventually(lambda: not open_connections)


async def test_send_waits_while_the_peer_does_not_read() -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        await accept_websocket(scope, receive, send)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
                sent.append(1_000_000)
                await asyncio.sleep(0)
        except ClientDisconnected:
            sent.append(0)

    sent: list[int] = []
    async with serving(SingleSocketApp(act)) as (port, open_connections):
        async with open_websocket(port) as (reader, writer):
            (connection,) = (one for one in open_connections if isinstance(one, WebSocketConnection))
            assert isinstance(writer.transport, asyncio.Transport)
            writer.transport.pause_reading()
            await eventually(lambda: connection.full)
            before = len(sent)
            for _ in range(9):
                await asyncio.sleep(0)
            assert len(sent) == before
            writer.transport.resume_reading()
            while len(sent) == before:
                await reader.read(1 << 20)
            await eventually(lambda: connection.full)
            writer.transport.abort()
        await eventually(lambda: sent[-1] == 0)


# Responses instead of an accept


async def test_close_before_accept_responds_403_without_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})
        heard.append(await receive())

    heard: list[Any] = []
    async with serving(SingleSocketApp(act)) as (port, open_connections):
        status, headers, body = await response_to(port, handshake_request())
        assert (status, body) == (403, b"")
        assert "date" in headers
        await eventually(lambda: not open_connections)
    assert heard == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_denial_response_of_the_application_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html"), (b"Content-Length", b"8"), (b"x-more", b"more")]
        await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"here"})

    async with serving(SingleSocketApp(act)) as (port, open_connections):
        status, headers, body = await response_to(port, handshake_request())
        assert (status, body) == (404, b"not here")
        expected = {"content-type": "text/html", "content-length": "8", "x-more": "more"}
        assert expected.items() <= headers.items()
        await eventually(lambda: not open_connections)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


ACCEPT_MESSAGE: Any = {"type": "websocket.accept"}
DENIAL_MESSAGE: Any = {"type": "websocket.http.response.start", "status": 404}


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "websocket.send", "text": "early"}],
        [{"type": "websocket.http.response.body"}],
        [{"type": "http.response.start", "status": 200}],
        [DENIAL_MESSAGE, ACCEPT_MESSAGE],
        [DENIAL_MESSAGE, {"type": "websocket.close"}],
        [DENIAL_MESSAGE, DENIAL_MESSAGE],
    ],
)
async def test_unexpected_asgi_message_responds_500(messages: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with serving(SingleSocketApp(act)) as (port, _):
        assert (await response_to(port, handshake_request()))[0] == 500
    assert "is not expected" in caplog.text


async def test_application_that_fails_before_accept_responds_500(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def forget(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)

    for act, words in ((fail, "ZeroDivisionError"), (forget, "did not answer")):
        caplog.clear()
        async with serving(SingleSocketApp(act)) as (port, open_connections):
            status, _, body = await response_to(port, handshake_request())
            assert (status, json.loads(body)) == (500, {"detail": "Internal Server Error"})
            await _all_closed(open_connections)
        assert words in caplog.text


async def test_application_error_after_accept_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        await accept_websocket(scope, receive, send)
        await send(ACCEPT_MESSAGE)

    async with serving(SingleSocketApp(act)) as (port, _), open_websocket(port) as (reader, _):
        assert await reader.read() == close_of(1011)
    assert "is not expected" in caplog.text


async def test_peer_lost_before_accept_disconnects_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        heard.append(await receive())
        await send(ACCEPT_MESSAGE)

    heard: list[Any] = []
    started = asyncio.Event()
    async with serving(SingleSocketApp(act)) as (port, open_connections):
        async with sent_request(port, handshake_request()) as (_, writer):
            await started.wait()
            writer.transport.abort()
        await eventually(lambda: heard == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}])
        await eventually(lambda: not open_connections)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_shutdown_before_accept_responds_503() -> None:
    async def act(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await receive()

    started = asyncio.Event()
    async with (
        serving(SingleSocketApp(act)) as (port, open_connections),
        sent_request(port, handshake_request()) as (reader, _),
    ):
        await started.wait()
        (handshake,) = (one for one in open_connections if isinstance(one, Handshake))
        handshake.shutdown()
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
