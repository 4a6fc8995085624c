"""The cases of the fuzzing client of the Autobahn|Testsuite, at ``/ws`` and ``/sync``.

The suite expects an echo server, and this server does not echo. So a valid message is a presence that the server sends
back, or a message that the application rejects with its own code (4500) and not with a code of the protocol. An invalid
message is closed with a code of the protocol and does not reach the application. Binary messages are those of
``/sync``: the state of a document or, where they are larger than such a state, a message that the application rejects.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from realtime.rooms import lib0, protocol
from realtime.websocket.connection import MAX_MESSAGE_BYTES
from realtime.websocket.feed_endpoint import MAX_FRAME_BYTES
from tests.faults.raw import (  # fmt: skip
    BINARY,
    CLOSE,
    FIRST,
    FIRST_BINARY,
    LAST,
    MORE,
    PING,
    PONG,
    TEXT,
    Peer,
    close_frame,
    frame,
)
from tests.faults.scenario import Figures, Run, scenario
from tests.faults.utf8 import INVALID, VALID
from tests.support.harness import note_in, rest_client

NOT_FOR_THIS_SERVER = {
    "1.1.1, 6.1.1-2": "as they are: an empty text is no JSON; that it gets through to the refusal is looked at",
    "9.1.2-6, 9.3-9.6 over 64 KiB": "as they are: the limit of a frame is 64 KiB at /ws, and 1 MiB at /sync; that 1009"
    " comes then is looked at",
    "9.8.*": "150 messages instead of 1 000: at /sync more of them at once are too many (4029)",
    "12.*, 13.*": "no extension is negotiated, as one encoding of an event serves all clients; that an offer is left"
    " unanswered is looked at",
}
"""Cases that need changes, and the reason for each."""


@dataclass(frozen=True)
class Case:
    """The data to send in pieces, and the expected result.

    ``echoes`` are the presences that the server sends back, at most before a close. ``code`` is the close code; without
    one, the connection stays open.
    """

    id: str
    pieces: list[bytes]
    code: int | None = None
    pongs: tuple[bytes, ...] = ()
    echoes: int = 0
    binary: bool = False


def presence(words: str = "words", size: int = 0) -> bytes:
    """Return a message that the server sends back, padded to a size if that is larger."""
    return json.dumps({"type": "presence", "id": 1, "state": {"words": words}}, ensure_ascii=False).encode().ljust(size)


def sync(size: int) -> bytes:
    """Return a message for ``/sync`` with a given size: the state of a document, if it can be that large."""
    if size > LARGEST_STATE:
        return REFUSED.ljust(size)
    clients = [lib0.number(2**28 + client) + b"\0" for client in range(max(0, size - 12) // 6)]
    message = protocol.state(lib0.number(len(clients)) + b"".join(clients))
    for client in range(min(size - len(message), len(clients))):
        clients[client] = clients[client][:-1] + lib0.number(128)  # a clock with one more byte
    return protocol.state(lib0.number(len(clients)) + b"".join(clients))


def cut(data: bytes, size: int = 1) -> list[bytes]:
    """Split data into pieces."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def code_of(size: int) -> int | None:
    """Return the close code for a message of :func:`sync`, or ``None``."""
    return None if size <= LARGEST_STATE else 4500


def parts(message: bytes, size: int, first: int = FIRST) -> list[bytes]:
    """Return a message in frames of a given size."""
    pieces = cut(message, size) or [b""]
    kinds = [first, *[MORE] * (len(pieces) - 1)]
    kinds[-1] |= LAST
    return [frame(kind, piece) for kind, piece in zip(kinds, pieces, strict=True)]


LARGEST_STATE = 4096
REFUSED = b"\4"
LANES = 8
"""The number of concurrent binary cases."""
WORD = presence()
HALF = len(WORD) // 2
ONE, TWO = frame(FIRST, WORD[:HALF]), frame(LAST, WORD[HALF:])


