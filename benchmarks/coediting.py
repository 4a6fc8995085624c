"""Co-editing: the time until a typed character reaches all clients, and the CPU time that it costs the server.

Several clients open one note, and some of them type ten characters per second, each in a separate message, as editors
do. The benchmark measures the time from sending an update until the other clients receive it, and the CPU time of the
server process. This program stores every update in the journal in MongoDB before it sends it to other clients. The
benchmark runs Hocuspocus, from npm, with its texts in memory only. Both are measured alternately, several times, in one
run. With ``--most``, all clients type, and the benchmark finds the largest number of clients for which the 99th
percentile stays within 80 ms.

One process on the same machine creates the load over loopback, with hand-made WebSocket frames, and only ten of the
clients measure times, so that the result does not depend on the speed of the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import uvloop

from benchmarks.processes import HERE, NODE, cpu, free_port, from_npm, listening
from realtime.embedded.pair import EmbeddedServers
from realtime.rooms import lib0, protocol
from realtime.rooms.crdt import TextDocument, new_client_id
from realtime.rooms.yjs_update import scan_update

HOCUSPOCUS = ["@hocuspocus/server@4.7.0", "yjs", "y-protocols"]
PER_SECOND = 10
GOOD = 0.080
LONGEST = 15
WATCHERS = 10
"""The number of clients that measure times."""
WARM_UP = 1.0


@dataclass(frozen=True)
class Result:
    """The result of a run: times in milliseconds, and the share of one core."""

    p50: float
    p99: float
    cpu: float
    delivered: float
    """The share of the expected updates that clients received."""


class Contender(ABC):
    """A server to measure."""

    name: str
    prefix = b""
    """The prefix of all messages."""

    def __init__(self, port: int, process: psutil.Process) -> None:
        self.port = port
        self.process = process

    @abstractmethod
    def room(self) -> str:
        """Return the path of a new text."""

    def greeting(self) -> bytes:
        """Return the first message of a client."""
        return b""


class Realtime(Contender):
    """This program."""

    name = "realtime"

    def room(self) -> str:
        """Create a note, and return its path."""
        note = {"title": "Typing", "description": "Many people in one text"}
        made = httpx.post(f"http://127.0.0.1:{self.port}/notes/", json=note)
        return f"/sync/{made.json()['id']}"


class Hocuspocus(Contender):
    """Hocuspocus, which names the document in every message."""

    name = "hocuspocus"

    def room(self) -> str:
        """Return the path of a new document."""
        self.prefix = lib0.string(f"{random.randrange(10**8):08}")
        return "/"

    def greeting(self) -> bytes:
        """Return an authentication message, which the server always accepts."""
        return self.prefix + bytes((2, 0)) + lib0.string("anybody")


@contextmanager
def contenders(folder: Path) -> Iterator[list[Contender]]:
    """Install Hocuspocus, start both servers, and yield them."""
    app = shutil.copy(HERE / "contenders" / "hocuspocus.mjs", from_npm(HOCUSPOCUS))
    with EmbeddedServers(folder / "data") as embedded:
        one, other = free_port(), free_port()
        serve = [sys.executable, "-m", "realtime", "serve", "--port", str(one)]
        urls = {
            "REALTIME_MONGO_URL": embedded.mongo_url,
            "REALTIME_REDIS_URL": embedded.redis_url,
            "REALTIME_LOG_LEVEL": "error",
        }
        with (
            listening(serve, one, urls) as first,
            listening([str(NODE), str(app), str(other)], other, {}) as second,
        ):
            yield [Realtime(one, first), Hocuspocus(other, second)]


class Client(asyncio.Protocol):
    """A minimal WebSocket client. If it is a watcher, it measures the arrival time of each update."""

    def __init__(self, path: str, contender: Contender, load: Load, *, watches: bool) -> None:
        self._path = path
        self.watches = watches
        self._head = contender.prefix + b"\0\x02"
        self._prefix = contender.prefix
        self._load = load
        self._buffer = b""
        self._open = False
        self.ready = asyncio.get_running_loop().create_future()
        self._greeting = contender.greeting()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the opening handshake."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def say(self, message: bytes) -> None:
        """Send a message, masked with zeros."""
        size = len(message)
        head = bytes((0x82, 0x80 | size)) if size < 126 else bytes((0x82, 0xFE)) + size.to_bytes(2, "big")
        if not self._transport.is_closing():  # else it counts as lost
            self._transport.write(head + b"\0\0\0\0" + message)

    def type(self, update: bytes) -> None:
        """Send an update."""
        self.say(self._prefix + protocol.update(update))

    def data_received(self, data: bytes) -> None:
        """Parse frames; after the handshake and the first exchange, only in watchers."""
        if not self.watches and self.ready.done():
            return
        data = self._buffer + data if self._buffer else data
        if not self._open:
            head_end = data.find(b"\r\n\r\n") + 4
            if head_end < 4:
                self._buffer = data
                return
            data = data[head_end:]
            self._greet()
        at, end = 0, len(data)
        head, skip, load = self._head, len(self._head) + 1, self._load
        now = time.perf_counter()
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start + size > end:
                break
            if data.startswith(head, start):
                longer = data[start + skip - 1] >> 7  # the length has two bytes
                load.got(data[start + skip + longer : start + size], now, self)
            elif data.startswith(self._prefix + b"\0\x01", start) and not self.ready.done():
                self.ready.set_result(None)
            at = start + size
        self._buffer = data[at:]

    def _greet(self) -> None:
        """Send the first messages after the handshake."""
        self._open = True
        if self._greeting:
            self.say(self._greeting)
        self.say(self._prefix + protocol.state(b"\0"))

    def connection_lost(self, error: Exception | None) -> None:
        """Record that the server closed the connection."""
        self._load.lost += 1

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()


class Load:
    """The updates of a run, and the times of their arrival."""

    def __init__(self) -> None:
        self.sent: dict[bytes, tuple[float, Client]] = {}
        self.clocks: dict[tuple[int, int], bytes] = {}
        self.delays: list[float] = []
        self.lost = 0
        self._wanted = sys.maxsize
        self._all = asyncio.Event()

    def got(self, update: bytes, now: float, client: Client) -> None:
        """Record the arrival of an update at another client, possibly as a part of a larger update."""
        sent = self.sent.get(update)
        if sent is None:
            walk = scan_update(update)
            for who, start in walk.starts.items():
                for clock in range(start, walk.ends[who]):
                    self._arrived(self.sent.get(self.clocks.get((who, clock), b"")), now, client)
        else:
            self._arrived(sent, now, client)

    def _arrived(self, sent: tuple[float, Client] | None, now: float, client: Client) -> None:
        if sent is not None and sent[1] is not client:
            self.delays.append(now - sent[0])
            if len(self.delays) >= self._wanted:
                self._all.set()

    async def until(self, many: int) -> None:
        """Wait until a number of updates arrived."""
        self._wanted = many
        if len(self.delays) < many:
            await self._all.wait()


def _typed(many: int) -> list[bytes]:
    """Return the updates of one client, with one character each."""
    document = TextDocument(client=new_client_id())
    return [document.edit([(at, at, random.choice("abcdefgh "))]) for at in range(many)]


async def measure(contender: Contender, clients: int, typists: int, seconds: float) -> Result:
    """Run the benchmark once in a new text."""
    load = Load()
    path = contender.room()
    loop = asyncio.get_running_loop()
    everyone: list[Client] = []
    for number in range(clients):
        make = partial(Client, path, contender, load, watches=number * WATCHERS % clients < WATCHERS)
        _, client = await loop.create_connection(make, "127.0.0.1", contender.port)
        everyone.append(client)
    async with asyncio.timeout(30):
        await asyncio.gather(*(client.ready for client in everyone))
    texts = [_typed(round((seconds + WARM_UP) * PER_SECOND)) for _ in range(typists)]

    async def person(client: Client, updates: list[bytes], start: float) -> None:
        for number, update in enumerate(updates):
            await asyncio.sleep(start + number / PER_SECOND - loop.time())
            load.sent[update] = (time.perf_counter(), client)
            load.clocks.update(dict.fromkeys(scan_update(update).starts.items(), update))
            client.type(update)

    first = loop.time() + 0.1
    people = [
        asyncio.create_task(person(client, updates, first + random.random() / PER_SECOND))
        for client, updates in zip(everyone, texts, strict=False)
    ]
    await asyncio.sleep(WARM_UP)
    load.delays.clear()
    load.sent.clear()
    before, started = cpu(contender.process), time.perf_counter()
    await asyncio.gather(*people)
    spent, took = cpu(contender.process) - before, time.perf_counter() - started
    expected = sum(client is not one for _, client in load.sent.values() for one in everyone if one.watches)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await load.until(expected)
    if load.lost:
        print(f"  {load.lost} clients were sent away", file=sys.stderr)
    for client in everyone:
        client.close()
    delays = sorted(load.delays) or [float("inf")]
    return Result(
        1000 * delays[len(delays) // 2],
        1000 * delays[int(len(delays) * 0.99)],
        spent / took,
        len(load.delays) / max(1, expected),
    )


def _median(results: list[Result]) -> Result:
    return Result(*(statistics.median(getattr(one, name) for one in results) for name in Result.__annotations__))


async def _most(contender: Contender, steps: list[int], seconds: float) -> int:
    """Return the largest number of typing clients for which the 99th percentile stays within the limit."""
    most = 0
    for people in steps:
        result = await measure(contender, people, people, seconds)
        print(
            f"  {contender.name:12} {people:4} type: p99 {result.p99:7.1f} ms, CPU {100 * result.cpu:4.0f} %",
            flush=True,
        )
        if result.p99 > 1000 * GOOD or result.delivered < 0.999:
            break
        most = people
    return most


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all measurements, and return the results."""
    with tempfile.TemporaryDirectory() as folder, contenders(Path(folder)) as both:
        found: dict[str, list[Result]] = {one.name: [] for one in both}
        for number in range(arguments.runs):
            for contender in both if number % 2 else reversed(both):
                result = await measure(contender, arguments.clients, arguments.typists, arguments.seconds)
                found[contender.name].append(result)
                await asyncio.sleep(0.5)
        medians = {name: _median(results) for name, results in found.items()}
        print(f"{arguments.clients} clients, {arguments.typists} of which type {PER_SECOND} characters a second;")
        print(f"medians of {arguments.runs} runs of {arguments.seconds:g} s")
        for name, one in medians.items():
            print(
                f"  {name:12} p50 {one.p50:6.1f} ms, p99 {one.p99:6.1f} ms, CPU {100 * one.cpu:4.0f} %,"
                f" delivered {100 * one.delivered:.2f} %"
            )
        most = {}
        if arguments.most:
            print(f"everybody types: the most for whom p99 is at most {1000 * GOOD:g} ms")
            most = {one.name: await _most(one, arguments.steps, arguments.seconds / 2) for one in both}
            for name, people in most.items():
                print(f"  {name:12} {people}")
        return {"medians": {name: asdict(one) for name, one in medians.items()}, "most": most}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--typists", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--most", action="store_true", help="look for the largest number of people, too")
    parser.add_argument(
        "--steps", type=lambda text: [int(one) for one in text.split(",")], default=[20, 30, 40, 60, 80, 100, 120, 150]
    )
    parser.add_argument("--json", help="write the figures into this file")
    arguments = parser.parse_args()
    if arguments.seconds > LONGEST:
        parser.error(f"--seconds is at most {LONGEST}: the clients do not answer pings")
    figures = uvloop.run(run(arguments))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
