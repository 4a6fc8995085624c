"""Rooms: the memory of an open room, and of each of its clients.

Starts a server process and creates texts of a given size. Measures the resident memory before and after clients join
over ``/sync/{id}`` and complete the first exchange: first each in a separate room, then all in one room.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import uvloop
from websockets.asyncio.client import connect

from benchmarks.processes import free_port, listening
from realtime.embedded.pair import EmbeddedServers
from realtime.rooms import protocol

SETTLE = 2.0


@contextmanager
def _server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    with EmbeddedServers(folder) as embedded:
        port = free_port()
        urls = {"REALTIME_MONGO_URL": embedded.mongo_url, "REALTIME_REDIS_URL": embedded.redis_url}
        command = [sys.executable, "-m", "realtime", "serve", "--port", str(port)]
        with listening(command, port, {**urls, "REALTIME_LOG_LEVEL": "error"}) as process:
            yield f"http://127.0.0.1:{port}", process


async def _memory(process: psutil.Process) -> int:
    """Return the memory in bytes after pending work is done."""
    await asyncio.sleep(SETTLE)
    resident: int = process.memory_info().rss
    return resident


async def _join(stack: AsyncExitStack, url: str, note: int) -> None:
    address = f"{url.replace('http', 'ws', 1)}/sync/{note}"
    client = await stack.enter_async_context(connect(address, compression=None, max_queue=1))
    await client.send(protocol.state(b"\0"))
    async with asyncio.timeout(20):
        while not (await client.recv()).startswith(b"\0\x01"):  # type: ignore[arg-type]  # the payload is binary
            pass


async def measure(url: str, process: psutil.Process, many: int, size: int) -> tuple[float, float]:
    """Return the bytes of a room with one client, and of each additional client, with a text of ``size`` characters."""
    words = ("lorem ipsum dolor sit amet " * (size // 27 + 1))[:size]
    note = {"title": "Memory", "description": "A text of some size", "content": words}
    async with httpx.AsyncClient(base_url=url, timeout=20) as rest:
        ids = [(await rest.post("/notes/", json=note)).json()["id"] for _ in range(many + 2)]
    async with AsyncExitStack() as stack:
        await _join(stack, url, ids[0])  # initialize everything that is created once
        before = await _memory(process)
        for id in ids[1 : many + 1]:
            await _join(stack, url, id)
        rooms = await _memory(process)
        for _ in range(many):
            await _join(stack, url, ids[-1])
        clients = await _memory(process)
    return (rooms - before) / many, (clients - rooms) / many


async def run(arguments: argparse.Namespace) -> None:
    """Run all measurements, with a separate server for each size."""
    print(f"{arguments.many} rooms with a client each, then {arguments.many} clients in one room")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as (url, process):
            room, client = await measure(url, process, arguments.many, size)
            print(f"  text of {size:7} characters: room with a client {room / 1024:7.1f} KiB", end="")
            print(f", each client more {client / 1024:6.1f} KiB", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--many", type=int, default=500)
    parser.add_argument(
        "--sizes", type=lambda text: [int(one) for one in text.split(",")], default=[100, 10_000, 100_000]
    )
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