def _sizes() -> Iterator[Case]:
    yield Case("1.1.1", [frame(TEXT)], 4500)
    for number, size in enumerate((125, 126, 127, 128, 65535, 65536), 2):
        yield Case(f"1.1.{number}", [frame(TEXT, presence(size=size))], echoes=1)
    yield Case("1.1.8", cut(frame(TEXT, presence(size=65536)), 997), echoes=1)
    yield Case("1.2.1", [frame(BINARY)], 4500, binary=True)
    for number, size in enumerate((125, 126, 127, 128, 65535, 65536), 2):
        yield Case(f"1.2.{number}", [frame(BINARY, sync(size))], code_of(size), binary=True)
    yield Case("1.2.8", cut(frame(BINARY, sync(65536)), 997), 4500, binary=True)


def _pings() -> Iterator[Case]:
    raw, long = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125
    for number, payload in enumerate((b"", b"Hello, world!", raw, long), 1):
        yield Case(f"2.{number}", [frame(PING, payload)], pongs=(payload,))
    yield Case("2.5", [frame(PING, long + b"\xfe")], 1002)
    yield Case("2.6", cut(frame(PING, long)), pongs=(long,))
    yield Case("2.7", [frame(PONG)])
    yield Case("2.8", [frame(PONG, b"unsolicited")])
    yield Case("2.9", [frame(PONG, b"unsolicited"), frame(PING, b"asked")], pongs=(b"asked",))
    many = tuple(b"payload %d" % number for number in range(10))
    yield Case("2.10", [frame(PING, one) for one in many], pongs=many)
    yield Case("2.11", cut(b"".join(frame(PING, one) for one in many)), pongs=many)


def _reserved() -> Iterator[Case]:
    yield Case("3.1", [frame(TEXT | 0x10, WORD)], 1002)
    for number, bits in ((2, 0x20), (3, 0x30), (4, 0x40)):
        pieces = [frame(TEXT, WORD), frame(TEXT | bits, WORD), frame(PING)]
        yield Case(f"3.{number}", cut(b"".join(pieces)) if number == 4 else pieces, 1002, echoes=1)
    yield Case("3.5", [frame(BINARY | 0x50, b"\0\xff")], 1002)
    yield Case("3.6", [frame(PING | 0x60, b"Hello")], 1002)
    yield Case("3.7", [frame(CLOSE | 0x70)], 1002)
    for number, kind in enumerate((0x83, 0x8B), 1):
        yield Case(f"4.{number}.1", [frame(kind)], 1002)
        yield Case(f"4.{number}.2", [frame(kind + 1, b"payload")], 1002)
        for more in (2, 3, 4):
            pieces = [frame(TEXT, WORD), frame(kind + more, b"payload" if more > 2 else b""), frame(PING)]
            yield Case(f"4.{number}.{more + 1}", cut(b"".join(pieces)) if more == 4 else pieces, 1002, echoes=1)


