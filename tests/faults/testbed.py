"""The test environment of a scenario: servers that it can break, and that are stopped at its end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

import psutil

from realtime.core.loop_monitor import BLOCKED
from realtime.embedded.pair import EmbeddedServers
from realtime.settings import Settings
from tests.faults.proxy import Proxy
from tests.support.harness import ServerProcess, eventually


class Testbed:
    """Starts servers. ``shared`` is a pair of embedded databases that must not be broken, if one is running already."""

    def __init__(self, folder: Path, shared: EmbeddedServers | None = None) -> None:
        self.folder = folder
        self._shared = shared
        self.exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.exits.aclose()

    async def pair(self) -> EmbeddedServers:
        """Start a pair of embedded databases for this scenario only, which it can break."""
        servers = EmbeddedServers(self.folder / f"pair-{uuid.uuid4().hex[:6]}")
        self.exits.push_async_callback(asyncio.to_thread, servers.stop)
        await asyncio.to_thread(servers.start)
        return servers

    async def settings(self, **changes: Any) -> Settings:
        """Return settings with a separate database, on the shared databases unless ``changes`` name others."""
        if not {"mongo_url", "redis_url"} <= changes.keys():
            if self._shared is None:
                self._shared = await self.pair()
            changes = {"mongo_url": self._shared.mongo_url, "redis_url": self._shared.redis_url} | changes
        return Settings.model_validate({"database": f"faults-{uuid.uuid4().hex[:12]}", "drain_seconds": 0.5, **changes})

    async def serve(self, settings: Settings, **changes: Any) -> ServerProcess:
        """Start a server process on a fixed port."""
        server = ServerProcess(settings.model_copy(update={"port": 0, **changes}))
        self.exits.callback(check_loop, server)
        self.exits.callback(server.kill)
        await asyncio.to_thread(server.start)
        return server

    async def fleet(self, settings: Settings, many: int, random: Random) -> Fleet:
        """Start several server processes."""
        return Fleet(list(await asyncio.gather(*(self.serve(settings) for _ in range(many)))), random)

    async def proxy(self, url: str) -> Proxy:
        """Start a proxy in front of the server of a URL."""
        to = urlsplit(url)
        assert to.hostname is not None
        assert to.port is not None
        return await self.exits.enter_async_context(Proxy(to.hostname, to.port))

    @asynccontextmanager
    async def doomed(self, fleet: Fleet, settings: Settings, failpoint: str) -> AsyncIterator[ServerProcess]:
        """Add a server to a fleet that dies at a fail point, and wait for its end after the block."""
        server = await self.serve(settings, failpoint=failpoint)
        fleet.servers.append(server)
        yield server
        process = server.process
        assert process is not None
        await eventually(lambda: process.poll() == -9, within=600)
        fleet.servers.remove(server)
        server.kill()


def check_loop(server: ServerProcess) -> None:
    """Check that a server never blocked its event loop (:mod:`realtime.core.loop_monitor`)."""
    lines = [line for line in server.log().splitlines() if BLOCKED in line]
    assert not lines, f"{len(lines)} times: {lines[:5]}"


class Fleet:
    """Server processes on one database. A URL is that of a random server, as behind a load balancer."""

    def __init__(self, servers: list[ServerProcess], random: Random) -> None:
        self.servers = servers
        self._random = random

    def url(self) -> str:
        """Return the URL of a server that is running or restarting."""
        return self._random.choice(self.servers).url

    async def kill(self, server: ServerProcess) -> None:
        """Kill a server with SIGKILL, and restart it."""
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    def check(self) -> None:
        """Check that all servers are running."""
        for server in self.servers:
            assert server.process is not None
            assert server.process.poll() is None, f"a server ended by itself: {server.log()[-2000:]}"


def process_on(url: str) -> psutil.Process:
    """Return the process that listens on the port of a URL."""
    port = urlsplit(url).port
    return next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
    )


Where = Callable[[], str]


def workers_of(server: ServerProcess) -> set[psutil.Process]:
    """Return the running worker processes of a server."""
    found = set()
    for child in psutil.Process(server.pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any("spawn_main" in word for word in child.cmdline()):
                found.add(child)
    return found
