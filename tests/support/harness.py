"""Shared helpers of the tests: polling, server processes, and a client that replicates all notes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psutil
from starlette.testclient import TestClient
from websockets.exceptions import InvalidHandshake

from realtime.settings import Settings
from tests.support.forkserver import Fork

UNIT = float(os.environ.get("TEST_TIME_UNIT", "1"))  # scales all timeouts: raise it on slow machines

# Created once, because loading the certificates takes longer than most tests.
_TLS = ssl.create_default_context()

Json = dict[str, Any]


def is_running(process: psutil.Process) -> bool:
    """Return whether a process has not ended. A zombie has."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def eventually(check: Callable[[], Awaitable[Any] | Any], within: float = 5.0) -> Any:
    """Wait until ``check`` returns a true value or ``None`` without an assertion error, and return the result."""
    deadline = time.monotonic() + within * UNIT
    while True:
        try:
            result = check()
            if inspect.isawaitable(result):
                result = await result
        except (AssertionError, KeyError, httpx.TransportError):
            if time.monotonic() > deadline:
                raise
        else:
            if result or result is None:
                return result
            assert time.monotonic() < deadline, f"not within {within} s: {inspect.getsource(check)}"
        await asyncio.sleep(0.02)


class ServerProcess:
    """``realtime serve`` in a separate process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115  # closed when the process is reaped
        self._log = b""
        self.process: subprocess.Popen[bytes] | Fork | None = None
        self.port = settings.port
        self.environment: dict[str, str] = {}
        """Additional environment variables. With any, the server is started by its command instead of a fork."""
        self.prefix: list[str] = []
        """Arguments before the command, such as a program that lowers resource limits."""

    def start(self) -> None:
        """Start the server and wait for its address. After it ended, restart it on the same port."""
        if self._output.closed:
            self._output = tempfile.NamedTemporaryFile()  # noqa: SIM115  # closed when the process is reaped
        changed = self._settings.model_dump(exclude_none=True) | {"port": self.port}
        environment = {f"REALTIME_{name.upper()}": str(value) for name, value in changed.items() if value != ""}
        if changed["workers"] == 1 and not self.environment and not self.prefix:
            self.process = Fork(["serve"], environment, self._output.name)
        else:  # a server with child processes cannot be forked
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "realtime", "serve"],
                env={**os.environ, **self.environment, **environment},
                stdout=subprocess.PIPE,
                stderr=self._output,
            )
        assert self.process.stdout is not None
        page = self.process.stdout.readline().decode()
        address = re.match(r"Page +http://127\.0\.0\.1:(\d+)/$", page)
        assert address, f"no address but {page!r}: {self.log()}"
        self.port = int(address[1])

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The WebSocket URL of the feed."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        """Return the output to standard error so far."""
        if not self._output.closed:
            self._log = os.pread(self._output.fileno(), 2**24, 0)
        return self._log.decode(errors="replace")

    def kill(self) -> None:
        """Kill the server with SIGKILL if it is running."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def stop(self, within: float = 20.0) -> int:
        """Stop the server with SIGTERM, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(within * UNIT)
        return self._reap()

    def wait(self, within: float = 20.0) -> int:
        """Wait until the server ends, and return its exit code."""
        assert self.process is not None
        self.process.wait(within * UNIT)
        return self._reap()

    def _reap(self) -> int:
        assert self.process is not None
        code = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log()
        self._output.close()
        self.process = None
        return code


def refusal(*arguments: str, **environment: str) -> str:
    """Run a command that must fail with one line on standard error, and return that message."""
    with tempfile.NamedTemporaryFile("r") as errors:
        process = Fork(arguments, {"NO_COLOR": "1", **environment}, errors.name)
        try:
            code = process.wait(30 * UNIT)
        finally:
            process.kill()
        with process.stdout as output:
            assert (code, output.read()) == (1, b"")
        said = errors.read()
    message = said.removeprefix("realtime: ").removesuffix("\n")
    assert said == f"realtime: {message}\n"
    assert "\n" not in message
    return message


class BareSocket(asyncio.Protocol):
    """A minimal WebSocket client that only reads, for tests with hundreds of clients in one process."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._buffer = b""
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._transport: asyncio.Transport | None = None

    async def __aenter__(self) -> Self:
        host, port = self._url.hostname, self._url.port
        assert host is not None
        assert port is not None
        await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the opening handshake."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        lines = (
            f"GET {self._url.path}?{self._url.query} HTTP/1.1",
            f"Host: {self._url.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        )
        transport.write("\r\n".join([*lines, "", ""]).encode())

    def data_received(self, data: bytes) -> None:
        """Parse the handshake response and text frames. Frames other than text and ping end the iteration."""
        self._buffer += data
        if self._buffer.startswith(b"HTTP/1.1 101"):
            _, found, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not found:
                self._buffer = _
                return
        while len(self._buffer) > 1:
            kind, length, start = self._buffer[0], self._buffer[1], 2
            if length > 125:
                start = {126: 4, 127: 10}[length]
                length = int.from_bytes(self._buffer[2:start])
            if len(self._buffer) < start + length:
                return
            if kind == 0x81:
                self._texts.put_nowait(self._buffer[start : start + length].decode())
            elif kind == 0x89:
                assert self._transport is not None
                pong = bytes((0x8A, 0x80 | length)) + bytes(4)
                self._transport.write(pong + self._buffer[start : start + length])
            else:
                self._texts.put_nowait(None)
            self._buffer = self._buffer[start + length :]

    def connection_lost(self, exc: Exception | None) -> None:
        """End the iteration."""
        self._texts.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (text := await self._texts.get()) is not None:
            yield text


