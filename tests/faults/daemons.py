"""Valkey and MongoDB processes of a scenario, which it can kill, freeze, truncate and restart."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pymongo import AsyncMongoClient

from benchmarks.processes import free_port
from realtime.embedded import process, programs
from tests.support.harness import Json, eventually


class Daemon:
    """A server process on a fixed port."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.folder = folder
        self.port = free_port()
        self._command = [*command, "--port", str(self.port)]
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Start or restart the process, and wait until it accepts connections."""
        with (self.folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=process.die_with_parent,  # noqa: PLW1509  # no locks are held when the process is started
            )
        await eventually(self._listens, within=60)

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} ended: {(self.folder / 'output.txt').read_text()[-1000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Kill the process with SIGKILL, even if it is frozen."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Suspend the process. Its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Valkey(Daemon):
    """A Redis-compatible server. With ``kept``, it appends all writes to a file and loads that file on start."""

    def __init__(self, folder: Path, *, kept: bool = False) -> None:
        program = programs.find_program(
            programs.packaged_valkey(), ["valkey-server", "redis-server"], programs.REDIS_HELP
        )
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes" if kept else "no"]
        super().__init__(folder, [program, *options, "--appendfsync", "always"])

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"redis://127.0.0.1:{self.port}/0"

    def lose_tail(self, size: int) -> None:
        """Truncate the append-only file by a number of bytes. The server must not be running."""
        file = max((self.folder / "appendonlydir").glob("*.incr.aof"))
        with file.open("rb+") as kept:
            kept.truncate(max(0, file.stat().st_size - size))


def _mongod(place: Path, *options: str) -> list[str]:
    """Return the command of a ``mongod`` in a folder, without authentication and with fault injection commands."""
    program = programs.find_program(programs.packaged_mongod(), ["mongod"], programs.MONGOD_HELP)
    paths = ["--dbpath", str(place / "data"), "--logpath", str(place / "log.txt"), "--bind_ip", "127.0.0.1"]
    flags = ["--nounixsocket", "--quiet", "--logappend", "--wiredTigerCacheSizeGB", "0.25"]
    flags += ["--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false"]
    return [program, *paths, *flags, *options]


class Standalone(Daemon):
    """A MongoDB server that is not part of a replica set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, _mongod(folder))
        (folder / "data").mkdir()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"mongodb://127.0.0.1:{self.port}/"


class ReplicaSet:
    """MongoDB processes that elect a primary, without authentication and with fault injection commands.

    They elect a new primary ``patience`` seconds after the last heartbeat of the old one.
    """

    def __init__(self, folder: Path, nodes: int, *, patience: float = 10.0) -> None:
        self.nodes: list[Daemon] = []
        self._patience = patience
        for number in range(nodes):
            place = folder / f"mongod-{number}"
            self.nodes.append(Daemon(place, _mongod(place, "--replSet", "faults", "--oplogSize", "256")))
            (place / "data").mkdir()

    @property
    def url(self) -> str:
        """The URL of the replica set."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"mongodb://{hosts}/?replicaSet=faults"

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(node.start() for node in self.nodes))
        members = [{"_id": at, "host": f"127.0.0.1:{node.port}"} for at, node in enumerate(self.nodes)]
        how = {"electionTimeoutMillis": int(self._patience * 1000)}
        config = {"_id": "faults", "members": members, "settings": how}
        await self.command(self.nodes[0], "replSetInitiate", config)
        await self.primary()
        return self

    async def __aexit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
            shutil.rmtree(node.folder, ignore_errors=True)  # each uses hundreds of MB

    async def command(self, node: Daemon, name: str, value: Any = 1, **more: Any) -> Json:
        """Run an admin command on a node."""
        url = f"mongodb://127.0.0.1:{node.port}/?directConnection=true&appName=faults"
        async with AsyncMongoClient[Json](url, serverSelectionTimeoutMS=2000) as client:
            return await client.admin.command(name, value, **more)

    async def primary(self) -> Daemon:
        """Return the primary, as soon as all other nodes follow it."""

        async def found() -> Daemon:
            said = await asyncio.gather(*(self.command(node, "hello") for node in self.nodes), return_exceptions=True)
            known = {node: hello for node, hello in zip(self.nodes, said, strict=True) if isinstance(hello, dict)}
            first = [node for node, hello in known.items() if hello["isWritablePrimary"]]
            follow = [node for node, hello in known.items() if hello["secondary"]]
            assert first
            assert len(follow) == len(self.nodes) - 1
            return first[0]

        node: Daemon = await eventually(found, within=60)
        return node

    async def step_down(self, seconds: int = 5) -> None:
        """Make the primary step down."""
        await self.command(await self.primary(), "replSetStepDown", seconds, secondaryCatchUpPeriodSecs=seconds - 1)
