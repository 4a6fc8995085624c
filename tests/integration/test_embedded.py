"""The embedded databases: they end with their owner, and keep acknowledged writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import socketserver
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bson
import httpx
import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from redis import AuthenticationError, Redis
from starlette.testclient import TestClient
from websockets.asyncio.client import connect

from realtime import create_app
from realtime.embedded.lock import SECRETS, lock_folder
from realtime.embedded.pair import EmbeddedServers, running
from realtime.errors import EmbeddedError
from realtime.settings import Settings
from tests.faults.daemons import Standalone
from tests.support.harness import UNIT, all_notes, data_folder, eventually, note_in, rest_client
from tests.support.http import Serve, server_processes, wait_for_close

EXIT_TIMEOUT_SECONDS = 5.0
KINDS = ("mongod", "valkey-server", "supervisor")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a data folder, and check after the test that no process uses it."""
    folder = tmp_path / "data"
    yield folder
    os.close(lock_folder(folder, os.getpid()))


@pytest.fixture
def start_server(folder: Path) -> Iterator[Serve]:
    """Return a function that starts a server process with embedded databases in the folder."""
    with server_processes(data_folder(folder)) as start:
        yield start


def embedded_processes(pid: int, folder: Path) -> dict[str, psutil.Process]:
    """Return the supervisor of a folder and its databases among the descendants of a process."""
    found = {}
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            kind = "supervisor" if "realtime.embedded.supervisor" in child.cmdline() else child.name()
            if kind in KINDS and str(folder) in " ".join([child.cwd(), *child.cmdline()]):
                found[kind] = child
    return found


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended. An orphan stays a zombie if no process reaps it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def wait_until_ended(processes: Sequence[psutil.Process]) -> None:
    """Wait until all processes have ended."""
    await eventually(lambda: all(has_ended(process) for process in processes), within=EXIT_TIMEOUT_SECONDS)


def listening_port(process: psutil.Process | None) -> int:
    """Return the port that a server listens on, or 0 if there is none."""
    connections = process.net_connections("tcp4") if process is not None else []
    ports = {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}
    return ports.pop() if ports else 0


@contextlib.contextmanager
def occupied(port: int) -> Iterator[None]:
    """Listen on a port during the block, and close each connection immediately."""
    with socketserver.TCPServer(("127.0.0.1", port), socketserver.BaseRequestHandler, bind_and_activate=False) as other:
        other.allow_reuse_address = True
        other.server_bind()
        other.server_activate()
        thread = threading.Thread(target=other.serve_forever, args=[0.05])
        thread.start()
        try:
            yield
        finally:
            other.shutdown()
            thread.join()


async def write_until_failure(url: str, acknowledged: dict[int, Any]) -> None:
    """Write notes one after the other until the server fails, and collect the acknowledged ones."""
    async with rest_client(url) as rest:
        with contextlib.suppress(httpx.TransportError):
            while True:
                answer = await rest.post("/notes/", json=note_in(content="x" * 1000))
                if answer.status_code == 201:
                    acknowledged[answer.json()["id"]] = answer.json()


def test_data_survives_a_restart_with_other_ports_and_secrets(folder: Path) -> None:
    """Folders of versions without secrets are equivalent to a folder without its secret files."""
    embedded = EmbeddedServers(folder)
    embedded.start()
    with MongoClient[dict[str, Any]](embedded.mongo_url) as client:
        client.realtime.notes.insert_one({"_id": 1})
    processes = embedded_processes(os.getpid(), folder)
    ports = [listening_port(processes["mongod"]), listening_port(processes["valkey-server"])]
    embedded.stop()
    assert all(has_ended(process) for process in processes.values())
    for secret in SECRETS.values():
        (folder / secret).unlink()
    with contextlib.ExitStack() as others:
        for port in ports:
            others.enter_context(occupied(port))
        others.enter_context(embedded)
        with MongoClient[dict[str, Any]](embedded.mongo_url) as client:
            assert [note["_id"] for note in client.realtime.notes.find()] == [1]
            client.realtime.notes.insert_one({"_id": 2})
        processes = embedded_processes(os.getpid(), folder)
        assert not {listening_port(processes["mongod"]), listening_port(processes["valkey-server"])} & set(ports)


@pytest.mark.parametrize(
    ("known", "commands"),
    [("//", ["listDatabases", "createUser", "replSetGetConfig", "shutdown"]), (":wrong@", ["listDatabases"])],
    ids=["no-password", "wrong-password"],
)
def test_connection_without_the_secrets_is_refused(embedded: EmbeddedServers, known: str, commands: list[str]) -> None:
    strange = [
        re.sub(r"//.*@" if known == "//" else r":\w{64}@", known, url)
        for url in (embedded.mongo_url, embedded.redis_url)
    ]
    with MongoClient[dict[str, Any]](strange[0]) as mongo, Redis.from_url(strange[1]) as redis:
        for command in commands:
            with pytest.raises(OperationFailure, match=r"Authentication failed|requires authentication"):
                mongo.admin.command(command)
        with pytest.raises(AuthenticationError):
            redis.ping()