class Returning(ABC):
    """A client that reconnects after each disconnect and keeps its state."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._live = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.go()
        async with asyncio.timeout(20 * UNIT):
            await self._live.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.away()

    def go(self) -> None:
        """Connect, and reconnect until :meth:`away` is called."""
        self._live.clear()
        self._task = asyncio.create_task(self._run())

    async def away(self) -> None:
        """Disconnect, and keep the state."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, httpx.TransportError, InvalidHandshake):
                await self._stay()
            await asyncio.sleep(0.05)

    @abstractmethod
    async def _stay(self) -> None:
        """Connect, set ``_live`` when the state is complete, and return after a disconnect."""


class Replica(Returning):
    """A client that replicates all notes by the rules of the feed: snapshot, resume, apply only higher versions."""

    def __init__(self, url: str, name: str = "") -> None:
        super().__init__()
        self.url = url
        self.name = name
        self.notes: dict[int, Json] = {}
        self.versions: dict[int, int] = {}
        self.cursor: str | None = None
        self.frames: list[Json] = []
        self.resets = 0

    async def _stay(self) -> None:
        if self.cursor is None:
            await self._snapshot()
        ws = self.url.replace("http", "ws", 1) + "/ws"
        async with BareSocket(f"{ws}?since={self.cursor}") as socket:
            async for text in socket:
                await self._apply(json.loads(text))

    async def _snapshot(self) -> None:
        notes: list[Json] = []
        async with rest_client(self.url) as rest:
            path: str | None = "/notes/?limit=1000"
            cursor = None
            while path:
                answer = await rest.get(path)
                if answer.status_code != 200:
                    raise TimeoutError
                cursor = cursor or answer.headers["X-Cursor"]
                notes += answer.json()
                path = answer.links.get("next", {}).get("url")
        for id in set(self.notes) - {note["id"] for note in notes}:
            del self.notes[id]
        for note in notes:
            self._take(note["id"], note["version"], note)
        self.cursor = cursor

    async def _apply(self, frame: Json) -> None:
        self.frames.append(frame)
        match frame["type"]:
            case "reset":
                self.resets += 1
                self.cursor = None
                await self._snapshot()
            case "note.created" | "note.updated":
                self._take(frame["id"], frame["version"], frame["note"])
            case "note.deleted":
                self._take(frame["id"], frame["version"], None)
            case "ready":
                self._live.set()
        self.cursor = frame.get("cursor", self.cursor)

    def _take(self, id: int, version: int, note: Json | None) -> None:
        if version <= self.versions.get(id, 0):
            return
        self.versions[id] = version
        if note is None:
            self.notes.pop(id, None)
        else:
            self.notes[id] = note


async def all_notes(url: str) -> dict[int, Json]:
    """Return the notes of all pages of ``GET /notes/`` by id."""
    found: dict[int, Json] = {}
    async with rest_client(url) as rest:
        path: str | None = "/notes/?limit=1000"
        while path:
            answer = await rest.get(path)
            assert answer.status_code == 200, answer.text
            found |= {note["id"]: note for note in answer.json()}
            path = answer.links.get("next", {}).get("url")
    return found


@contextlib.asynccontextmanager
async def rest_client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Return a REST client of a server as a context manager."""
    async with httpx.AsyncClient(base_url=url, timeout=30, verify=_TLS) as client:
        yield client


def note_in(title: str = "title", description: str = "description", **more: Any) -> Json:
    """Return the request body of a new note."""
    return {"title": title, "description": description, **more}


def create_note(client: TestClient, *args: str, **more: Any) -> Json:
    """Create a note with the arguments of :func:`note_in`, and return it."""
    answer = client.post("/notes/", json=note_in(*args, **more))
    assert answer.status_code == 201, answer.text
    note: Json = answer.json()
    return note


def take_presence(people: dict[int, dict[str, Json]], frame: Json) -> None:
    """Apply a presence message to the presence states of each note, as a client of the feed does."""
    here = people.setdefault(frame["id"], {})
    if frame["type"] == "presence":
        here.clear()
        here.update(frame["people"])
    elif frame["state"] is None:
        del here[frame["person"]]
    else:
        assert frame["type"] == "presence.changed"
        here[frame["person"]] = frame["state"]


def data_folder(path: Path) -> Settings:
    """Return settings for a server with embedded databases in a folder."""
    return Settings(data=path, port=0)
