"""A session of the comparison: databases, running servers, and the load on one server at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from benchmarks.peers import Contender
from benchmarks.processes import HERE, compiled, cpu, family, files, free_port, listening, memory, more_files
from realtime.embedded.pair import EmbeddedServers

NOTES = 100
CONTENT = "x" * 300
NOTE = {"title": "hello", "description": "world", "content": CONTENT}
LONGEST = 60.0
"""The timeout of a load in seconds. Each ends long before."""
IDLE = 0.1
"""The share of a core below which a server is idle."""

Figures = dict[str, float]


class Failed(Exception):
    """A contender could not be measured. The message says why."""


@dataclass(frozen=True)
class Server:
    """A running contender."""

    contender: Contender
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def rest(self, within: float = 4.0) -> bool:
        """Wait until the server is idle, within a timeout in seconds, and return whether it is."""
        deadline, before = time.monotonic() + within, cpu(self.process)
        while time.monotonic() < deadline:
            time.sleep(0.2)
            now = cpu(self.process)
            if now - before < 0.2 * IDLE:
                return True
            before = now
        return False

    def fill(self) -> None:
        """Set all notes to the same content, and create the notes of this program first."""
        with httpx.Client(base_url=self.url, timeout=10) as client:
            ids = range(1, NOTES + 1)
            if self.contender.name == "realtime" and len(client.get("/notes/").json()) < NOTES:
                for _ in ids:
                    client.post("/notes/", json=NOTE).raise_for_status()
            for id in ids:
                client.put(f"/notes/{id}/", json=NOTE).raise_for_status()


class Session:
    """The databases and servers of a session. Servers are started at their first use and stopped at the end."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.quick = quick
        self.files = more_files()
        self._load = str(compiled("load"))
        self._embedded = EmbeddedServers(folder / "data")
        self._log = folder / "servers.log"
        self._open = ExitStack()
        self._servers: dict[str, tuple[Server, ExitStack]] = {}
        self._publishers: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._embedded.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._servers):
            self.drop(name)
        self._open.close()
        self._embedded.stop()

    def server(self, contender: Contender) -> Server:
        """Return a running server. Raise ``NotInstalled``, ``NotStarted`` or :class:`Failed`."""
        if contender.name not in self._servers:
            stack = ExitStack()
            server = stack.enter_context(self.fresh(contender))
            try:
                self.load(server, clients=1, writers=32, seconds=0.5, grace=0.5)  # warm up the server
            except Failed:
                stack.close()
                raise
            self._servers[contender.name] = (server, stack)
        return self._servers[contender.name][0]

    def drop(self, name: str) -> None:
        """Stop a server if it is running. The next use starts it again."""
        if name in self._servers:
            self._servers.pop(name)[1].close()

    @contextmanager
    def fresh(self, contender: Contender, workers: int = 1) -> Iterator[Server]:
        """Run a new server with notes on the same databases. The other server of the contender is stopped."""
        self.drop(contender.name)
        port = free_port()
        environment = {
            "PORT": str(port),
            "NAME": contender.name,
            "NODE_ENV": "production",
            "MONGO_URL": self._embedded.mongo_url,
            "REDIS_URL": self._embedded.redis_url,
            "REALTIME_MONGO_URL": self._embedded.mongo_url,
            "REALTIME_REDIS_URL": self._embedded.redis_url,
            "REALTIME_WORKERS": str(workers),
            "REALTIME_LOG_LEVEL": "error",
        }
        with listening(contender.command(port), port, environment, self._log) as process:
            server = Server(contender, port, process)
            if contender.rest:
                try:
                    server.fill()
                except (httpx.HTTPError, ValueError) as error:
                    raise Failed(f"it does not answer: {error!r}") from error
            server.rest()
            yield server

    def publisher(self, contender: Contender) -> int:
        """Return the port of a process that publishes the notes that it receives directly to Redis."""
        if contender.name not in self._publishers:
            port = free_port()
            command = [sys.executable, "-m", "benchmarks.publisher", str(port), self._embedded.redis_url]
            command += [contender.channel, contender.template]
            self._open.enter_context(listening(command, port, {"PYTHONPATH": str(HERE.parent)}, self._log))
            self._publishers[contender.name] = port
        return self._publishers[contender.name]

    def load(self, server: Server, *, alone: bool = False, **options: float | str) -> dict[str, Any]:
        """Run a load, and return its output.

        With ``alone``, it runs on a separate core if there are at least four. Raises :class:`Failed`.
        """
        with self.holding(server, alone=alone, **options) as said:
            pass
        if not server.rest():
            self.drop(server.contender.name)  # remaining work must not affect the next measurement
        if said["errors"]:
            raise Failed(f"{said['errors']} of {said['sent']} requests were refused")
        return said

    @contextmanager
    def holding(self, server: Server, *, alone: bool = False, **options: float | str) -> Iterator[dict[str, Any]]:
        """Yield the output of a load whose clients stay connected in the block with ``hold=1``.

        Raises :class:`Failed`.
        """
        told = {"path": server.contender.path, "hello": server.contender.hello, **server.contender.write, **options}
        command = [self._load, str(server.port), *(f"{name}={value}" for name, value in told.items())]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        ending = threading.Timer(LONGEST, process.kill)
        ending.start()
        try:
            if alone:
                _apart(process.pid, server)
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                assert process.stderr is not None
                raise Failed(process.stderr.read().strip()[-200:] or "the load did not end")
            yield json.loads(line)
        finally:
            ending.cancel()
            process.communicate()


class Watch:
    """Samples the memory and the connections of a server four times per second."""

    def __init__(self, server: Server) -> None:
        self.bytes = 0
        """The maximum memory."""
        self._sockets: list[tuple[float, int]] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def closed(self, many: int) -> tuple[int, float]:
        """Return the number of closed connections, of ``many``, and the time of the last close.

        The time is that of ``CLOCK_MONOTONIC``. It is measured at the server, because a client with unread data does
        not see the close.
        """
        most = max(open for _, open in self._sockets)
        peak = next(at for at, open in self._sockets if open == most)
        gone = [(min(most - open, many), at) for at, open in self._sockets if most - open < 2 * many and at >= peak]
        top = max(lost for lost, _ in gone)
        return top, next(at for lost, at in gone if lost == top)

    def _look(self) -> None:
        while not self._over.wait(0.25):
            self.bytes = max(self.bytes, memory(self._server.process))
            self._sockets.append((time.monotonic(), files(self._server.process)))


def _apart(load: int, server: Server) -> None:
    cores = os.cpu_count() or 1
    if cores >= 4 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(load, {cores - 1})
        for one in family(server.process):
            os.sched_setaffinity(one.pid, set(range(cores - 1)))