def compressed(command: dict[str, Any], claimed: int = 0) -> bytes:
    """Return an OP_COMPRESSED message: a command compressed with zlib, with a declared size that is too large.

    The document declares the same size, so that a vulnerable server reads uninitialized memory.
    """
    document = bytearray(bson.encode({**command, "$db": "admin"}))
    if claimed:
        document[:4] = struct.pack("<i", claimed)
    message = struct.pack("<ix", 0) + document  # the flags of OP_MSG, and a section of kind 0
    size = claimed + 5 if claimed else len(message)
    op_msg, op_compressed, by_zlib = 2013, 2012, 2
    body = struct.pack("<iib", op_msg, size, by_zlib) + zlib.compress(message)
    return struct.pack("<iiii", 16 + len(body), 1, 0, op_compressed) + body


def response_to(url: str, message: bytes) -> bytes:
    """Return the response of a MongoDB to an unauthenticated message; empty if it closes the connection."""
    host, port = urlsplit(url).netloc.rpartition("@")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10 * UNIT) as connection:
        connection.sendall(message)
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(65536)
    return b""


async def test_unauthenticated_compressed_messages_get_no_response(embedded: EmbeddedServers, tmp_path: Path) -> None:
    """CVE-2025-14847: unpatched versions answer malformed messages with the contents of their memory."""
    async with Standalone(tmp_path / "mongod") as ordinary:
        answer = response_to(ordinary.url, compressed({"hello": 1}))
        assert b"isWritablePrimary" in zlib.decompress(answer[25:])
    for claimed in (0, *range(100, 65536, 4096)):
        assert response_to(embedded.mongo_url, compressed({"hello": 1}, claimed)) == b""


def test_secrets_are_stored_only_in_private_files(folder: Path) -> None:
    assert running(folder) is None
    embedded = EmbeddedServers(folder)
    (folder / "mongodb").mkdir(parents=True, mode=0o755)
    (folder / "mongodb" / "key").touch(0o644)  # an empty file, as a full disk leaves it
    with embedded:
        assert running(folder) == (embedded.mongo_url, embedded.redis_url)
        secrets = [(folder / file).read_text().split()[-1] for file in SECRETS.values()]
        for file in SECRETS.values():
            assert stat.S_IMODE((folder / file).stat().st_mode) == 0o600
            assert stat.S_IMODE((folder / file).parent.stat().st_mode) == 0o700
        assert len(set(secrets)) == 2
        assert all(len(secret) == 64 for secret in secrets)
        shown = [" ".join(process.cmdline()) for process in embedded_processes(os.getpid(), folder).values()]
        shown += [file.read_text() for file in folder.glob("*/*.txt")]
        shown += [repr(embedded), repr(data_folder(folder).model_copy(update={"mongo_url": embedded.mongo_url}))]
        assert not [text for text in shown for secret in secrets if secret in text]
    assert running(folder) is None


async def test_killed_server_stops_its_databases_and_keeps_acknowledged_notes(
    start_server: Serve, folder: Path
) -> None:
    server = start_server()
    processes = list(embedded_processes(server.pid, folder).values())
    assert len(processes) == len(KINDS)
    acknowledged: dict[int, Any] = {}
    writers = [asyncio.create_task(write_until_failure(server.url, acknowledged)) for _ in range(8)]
    await eventually(lambda: len(acknowledged) > 30, within=30)
    server.kill()
    await asyncio.gather(*writers)
    await wait_until_ended(processes)
    server.start()
    notes = await all_notes(server.url)
    assert {id: notes.get(id) for id in acknowledged} == acknowledged


async def test_killed_mongod_is_restarted_and_keeps_acknowledged_notes(start_server: Serve, folder: Path) -> None:
    server = start_server()
    mongod = embedded_processes(server.pid, folder)["mongod"]
    acknowledged: dict[int, Any] = {}
    async with rest_client(server.url) as rest:

        async def write(notes: int) -> None:
            for _ in range(notes):
                answer = await rest.post("/notes/", json=note_in())
                assert answer.status_code in (201, 503)
                if answer.status_code == 201:
                    acknowledged[answer.json()["id"]] = answer.json()

        await write(20)
        mongod.kill()
        await write(20)
        assert len(acknowledged) > 20
    notes = await all_notes(server.url)
    assert {id: notes.get(id) for id in acknowledged} == acknowledged
    assert embedded_processes(server.pid, folder)["mongod"] != mongod
    assert re.search(r"the embedded \w+ stopped \(exit code -9\) .* \d+ MiB free", server.log())


