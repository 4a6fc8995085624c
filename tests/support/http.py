"""Helpers for tests over HTTP and WebSockets: pages of lists, refused handshakes, and close codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from realtime.settings import Settings
from tests.support.harness import Json, ServerProcess

Serve = Callable[..., ServerProcess]
"""Starts a server process on the database of the test, with changed settings."""


@contextmanager
def server_processes(settings: Settings) -> Iterator[Serve]:
    """Yield a function that starts server processes on free ports. They are killed when the block ends."""
    started: list[ServerProcess] = []

    def start(**changes: Any) -> ServerProcess:
        process = ServerProcess(settings.model_copy(update={"port": 0, **changes}))
        started.append(process)
        process.start()
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()


def printed_lines(server: ServerProcess, count: int) -> list[str]:
    """Return the next lines of the standard output of a server."""
    assert server.process is not None
    assert server.process.stdout is not None
    return [server.process.stdout.readline().decode() for _ in range(count)]


def pages_of(client: TestClient, path: str, **query: Any) -> Iterator[list[Json]]:
    """Yield the pages of a list, requesting each when it is needed."""
    answer = client.get(path, params=query or None)
    while True:
        assert answer.status_code == 200, answer.text
        yield answer.json()
        if "next" not in answer.links:
            return
        answer = client.get(answer.links["next"]["url"])


def refused_handshake(client: TestClient, path: str, **headers: str) -> WebSocketDenialResponse:
    """Open a WebSocket that must be refused, and return the response."""
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect(path, headers=headers):
        pass
    return refused.value


def read_until_close(socket: WebSocketTestSession) -> tuple[int, list[Any]]:
    """Return the close code of a WebSocket, and the messages before it. Text messages are decoded from JSON."""
    messages: list[Any] = []
    while (message := socket.receive())["type"] != "websocket.close":
        messages.append(json.loads(message["text"]) if "text" in message else message["bytes"])
    return message["code"], messages


async def wait_for_close(socket: ClientConnection) -> int:
    """Discard the messages of a WebSocket until the server closes it, and return the close code."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code
