"""Clients that send invalid data or almost nothing. They must affect only their own connection."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from urllib.parse import urlsplit

import psutil

from realtime.rooms import lib0
from realtime.websocket.connection import MAX_MESSAGE_BYTES
from realtime.websocket.feed_endpoint import MAX_FRAME_BYTES
from tests.faults.load import crowd
from tests.faults.raw import BINARY, CLOSE, FIRST, LAST, MORE, PING, TEXT, Peer, close_frame, frame  # fmt: skip
from tests.faults.scenario import Figures, Run, scenario
from tests.support.harness import UNIT, ServerProcess

MIB = 1024 * 1024
BURST = 20
"""The number of frames that a client sends. The first one ends the connection."""
SMALL = 1000
AT_ONCE = 24
TIMES_TO_WARM_UP = 3

BOMB = zlib.compressobj(wbits=-15)
DEFLATED = BOMB.compress(bytes(8 * MIB)) + BOMB.flush(zlib.Z_SYNC_FLUSH)
"""8 MiB as permessage-deflate would send them."""

WORDS = ("", "{}", "[]", "null", "0", "1e999", '"', "[" * 20_000, '{"type":' * 500, '{"type": "fly"}', "\0", "\ud7ff")
OBJECTS: tuple[object, ...] = (
    {"type": "presence"}, {"type": "presence", "id": 0, "state": {}}, {"type": "presence", "id": 2**63, "state": {}},
    {"type": "presence", "id": 1, "state": []}, {"type": "presence", "id": "1", "state": {}, "more": 1},
    {"type": "presence", "id": 1, "state": {"a": "b" * 5000}}, {"type": "auth"}, {"type": None}, {"type": ["pong"]},
)  # fmt: skip


@dataclass(frozen=True)
class Nonsense:
    """An invalid frame, and its close codes at ``/ws`` and at ``/sync``."""

    make: Callable[[Random], bytes]
    feed: int
    sync: int

    @classmethod
    def alike(cls, code: int, make: Callable[[Random], bytes]) -> Nonsense:
        """Return an invalid frame with the same close code at both endpoints."""
        return cls(make, code, code)


def _beyond(random: Random, kind: int) -> bytes:
    """Return the header of a frame that would make a message too large."""
    return bytes((kind, 0xFF)) + (MAX_MESSAGE_BYTES + random.randrange(1, 2**40)).to_bytes(8, "big")


def _text(random: Random) -> bytes:
    if random.random() < 0.5:
        return json.dumps(random.choice(OBJECTS)).encode()
    return random.choice(WORDS).encode()


def _invalid(random: Random) -> bytes:
    return random.choice((b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\x80"))


def _sync(random: Random) -> bytes:
    """Return an invalid message of the sync protocol, or a message with an invalid update."""
    if random.random() < 0.5:
        return bytes((random.randrange(4, 128),)) + random.randbytes(random.randrange(20))
    return b"\0" + random.choice(b"\1\2").to_bytes() + lib0.array(b"\xff" + random.randbytes(random.randrange(50)))


NONSENSE = {
    "not masked": Nonsense.alike(1002, lambda random: frame(TEXT, random.randbytes(9), mask=None)),
    "reserved bits": Nonsense.alike(1002, lambda random: frame(TEXT | random.randrange(1, 8) << 4, b"{}")),
    "bomb": Nonsense.alike(1002, lambda _: frame(TEXT | 0x40, DEFLATED)),
    "reserved opcode": Nonsense.alike(1002, lambda random: frame(0x80 | random.choice((3, 7, 11, 15)), b"a")),
    "long ping": Nonsense.alike(1002, lambda random: frame(PING, random.randbytes(random.randrange(126, 300)))),
    "ping in parts": Nonsense.alike(1002, lambda _: frame(PING & 0x7F)),
    "part of nothing": Nonsense.alike(1002, lambda random: frame(random.choice((MORE, LAST)), b"a")),
    "message within a message": Nonsense.alike(1002, lambda _: frame(FIRST, b"a") + frame(TEXT, b"b")),
    "half a close": Nonsense.alike(1002, lambda _: frame(CLOSE, b"\3")),
    "close with no code": Nonsense.alike(1002, lambda random: close_frame(random.choice((0, 999, 1005, 2999, 5000)))),
    "oversize": Nonsense.alike(1009, lambda random: _beyond(random, random.choice((TEXT, BINARY)))),
    "oversize in parts": Nonsense.alike(1009, lambda random: frame(FIRST, bytes(9)) + _beyond(random, MORE)),
    "no UTF-8": Nonsense.alike(1007, lambda random: frame(TEXT, _invalid(random))),
    "no UTF-8 in parts": Nonsense.alike(1007, lambda random: frame(FIRST, b"a") + frame(LAST, _invalid(random))),
    "text": Nonsense.alike(4500, lambda random: frame(TEXT, _text(random))),
    "large": Nonsense(lambda random: frame(TEXT, b" " * (MAX_FRAME_BYTES + random.randrange(1, 999))), 1009, 4500),
    "binary": Nonsense.alike(4500, lambda random: frame(BINARY, _sync(random))),
}  # fmt: skip
"""Invalid frames by name."""


class Mob:
    """Clients that send invalid data to a server, and the checks of the responses."""

    def __init__(self, server: ServerProcess, note: int, random: Random) -> None:
        self._random = random
        self._ways = {"feed": server.ws, "sync": f"{server.url.replace('http', 'ws', 1)}/sync/{note}"}
        self.frames = 0

    async def one(self, kind: str, way: str, *, early: bool) -> None:
        """Send several invalid frames, and check that the connection closes with the code for the first one."""
        random = self._random
        nonsense = NONSENSE[kind]
        wanted = nonsense.feed if way == "feed" else nonsense.sync
        burst = [frame(PING, b"here"), nonsense.make(random)]
        if wanted < 4000:  # else the message may be queued, while protocol errors are handled at once
            burst += (random.choice(list(NONSENSE.values())).make(random) for _ in range(BURST - 2))
        # If data larger than one read stayed unread, the system would discard the close frame.
        burst = [one for number, one in enumerate(burst) if number < 2 or len(one) < SMALL]
        self.frames += len(burst)
        what = f"{kind} at {way}{', at once' if early else ''}"
        async with await Peer.arrive(self._ways[way]) as peer:
            assert peer.head.startswith(b"HTTP/1.1 101"), (what, peer.head)
            if not early:
                assert await peer.until(TEXT if way == "feed" else BINARY, b"ready" if way == "feed" else b""), what
            await peer.say([b"".join(burst)])
            assert await peer.end() == wanted, (what, peer.code, peer.texts, burst[1][:200])
            assert peer.pongs == [b"here"], what

    async def vague(self, way: str) -> None:
        """Send random bytes or half of a frame, and then close the sending side."""
        random = self._random
        whole = frame(random.choice((TEXT, BINARY)), random.randbytes(random.randrange(1, 300)))
        data = random.choice((random.randbytes(random.randrange(1, 200)), whole[: random.randrange(1, len(whole))]))
        self.frames += 1
        async with await Peer.arrive(self._ways[way]) as peer:
            await peer.say([data])
            peer.finish()
            assert await peer.end() in (None, 1000, 1002, 1005, 1007, 1009, 4500), (data, peer.code)

    async def round(self) -> None:
        """Run one client of each kind in random order, a limited number at a time."""
        random = self._random
        peers = [
            partial(self.one, kind, way, early=early)
            for kind in NONSENSE
            for way in self._ways
            for early in (True, False)
        ]
        peers += [partial(self.vague, way) for way in self._ways for _ in range(4)]
        random.shuffle(peers)
        turns = iter(peers)

        async def lane() -> None:
            for peer in turns:
                await peer()

        async with asyncio.TaskGroup() as lanes:
            for _ in range(AT_ONCE):
                lanes.create_task(lane())


@scenario(
    "nonsense",
    invariant="each is closed with the correct code, and other clients are unaffected",
    mark="10⁶ frames, 0 crashes, resident memory + ≤ 4 MiB",
    unit="frames",
    full=1_000_000,
    slice=3000,
)
async def nonsense(run: Run) -> Figures:
    """Send frames that are too large, truncated, random, not UTF-8, not masked, or compression bombs."""
    settings = await run.testbed.settings()
    server = await run.testbed.serve(settings, log_level="warning")
    process = psutil.Process(server.pid)
    async with crowd(run, lambda: server.url, settings, writers=1, each=1, typists=1, pause=0.2) as load:
        load.writers.pause = 0.2
        mob = Mob(server, load.typists[0].note, run.random)
        for _ in range(TIMES_TO_WARM_UP):
            await mob.round()
        before = process.memory_info().rss
        while mob.frames < run.times:
            await mob.round()
            run.progress(min(mob.frames, run.times))
        grown = process.memory_info().rss - before
    _unmoved(server)
    figures = load.figures
    figures.faults = mob.frames
    figures.extra["memory"] = f"{grown / MIB:+.1f} MiB"
    figures.must(grown <= 4 * MIB)
    return figures


def _unmoved(server: ServerProcess) -> None:
    """Check that the server is running and has logged only invalid requests."""
    assert server.process is not None
    assert server.process.poll() is None
    complaints = [line for line in server.log().splitlines() if not re.search("Invalid HTTP request", line)]
    assert complaints == [], complaints[:5]


HEAD = "GET /ping HTTP/1.1\r\nHost: test\r\n"


async def _answer(server: ServerProcess, pieces: list[bytes], pause: float) -> int | None:
    """Send a request slowly, and return the status of the response; ``None`` without one."""
    to = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(to.hostname, to.port)
    reading = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    try:
        with suppress(ConnectionError):
            for piece in pieces:
                if reading.done():
                    break
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        async with asyncio.timeout(40 * UNIT):
            head = await reading
        return int(head.split()[1])
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        reading.cancel()
        writer.transport.abort()


@scenario(
    "slow-requests",
    invariant="a head or body that does not end is refused, and other clients do not wait for it",
    mark="1 000 at once, 100 000 headers: 408 and 431; another 1 000 take ≤ 4 MiB of additional memory",
    unit="peers",
    full=1000,
    slice=40,
)
async def slow_requests(run: Run) -> Figures:
    """Send partial heads and bodies, slowly or not at all, and heads with 100,000 headers; everything twice."""
    settings = await run.testbed.settings()
    server = await run.testbed.serve(settings, log_level="warning")
    process = psutil.Process(server.pid)
    large = [HEAD.encode(), *[b"a: b\r\n" * 1000] * 100]
    slow = [bytes((byte,)) for byte in (HEAD + "a: b\r\n" * 100).encode()]
    half = [HEAD[: run.random.randrange(1, len(HEAD))].encode()]
    upgrade = [(HEAD + "Upgrade: websocket\r\n").encode()]
    body = [b"POST /notes/ HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n", *[b" "] * 900]
    memory: list[int] = []
    async with crowd(run, lambda: server.url, settings, writers=1, each=1, typists=1, pause=0.2) as load:
        load.writers.pause = 0.05
        for wave in (1, 2):
            answers = await asyncio.gather(
                *(
                    _answer(server, *run.random.choice([(half, 0.0), (slow, 0.1), (upgrade, 0.0), (body, 0.1)]))
                    for _ in range(run.times)
                )
            )
            assert set(answers) == {408}, set(answers)
            for _ in range(run.times // 20):
                assert await _answer(server, large, 0) == 431
            memory.append(process.memory_info().rss)
            run.progress(wave * run.times // 2)
    _unmoved(server)
    grown = memory[1] - memory[0]
    figures = load.figures
    figures.faults = 2 * run.times
    figures.extra["memory"] = f"{grown / MIB:+.1f} MiB"
    figures.must(grown <= 4 * MIB)
    return figures