async def test_killed_mongod_restarts_once_its_port_is_free(folder: Path) -> None:
    """The server process and the replica set address it by this port."""
    with EmbeddedServers(folder, redis=False):
        mongod = embedded_processes(os.getpid(), folder)["mongod"]
        port = listening_port(mongod)
        mongod.kill()
        mongod.wait(EXIT_TIMEOUT_SECONDS)
        with occupied(port), pytest.raises(AssertionError):
            await eventually(lambda: listening_port(embedded_processes(os.getpid(), folder).get("mongod")), within=1.5)
        assert await eventually(lambda: listening_port(embedded_processes(os.getpid(), folder).get("mongod"))) == port


async def test_killed_supervisor_stops_the_databases_and_server_exits_cleanly(
    start_server: Serve, folder: Path
) -> None:
    server = start_server()
    async with rest_client(server.url) as rest:
        assert (await rest.post("/notes/", json=note_in())).status_code == 201
    processes = embedded_processes(server.pid, folder)
    processes["supervisor"].kill()
    await wait_until_ended(list(processes.values()))
    assert server.stop(within=5) == 0


def test_second_start_in_the_same_folder_is_refused(folder: Path) -> None:
    second = EmbeddedServers(folder, mongo=False)
    in_use = rf"{folder} is in use by process {os.getpid()}\."
    with EmbeddedServers(folder, mongo=False), pytest.raises(EmbeddedError, match=in_use), second:
        pass
    with second:
        pass


@pytest.mark.parametrize(("given", "missing"), [("mongo_url", "valkey-server"), ("redis_url", "mongod")])
async def test_only_databases_without_a_url_are_started(
    given: str, missing: str, start_server: Serve, folder: Path, settings: Settings
) -> None:
    server = start_server(**{given: getattr(settings, given)}, database=settings.database)
    assert set(embedded_processes(server.pid, folder)) == {missing, "supervisor"}
    async with rest_client(server.url) as rest:
        assert (await rest.post("/notes/", json=note_in())).status_code == 201
        assert (await rest.get("/readyz")).status_code == 200


@contextlib.asynccontextmanager
async def launch(command: Sequence[str], folder: Path, **environment: str) -> AsyncIterator[tuple[Any, str]]:
    """Start a server with another program; yield the process and the host and port that uvicorn prints."""
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        ) as process:

            def port() -> str | None:
                said = os.pread(output.fileno(), 2**20, 0).decode()
                assert process.poll() is None, said
                found = re.search(r"Uvicorn running on http://[\d.]+:(\d+)", said)
                assert found, said
                return found[1]

            try:
                yield process, f"127.0.0.1:{await eventually(port, within=15)}"
            finally:
                process.kill()
        assert b"Traceback" not in os.pread(output.fileno(), 2**20, 0)


@pytest.mark.parametrize(
    ("command", "data"),
    [
        (["uvicorn", "realtime.main:app", "--port", "0"], ""),
        (["fastapi", "run", "--port", "0", "-e", "realtime.main:app"], "elsewhere"),
    ],
    ids=["uvicorn", "fastapi"],
)
async def test_uvicorn_and_fastapi_start_and_stop_the_embedded_servers(
    command: Sequence[str], data: str, tmp_path: Path
) -> None:
    """They stop on SIGTERM even if an event stream and a WebSocket are open."""
    folder = tmp_path / (data or "data")
    async with launch(command, tmp_path, REALTIME_DATA=data) as (process, host):
        processes = embedded_processes(process.pid, folder)
        assert len(processes) == len(KINDS)
        async with (
            rest_client(f"http://{host}") as rest,
            connect(f"ws://{host}/ws") as ws,
            rest.stream("GET", "/events") as events,
        ):
            assert (await rest.post("/notes/", json=note_in())).status_code == 201
            assert '"ready"' in str(await ws.recv())
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10 * UNIT):
                assert await wait_for_close(ws) == 1012
                assert b'"ready"' in await events.aread()
        await eventually(lambda: process.poll() is not None, within=10)
        assert all(has_ended(child) for child in processes.values())


async def test_application_in_a_test_client_starts_the_embedded_servers(folder: Path) -> None:
    with TestClient(create_app(data_folder(folder))) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "ready"
        made = client.post("/notes/", json=note_in()).json()
        assert socket.receive_json()["note"] == made
        processes = embedded_processes(os.getpid(), folder)
        assert len(processes) == len(KINDS)
    assert all(has_ended(process) for process in processes.values())
