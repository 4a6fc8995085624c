"""Hostile clients in a separate process: ``python -m tests.faults.attacks <url> <large> <small> <crowded> …``.

Each client repeats one attack until the time is up, and ignores everything that it receives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from realtime.rooms import lib0, protocol
from tests.faults.raw import BINARY, FIRST_BINARY, MORE, PING, PONG, TEXT, frame
from tests.support.room_client import Text, alternating, many_clients, state_of, states_of, without_origins

PAUSE = 0.05
"""The delay in seconds before a client reconnects after its connection ended."""
READ = 256 * 1024
CROWD_START, CROWD = 1000, 20_000
"""The first id and the number of the clients of the crowded text."""


class Target(NamedTuple):
    """A server, with the ids of notes: with a large shared text, with a small one, and with one of many clients."""

    url: str
    large: int
    small: int
    crowded: int


class Attack(NamedTuple):
    """Messages to send to a WebSocket, one at a time."""

    path: str
    pieces: Callable[[], Iterator[bytes]]
    pause: float = 0.0
    """The delay in seconds between two messages."""


def _vector(entries: int) -> bytes:
    return protocol.state(
        lib0.number(entries) + b"".join(lib0.number(2**31 + entry) + b"\1" for entry in range(entries))
    )


def _forged() -> Iterator[bytes]:
    for clock in range(1, 400):
        client = random.randrange(1, 40)
        yield frame(
            BINARY, state_of(client, random.choice((clock, 2**31 - 1, 2**53 - 1)), random.choice(("null", "{}")))
        )


def _states(size: int) -> Iterator[bytes]:
    """Yield states of 32 clients that change constantly."""
    base = random.randrange(100, 2**31)
    for clock in range(1, 100):
        for client in range(32):
            yield frame(BINARY, state_of(base + client, clock, '"' + "x" * size + '"'))


def _presence(note: int) -> Iterator[bytes]:
    for number in range(5000):
        state = {"name": "x" * 900, "number": number}
        yield frame(TEXT, json.dumps({"type": "presence", "id": note, "state": state}).encode())


def _cycle(note: int) -> Iterator[bytes]:
    """Yield messages that join and leave a note, to get the list of participants repeatedly."""
    for number in range(5000):
        state = "{}" if number % 2 == 0 else "null"
        yield frame(TEXT, b'{"type":"presence","id":%d,"state":%s}' % (note, state.encode()))


def _searches() -> Iterator[bytes]:
    """Yield updates whose position the library searches for in the entire text, each from a new client."""
    yield frame(BINARY, protocol.update(alternating(10_000)))
    for _ in range(20):
        yield frame(BINARY, protocol.update(without_origins(random.randrange(2**31, 2**32), 480)))


def _new_clients() -> Iterator[bytes]:
    for _ in range(200):
        yield frame(BINARY, protocol.update(many_clients(random.randrange(2**31, 2**32 - 2), 2)))


def _same(piece: bytes, times: int) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([piece] * times)


def attacks(target: Target) -> dict[str, Attack]:
    """Return all attacks over WebSockets by name."""
    large, small, crowded = (f"/sync/{note}" for note in target[1:])
    vector = lib0.number(CROWD) + b"".join(lib0.number(CROWD_START + number) + b"\1" for number in range(CROWD))
    hello = frame(BINARY, Text().hello())
    fragments = frame(FIRST_BINARY, b"\0") + frame(MORE, b"\0") * 20_000
    return {
        "questions for a large text at once": Attack(large, _same(hello * 1500, 1)),
        "questions for a large text, paced": Attack(large, _same(hello, 600), 1 / 58),
        "other questions for a large text": Attack(
            large, lambda: (frame(BINARY, _vector(n)) for n in range(300)), 1 / 58
        ),
        "state vectors of 1 MiB": Attack(small, _same(frame(BINARY, _vector(174_000)), 10)),
        "state vectors of 60 kB": Attack(small, _same(frame(BINARY, _vector(10_000)), 60), 1 / 20),
        "questions for awareness": Attack(small, _same(frame(BINARY, b"\3") * 3000, 1)),
        "large states": Attack(small, lambda: _states(7500), 1 / 100),
        "many small states": Attack(small, lambda: _states(1), 1 / 120),
        "a state for each of 10 000 clients": Attack(small, _same(frame(BINARY, states_of(range(10_000))), 5)),
        "states for clients of others": Attack(small, _forged, 1 / 100),
        "large presence": Attack("/ws", lambda: _presence(target.small)),
        "presence on and off": Attack("/ws", lambda: _cycle(target.small), 1 / 20),
        "pings": Attack("/ws", _same(frame(PING, b"x" * 100) * 2000, 50)),
        "pongs": Attack("/ws", _same(frame(PONG) * 5000, 50)),
        "fragments": Attack(small, _same(fragments, 5)),
        "pieces without origins": Attack(large, _searches, 1 / 20),
        "state vectors of many clients": Attack(crowded, _same(frame(BINARY, protocol.state(vector)), 100), 1 / 20),
        "updates of new clients": Attack(crowded, _new_clients, 1 / 20),
        "nonsense": Attack(small, lambda: (frame(BINARY, random.randbytes(60)) for _ in range(50))),
    }


async def attack(target: Target, one: Attack) -> None:
    """Connect, and send the messages of an attack until they end or the connection closes."""
    to = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    reading = asyncio.create_task(_drain(reader))
    try:
        head = f"GET {one.path} HTTP/1.1\r\nHost: {to.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(f"{head}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        for piece in one.pieces():
            if reading.done():
                break
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(one.pause)
        await reading
    finally:
        reading.cancel()
        writer.transport.abort()


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(READ):
        pass


async def _repeat(make: Callable[[], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError):
            await make()
        await asyncio.sleep(PAUSE)


async def main(target: Target, clients: int, seconds: float) -> None:
    """Run a number of clients that each repeat one of the attacks."""
    kinds = list(attacks(target).values())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for number in range(clients):
                one = kinds[number % len(kinds)]
                group.create_task(_repeat(lambda one=one: attack(target, one)))  # type: ignore[misc]


if __name__ == "__main__":
    url, large, small, crowded, clients, seconds = sys.argv[1:]
    asyncio.run(main(Target(url, int(large), int(small), int(crowded)), int(clients), float(seconds)))
