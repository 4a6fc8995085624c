"""``realtime watch``: it follows a server through restarts, and its output is unambiguous."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from realtime.cli.watch import ConnectionRefused, describe, feed_url
from tests.support.harness import UNIT, ServerProcess, eventually, note_in, rest_client
from tests.support.http import Serve


class Watch:
    """A running ``realtime watch`` and its output."""

    def __init__(self, process: subprocess.Popen[bytes], output: Any, errors: Any) -> None:
        self._process = process
        self._output = output
        self._errors = errors

    @property
    def lines(self) -> list[str]:
        """Its standard output."""
        return os.pread(self._output.fileno(), 2**22, 0).decode().split("\n")[:-1]

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Its standard output as JSON lines."""
        return [json.loads(line) for line in self.lines]

    @property
    def errors(self) -> str:
        """Its standard error."""
        return os.pread(self._errors.fileno(), 2**22, 0).decode()

    def interrupt(self) -> int:
        """Send Ctrl-C, and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(5 * UNIT)


@contextlib.asynccontextmanager
async def watching(server: ServerProcess, *options: str) -> AsyncIterator[Watch]:
    """Watch a server, and wait until the command is connected."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-m", "realtime", "watch", "--url", server.url, *options]
        with subprocess.Popen(command, stdout=output, stderr=errors) as process:
            watch = Watch(process, output, errors)
            try:
                await eventually(lambda: "ready" in str(watch.lines), within=10)
                yield watch
            finally:
                process.kill()


async def test_watch_prints_a_line_per_change_and_stops_quietly(server: ServerProcess) -> None:
    async with watching(server) as watch, rest_client(server.url) as rest:
        await rest.post("/notes/", json=note_in("[red]milk[/]", ":bug: 'x'"))
        await rest.put("/notes/1/", json=note_in("milk", "two"))
        await rest.delete("/notes/1/")
        await eventually(lambda: len(watch.lines) == 4)
        assert watch.lines[1:] == [
            "created  #1 v1  [red]milk[/] – :bug: 'x'",
            "updated  #1 v2  milk – two",
            "deleted  #1 v3",
        ]
        assert watch.interrupt() == 0
        assert watch.errors == ""


async def test_watch_resumes_after_a_restart_without_missing_events(serve: Serve) -> None:
    server, other = serve(), serve()
    async with watching(server, "--json") as watch, rest_client(other.url) as rest:
        strange = note_in("[b]:smile:", "\x1b[2J\u009b2J\u2028\t", content="line\n" * 99)
        made = (await rest.post("/notes/", json=strange)).json()
        await eventually(lambda: watch.frames[-1]["type"] == "note.created")
        assert watch.frames[-1]["note"] == made
        server.stop()
        for number in range(5):
            await rest.post("/notes/", json=note_in(f"missed {number}"))
        server.start()
        await eventually(lambda: len(watch.frames) >= 8, within=10)
        assert [frame["type"] for frame in watch.frames] == ["ready", *["note.created"] * 6, "ready"]
        assert [frame["id"] for frame in watch.frames if "id" in frame] == [1, 2, 3, 4, 5, 6]
        assert "reconnecting in" in watch.errors
        assert watch.interrupt() == 0


async def test_watch_since_a_cursor_prints_the_later_events(server: ServerProcess) -> None:
    async with rest_client(server.url) as rest:
        before = (await rest.get("/changes")).json()["cursor"]
        await rest.post("/notes/", json=note_in("first"))
        cursor = (await rest.get("/changes", params={"since": before})).json()["cursor"]
        await rest.post("/notes/", json=note_in("second"))
    async with watching(server, "--json", "--since", cursor) as watch:
        assert [frame["type"] for frame in watch.frames] == ["note.created", "ready"]
        assert watch.frames[0]["note"]["title"] == "second"
    async with watching(server, "--since", "other:1") as watch:
        assert [line.split()[0] for line in watch.lines] == ["reset", "ready"]


@pytest.mark.parametrize(
    ("url", "since", "feed"),
    [
        ("http://127.0.0.1:8000", None, "ws://127.0.0.1:8000/ws"),
        ("http://127.0.0.1:8000/", None, "ws://127.0.0.1:8000/ws"),
        ("ws://127.0.0.1:8000/ws", None, "ws://127.0.0.1:8000/ws"),
        ("https://notes.test/app/", None, "wss://notes.test/app/ws"),
        ("wss://notes.test/app/ws/", None, "wss://notes.test/app/ws"),
        ("notes.test:8000", None, "ws://notes.test:8000/ws"),
        ("http://[::1]:8000", None, "ws://[::1]:8000/ws"),
        ("http://notes.test/#top", None, "ws://notes.test/ws"),
        ("http://notes.test", "abc:7", "ws://notes.test/ws?since=abc%3A7"),
        ("http://notes.test", "&notes=1", "ws://notes.test/ws?since=%26notes%3D1"),
    ],
)
def test_feed_url_accepts_all_forms_of_addresses(url: str, since: str | None, feed: str) -> None:
    assert feed_url(url, since) == feed


@pytest.mark.parametrize("url", ["", "http://", "ftp://notes.test", "http://[::1", "http://a:port", "http://a:70000"])
def test_feed_url_refuses_invalid_addresses(url: str) -> None:
    with pytest.raises(ConnectionRefused, match="is not the address of a server"):
        feed_url(url, None)


NOTE = {"title": "milk", "description": "two bottles"}


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        ({"type": "note.created", "id": 1, "version": 1, "note": NOTE}, "created  #1 v1  milk – two bottles"),
        ({"type": "note.updated", "id": 1, "version": 2, "note": NOTE}, "updated  #1 v2  milk – two bottles"),
        ({"type": "note.deleted", "id": 1, "version": 3}, "deleted  #1 v3"),
        ({"type": "ready", "cursor": "abc:7"}, "ready    abc:7"),
        ({"type": "presence", "id": 1, "people": {"a": {}, "b": {}}}, "presence #1  2 present"),
        ({"type": "presence.changed", "id": 1, "person": "a", "state": {}}, "presence #1  someone is present"),
        ({"type": "presence.changed", "id": 1, "person": "a", "state": None}, "presence #1  someone left"),
        ({"type": "error", "detail": "no"}, "error    no"),
        ({"type": "heartbeat", "cursor": "abc:7"}, None),
        ({"type": "from the future"}, None),
        ({}, None),
    ],
)
def test_describe_formats_each_type_of_frame(frame: dict[str, Any], line: str | None) -> None:
    assert describe(frame) == line


def test_describe_suggests_fetching_all_notes_after_a_reset() -> None:
    assert "GET /notes/" in (describe({"type": "reset", "cursor": "abc:7"}) or "")


def test_describe_removes_control_characters() -> None:
    note = {"title": "one\ntwo\r\x1b[2J", "description": "\u009b31m\u202eback\u2028"}
    line = describe({"type": "note.created", "id": 1, "version": 1, "note": note})
    assert line is not None
    assert line.isprintable()