def _fragments() -> Iterator[Case]:
    ping, nothing = frame(PING, b"ping"), frame(LAST, b"non-continuation payload")
    yield Case("5.1", [frame(PING & 0x7F, b"frag"), frame(LAST, b"ment")], 1002)
    yield Case("5.2", [frame(PONG & 0x7F, b"frag"), frame(LAST, b"ment")], 1002)
    for start, middle, pongs in ((3, [], ()), (6, [ping], (b"ping",))):
        frames = [ONE, *middle, TWO]
        for number, pieces in enumerate(([b"".join(frames)], frames, cut(b"".join(frames)))):
            yield Case(f"5.{start + number}", pieces, pongs=pongs, echoes=1)
    begun = frame(MORE, b"non-continuation payload")
    for start, stray in ((9, nothing), (12, begun)):
        frames = [stray, frame(TEXT, WORD)]
        for number, pieces in enumerate(([b"".join(frames)], frames, cut(b"".join(frames)))):
            yield Case(f"5.{start + number}", pieces, 1002)
    yield Case("5.15", [ONE, TWO, begun, frame(TEXT, WORD)], 1002, echoes=1)
    yield Case("5.16", [begun, ONE, TWO, begun, ONE, TWO], 1002)
    yield Case("5.17", [nothing, ONE, TWO, nothing, ONE, TWO], 1002)
    yield Case("5.18", [ONE, frame(TEXT, WORD[HALF:])], 1002)
    fifths = parts(WORD, -(-len(WORD) // 5))
    mixed = [*fifths[:2], frame(PING, b"1"), *fifths[2:4], frame(PING, b"2"), fifths[4]]
    yield Case("5.19", mixed, pongs=(b"1", b"2"), echoes=1)
    yield Case("5.20", [b"".join(mixed)], pongs=(b"1", b"2"), echoes=1)


def _unicode() -> Iterator[Case]:
    yield Case("6.1.1", [frame(TEXT)], 4500)
    yield Case("6.1.2", [frame(FIRST), frame(MORE), frame(LAST)], 4500)
    yield Case("6.1.3", [frame(FIRST), frame(MORE, WORD), frame(LAST)], echoes=1)
    greek = presence("Hello-µ@ßöäüàá-UTF-8!!")
    yield Case("6.2.1", [frame(TEXT, greek)], echoes=1)
    at = greek.index("ß".encode())
    yield Case("6.2.2", [frame(FIRST, greek[:at]), frame(LAST, greek[at:])], echoes=1)
    yield Case("6.2.3", parts(greek, 1), echoes=1)
    yield Case("6.2.4", parts(presence("κόσμε"), 1), echoes=1)
    for id, text in VALID.items():
        yield Case(id, [frame(TEXT, text)], 4500)  # valid UTF-8, but no JSON
    for id, text in INVALID.items():
        yield Case(id, [frame(TEXT, text)], 1007)
    broken = presence("κόσμε").replace(b"}", b"\xf4\x90\x80\x80}")
    yield Case("6.3.2", parts(broken, 1), 1007)
    at = broken.index(b"\xf4")
    yield Case(
        "6.4.1", [frame(FIRST, broken[:at]), frame(MORE, broken[at : at + 4]), frame(LAST, broken[at + 4 :])], 1007
    )
    yield Case("6.4.2", [frame(FIRST, broken[: at + 3]), frame(MORE, broken[at + 3 : at + 4]), frame(LAST, b"}")], 1007)
    yield Case("6.4.3", cut(frame(TEXT, broken), at + 6), 1007)
    yield Case("6.4.4", cut(frame(TEXT, broken)), 1007)


def _closes() -> Iterator[Case]:
    normal = close_frame(1000)
    yield Case("7.1.1", [frame(TEXT, WORD), normal], 1000, echoes=1)
    yield Case("7.1.2", [normal, normal], 1000)
    yield Case("7.1.3", [normal, frame(PING)], 1000)
    yield Case("7.1.4", [normal, frame(TEXT, WORD)], 1000)
    yield Case("7.1.5", [ONE, normal, TWO], 1000)
    yield Case(
        "7.1.6", [frame(BINARY, sync(4096)) * 64 + frame(BINARY, sync(0)), normal, frame(PING)], 1000, binary=True
    )
    yield Case("7.3.1", [frame(CLOSE)], 1005)
    yield Case("7.3.2", [frame(CLOSE, b"a")], 1002)
    yield Case("7.3.3", [normal], 1000)
    yield Case("7.3.4", [close_frame(1000, b"Hello World!")], 1000)
    yield Case("7.3.5", [close_frame(1000, b"*" * 123)], 1000)
    yield Case("7.3.6", [close_frame(1000, b"*" * 124)], 1002)
    yield Case("7.5.1", [close_frame(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited")], 1007)
    good = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    bad = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
    for number, code in enumerate(good, 1):
        yield Case(f"7.7.{number}", [close_frame(code)], code)
    for number, code in enumerate(bad, 1):
        yield Case(f"7.9.{number}", [close_frame(code)], 1002)
    yield Case("7.13.1", [close_frame(5000)], 1002)
    yield Case("7.13.2", [close_frame(65535)], 1002)


def _limits() -> Iterator[Case]:
    sizes = [size * 1024 for size in (64, 256, 1024, 4096, 8192, 16384)]
    for number, size in enumerate(sizes, 1):
        fits, known = size <= MAX_FRAME_BYTES, size <= MAX_MESSAGE_BYTES
        head = frame(TEXT, presence(size=size)) if known else frame(TEXT, b"", wide=8)[:2] + size.to_bytes(8, "big")
        yield Case(f"9.1.{number}", [head], None if fits else 1009, echoes=fits)
        head = frame(BINARY, sync(size)) if known else frame(BINARY, b"", wide=8)[:2] + size.to_bytes(8, "big")
        yield Case(f"9.2.{number}", [head], 4500 if known else 1009, binary=True)
    for number, size in enumerate((64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304), 1):
        yield Case(f"9.3.{number}", parts(presence(size=MAX_FRAME_BYTES), size), echoes=1)
        yield Case(f"9.4.{number}", parts(sync(MAX_MESSAGE_BYTES), max(size, 1024), FIRST_BINARY), 4500, binary=True)
    for number, size in enumerate((64, 128, 256, 512, 1024, 2048), 1):
        yield Case(f"9.5.{number}", cut(frame(TEXT, presence(size=MAX_FRAME_BYTES)), size), echoes=1)
        yield Case(f"9.6.{number}", cut(frame(BINARY, sync(MAX_MESSAGE_BYTES)), size), 4500, binary=True)
    for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
        pong = frame(TEXT, b'{"type":"pong"}'.ljust(size))
        yield Case(f"9.7.{number}", [pong * 1000])
        yield Case(f"9.8.{number}", [frame(BINARY, sync(size)) * 150], binary=True)
    yield Case("10.1.1", parts(presence(size=65536), 1300), echoes=1)


CASES = [
    case for cases in (_sizes, _pings, _reserved, _fragments, _unicode, _closes, _limits) for case in cases()
]  # fmt: skip


async def judge(url: str, case: Case, note: int) -> None:
    """Run a case, and raise ``AssertionError`` if the result differs from the expected one."""
    path = f"sync/{note}" if case.binary else "ws"
    async with await Peer.arrive(f"{url.replace('http', 'ws', 1)}/{path}") as peer:
        if not case.binary:
            assert await peer.until(TEXT, b'"ready"'), case.id
        await peer.say(case.pieces)
        if case.code is None:
            await peer.say([frame(PING, b"the end")])
            assert await peer.until(PONG, b"the end"), (case.id, peer.code, peer.texts)
            peer.pongs.remove(b"the end")
            for _ in range(case.echoes):
                assert await peer.until(TEXT, b'"state":{'), (case.id, peer.code)
        else:
            await peer.end()
        assert (peer.code, tuple(peer.pongs)) == (case.code, case.pongs), (case.id, peer.code, peer.pongs, peer.texts)
        if not case.echoes:
            assert not any(b'"presence"' in text for text in peer.texts), (case.id, peer.texts)


@scenario(
    "conformance",
    invariant="RFC 6455, with the cases of the Autobahn Testsuite",
    mark="0 failures",
    unit="cases",
    full=2 * len(CASES),
    slice=len(CASES),
)
async def conformance(run: Run) -> Figures:
    """Run all cases in random order. The full run does it twice, so that each case also runs after others."""
    settings = await run.testbed.settings()
    server = await run.testbed.serve(settings, log_level="warning")
    async with rest_client(server.url) as rest:
        note = (await rest.post("/notes/", json=note_in())).json()["id"]
    assert note == 1
    cases = [run.random.choice(CASES) for _ in range(run.times % len(CASES))] + CASES * (run.times // len(CASES))
    run.random.shuffle(cases)
    done = count(1)

    async def lane(some: Iterator[Case]) -> None:
        for case in some:
            await judge(server.url, case, note)
            run.progress(next(done))

    async with asyncio.TaskGroup() as lanes:
        # one at a time, because presences are sent to all clients
        lanes.create_task(lane(case for case in cases if not case.binary))
        binary = (case for case in cases if case.binary)
        for _ in range(LANES):
            lanes.create_task(lane(binary))
    async with await Peer.arrive(server.ws, "permessage-deflate; client_max_window_bits") as peer:
        assert b"sec-websocket-extensions" not in peer.head.lower()
    assert server.log() == ""
    return Figures(faults=len(cases))
