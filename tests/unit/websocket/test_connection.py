"""WebSocket connections: reading, writing and closing byte by byte, and the cost of bad clients."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from websockets.frames import DATA_OPCODES, Opcode
from websockets.protocol import OPEN, SERVER

from realtime.core.frames import FrameBatch, framed
from realtime.core.turns import Turns
from realtime.websocket import connection as websocket_connection
from realtime.websocket.connection import MAX_MESSAGE_BYTES, Parser, WebSocketConnection
from tests.faults.raw import BINARY, CLOSE, FIRST, FIRST_BINARY, LAST, MORE, PING, PONG, TEXT, frame
from tests.support.harness import UNIT, eventually
from tests.support.websocket import PARTS, Heard, Memory, close_of

if TYPE_CHECKING:
    from tests.support.websocket import Message


TOO_MANY = close_of(4029, b"too many")


@pytest.fixture(autouse=True)
def unlimited_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process all received data in one turn, however slow the machine is."""
    set_slices(monkeypatch, 60.0)


def set_slices(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for name in ("FIRST_SLICE_SECONDS", "SLICE_SECONDS"):
        monkeypatch.setattr(websocket_connection, name, seconds)


def feed(*pieces: bytes) -> tuple[Heard, Memory]:
    """Feed chunks of bytes to a connection, and return its handler and its transport."""
    transport, heard = Memory(), Heard()
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
    return heard, transport


def chunked(data: bytes, size: int = 1) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


LONG = os.urandom(70_000)

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536]


async def test_messages_of_all_sizes_in_any_chunks_are_received() -> None:
    sent = [LONG[:size] for size in SIZES]
    data = b"".join(frame(BINARY, message) for message in sent)
    for size in (7, 1000, len(data)):
        heard, transport = feed(*chunked(data, size))
        assert heard.messages == sent
        assert transport.written == b""
    small = [LONG[:size] for size in SIZES if size < 200] + ["ä€😀"]
    data = b"".join(frame(TEXT if isinstance(one, str) else BINARY, _bytes(one)) for one in small)
    assert feed(*chunked(data))[0].messages == small
    for at in range(len(data)):
        assert feed(data[:at], data[at:])[0].messages == small


def _bytes(message: Message) -> bytes:
    return message.encode() if isinstance(message, str) else message


async def test_message_of_the_maximum_size_is_received() -> None:
    message = LONG * 15
    message = message[:MAX_MESSAGE_BYTES]
    assert feed(*chunked(frame(BINARY, message, mask=bytes(4)), 65536))[0].messages == [message]


async def test_fragmented_message_with_a_ping_between_is_received() -> None:
    for pieces in ([PARTS], chunked(PARTS), [PARTS[:9], PARTS[9:]]):
        heard, transport = feed(*pieces, frame(TEXT, b"next"))
        assert heard.messages == ["äb", "next"]
        assert transport.written == framed(PONG, b"p")


async def test_pings_are_answered_and_pongs_are_not() -> None:
    pings = [b"", b"payload", LONG[:125]]
    heard, transport = feed(*(frame(PING, ping) + frame(PONG, ping) for ping in pings), frame(TEXT, b"on"))
    assert transport.written == b"".join(framed(PONG, ping) for ping in pings)
    assert heard.messages == ["on"]


VIOLATIONS: dict[str, tuple[int, bytes]] = {
    "unmasked frame": (1002, frame(TEXT, b"a", mask=None)),
    "unmasked header": (1002, frame(TEXT, b"a", mask=None)[:2]),
    "unmasked ping": (1002, frame(PING, mask=None)),
    "reserved bit": (1002, frame(TEXT | 0x40, b"a")),
    "reserved opcode": (1002, frame(0x83, b"a")),
    "reserved control opcode": (1002, frame(0x8B, b"a")),
    "long ping": (1002, frame(PING, LONG[:126])),
    "long close": (1002, frame(CLOSE, close_of(1000, LONG[:124])[4:])),
    "fragmented ping": (1002, frame(PING & 0x7F)),
    "continuation without a first fragment": (1002, frame(LAST, b"a")),
    "message within a fragmented message": (1002, frame(FIRST, b"a") + frame(TEXT, b"b")),
    "close with one byte": (1002, frame(CLOSE, b"\x03")),
    "close with an invalid code": (1002, frame(CLOSE, (999).to_bytes(2))),
    "too big header": (1009, b"\x82\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8)),
    "too big by far": (1009, b"\x82\xff" + b"\x7f" + b"\xff" * 7),
    "too big in fragments": (1009, (frame(0x02, LONG, mask=bytes(4)) + frame(MORE, LONG, mask=bytes(4)) * 15)),
    "invalid UTF-8": (1007, frame(TEXT, b"\xff")),
    "incomplete character": (1007, frame(TEXT, "ä".encode()[:1])),
    "invalid UTF-8 in fragments": (1007, frame(FIRST, b"a\xc3") + frame(LAST, b"a")),
    "surrogate": (1007, frame(TEXT, b"\xed\xa0\x80")),
    "close reason with invalid UTF-8": (1007, frame(CLOSE, (1000).to_bytes(2) + b"\xff")),
}


async def test_close_within_a_fragmented_message_is_answered_with_its_own_code() -> None:
    """RFC 6455, section 5.4, allows control frames there."""
    for code in (1000, 1001, 4999):
        close = close_of(code, b"bye")
        data = frame(FIRST, b"a") + frame(MORE, b"b") + frame(CLOSE, close[2:])
        for pieces in ([data], chunked(data)):
            heard, transport = feed(*pieces, frame(LAST, b"c"))
            assert heard.messages == []
            assert transport.written == close


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_protocol_violation_closes_with_the_matching_code(name: str) -> None:
    code, data = VIOLATIONS[name]
    before = frame(TEXT, b"before")
    for pieces in ([before + data], [before, *chunked(data)] if len(data) < 1000 else [before, data]):
        heard, transport = feed(*pieces, frame(TEXT, b"after"), frame(PING, b"after"))
        assert heard.messages == ["before"]
        assert transport.written[0] == CLOSE
        assert int.from_bytes(transport.written[2:4]) == code
        assert len(transport.written) == 2 + transport.written[1]  # nothing follows
        assert transport.reading
        assert not transport.closed  # aborting while the peer is sending would discard the close frame


async def test_peer_that_stays_after_a_violation_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "ABORT_DELAY_SECONDS", 0.01)
    _, transport = feed(frame(TEXT, b"\xff"))
    await eventually(lambda: transport.closed)


def reference(pieces: list[bytes]) -> tuple[list[Message], bytes]:
    """Return the messages and the sent bytes of the websockets library for the same chunks."""
    parser = Parser(SERVER, state=OPEN, max_size=MAX_MESSAGE_BYTES)
    messages: list[Message] = []
    sent = b""
    kind, parts = Opcode.TEXT, b""
    for piece in pieces:
        parser.receive_data(piece)
        events = parser.events_received()
        sent += b"".join(parser.data_to_send())
        for event in events:
            assert not isinstance(event, Exception)
            if event.opcode not in DATA_OPCODES:  # type: ignore[union-attr]
                continue
            if event.opcode is not Opcode.CONT:  # type: ignore[union-attr]
                kind, parts = event.opcode, b""  # type: ignore[union-attr]
            parts += event.data  # type: ignore[union-attr]
            if event.fin:  # type: ignore[union-attr]
                messages.append(parts.decode() if kind is Opcode.TEXT else parts)
        if parser.close_expected():
            break
    return messages, sent


def random_frames(rng: random.Random) -> bytes:
    data, within = b"", False
    for _ in range(rng.randint(1, 8)):
        if rng.random() < 0.2:
            kind = rng.choice([PING, PONG])
        elif rng.random() < 0.03:
            kind = rng.randrange(256)
        elif rng.random() < 0.04:
            kind = CLOSE
        else:
            last = rng.random() < 0.6
            kind = (MORE if within else rng.choice([TEXT, BINARY]) & 0x7F) | (0x80 if last else 0)
            within = not last
        size = rng.choice([0, 1, 2, 5, 100, 125, 126, 300]) if kind < 0x88 else rng.choice([0, 2, 9, 125])
        message = close_of(rng.choice([1000, 1001, 4000]))[2:] if kind == CLOSE else b"x" * size
        mask = None if rng.random() < 0.02 else rng.randbytes(4)
        data += frame(kind, message, mask=mask, wide=rng.choice([2, 8]) if rng.random() < 0.03 else 0)
    return data + rng.randbytes(rng.choice([0, 0, 0, 0, 1, 3, 12]))


async def test_random_frames_are_parsed_as_by_the_library() -> None:
    seen = set()
    for seed in range(1500):
        rng = random.Random(seed)
        data = random_frames(rng)
        cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randint(0, 6)))
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        if rng.random() < 0.1:
            pieces = chunked(data)
        try:
            expected = reference(pieces)
        except UnicodeDecodeError:
            continue  # in a random tail: the library does not decode text
        heard, transport = feed(*pieces)
        assert (heard.messages, transport.written) == expected, (seed, pieces)
        seen.add((transport.closed, bool(heard.messages), bool(transport.written)))
    assert len(seen) >= 6


async def test_delayed_close_reads_and_sends_nothing_before_the_delay() -> None:
    heard, transport = Heard(), Memory()
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    connection.close(4500, "bad frame", delay=0.05 * UNIT)
    connection.data_received(frame(TEXT, b"after"))
    assert connection.send(FrameBatch([b"after"]), 1000)
    assert (heard.messages, transport.written, transport.reading) == ([], b"", False)
    await eventually(lambda: transport.written == close_of(4500, b"bad frame"))
    assert transport.reading


# Over real sockets


@asynccontextmanager
async def connected(
    heard: Heard, every: float | None = None
) -> AsyncIterator[tuple[WebSocketConnection, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a connection, and the reader and writer of its peer."""
    loop = asyncio.get_running_loop()
    listener = socket.socket()
    with closing(listener):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        plain, _ = listener.accept()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, plain)
    connection = WebSocketConnection(transport, set(), every, Turns())
    transport.set_protocol(connection)
    connection.set_handler(heard)
    try:
        async with asyncio.timeout(5 * UNIT):
            yield connection, reader, writer
    finally:
        writer.transport.abort()
        transport.abort()


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "ABORT_DELAY_SECONDS", 0.1 * UNIT)
    monkeypatch.setattr(websocket_connection, "RECONNECT_DELAY_SECONDS", 0)


async def test_peer_that_closes_receives_its_code_and_eof() -> None:
    for sent in (b"", (1000).to_bytes(2), (4321).to_bytes(2) + b"bye"):
        heard = Heard()
        async with connected(heard) as (_, reader, writer):
            writer.write(frame(CLOSE, sent) + frame(TEXT, b"after"))
            assert await reader.read() == framed(CLOSE, sent)
        assert (heard.messages, heard.calls) == ([], ["full", "lost"])


async def test_messages_between_close_and_its_confirmation_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "ABORT_DELAY_SECONDS", 60)
    heard = Heard()
    async with connected(heard) as (connection, reader, writer):
        connection.transport.pause_reading()
        connection.close(4010, "why", b"last words")
        connection.close(4008, "too late")
        writer.write(frame(TEXT, b"after") + frame(PING) + frame(CLOSE, (4010).to_bytes(2)))
        assert await reader.read() == framed(TEXT, b"last words") + close_of(4010, b"why")
        await eventually(lambda: heard.calls[-1:] == ["lost"])
    assert heard.messages == []


async def test_peer_receives_eof_immediately_after_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server still reads for a while, but closes its sending side immediately."""
    monkeypatch.setattr(websocket_connection, "ABORT_DELAY_SECONDS", 60)
    async with connected(Heard()) as (connection, reader, writer):
        writer.write(frame(TEXT, b"a", mask=None) + frame(TEXT, b"after"))
        assert (await reader.read())[0] == CLOSE
        writer.write(frame(TEXT, b"later"))
        assert not connection.transport.is_closing()


async def test_connection_stays_full_after_a_close() -> None:
    for data in (frame(CLOSE), frame(TEXT, b"\xff"), frame(TEXT, b"a", mask=None)):
        transport, heard = Memory(), Heard()
        connection = WebSocketConnection(transport, set(), None, Turns())
        connection.set_handler(heard)
        connection.data_received(data)
        assert connection.full
        assert heard.calls == ["full"]
        connection.resume_writing()
        assert connection.full
        assert heard.calls == ["full"]


async def test_peer_that_does_not_confirm_a_close_is_dropped() -> None:
    heard = Heard()
    async with connected(heard) as (connection, reader, _):
        connection.close(4010, "")
        assert await reader.readexactly(4) == close_of(4010)
        await eventually(lambda: heard.calls[-1:] == ["lost"])


async def test_peer_that_reads_nothing_is_dropped_at_shutdown() -> None:
    heard = Heard()
    async with connected(heard) as (connection, _, writer):
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        while not connection.full:
            connection.write(framed(BINARY, LONG))
            await asyncio.sleep(0)
        connection.shutdown()
        await eventually(lambda: "lost" in heard.calls)


async def test_reset_by_the_peer_ends_the_connection() -> None:
    heard = Heard()
    async with connected(heard) as (connection, _, writer):
        plain = writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(frame(TEXT, b"half")[:7])
        writer.transport.abort()
        await eventually(lambda: heard.calls[-1:] == ["lost"])
        assert connection.transport.is_closing()
        connection.close(4010, "")


async def test_eof_of_the_peer_ends_the_connection() -> None:
    heard = Heard()
    async with connected(heard) as (_, reader, writer):
        writer.write(frame(TEXT, b"last"))
        writer.write_eof()
        assert await reader.read() == b""
    assert heard.messages == ["last"]
    assert heard.calls[-1:] == ["lost"]


async def test_shutdown_closes_with_service_restart() -> None:
    async with connected(Heard()) as (connection, reader, _):
        connection.shutdown()
        assert await reader.read() == close_of(1012)


async def test_new_connection_with_buffered_responses_is_full() -> None:
    transport, heard = Memory(), Heard()
    transport.get_write_buffer_size = lambda: 1  # type: ignore[method-assign]
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    assert connection.full
    connection.data_received(frame(PING, b"p"))
    assert transport.written == b""
    connection.resume_writing()
    assert heard.calls == ["writable"]
    assert transport.written == framed(PONG, b"p")


async def test_only_the_last_ping_of_a_full_connection_is_answered() -> None:
    transport, heard = Memory(), Heard()
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    connection.pause_writing()
    for number in range(100):
        connection.data_received(frame(PING, b"%d" % number))
    assert transport.written == b""
    connection.resume_writing()
    assert transport.written == framed(PONG, b"99")
    connection.pause_writing()
    connection.data_received(PARTS)  # from here on, the library parses
    connection.data_received(frame(PING, b"last"))
    connection.resume_writing()
    assert transport.written == framed(PONG, b"99") + framed(PONG, b"last")
    assert heard.messages == ["äb"]


async def test_only_a_peer_without_a_pong_is_closed() -> None:
    async with connected(Heard(), 0.05) as (_, reader, _), connected(Heard(), 0.05) as (alive, asked, answers):
        for _ in range(3):
            assert await asked.readexactly(2) == framed(PING, b"")
            answers.write(frame(PONG))
        assert await reader.read() == framed(PING, b"") + close_of(4012, b"no pong")
        assert not alive.transport.is_closing()


async def test_missing_pong_is_ignored_while_reading_is_paused() -> None:
    async with connected(Heard(), 0.02) as (connection, reader, _):
        connection.transport.pause_reading()
        assert await reader.readexactly(8) == framed(PING, b"") * 4


async def test_failing_handler_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Message) -> None:
        raise ZeroDivisionError

    heard = Heard(fail)
    async with connected(heard) as (_, reader, writer):
        writer.write(frame(TEXT, b"a"))
        with pytest.raises(ConnectionError):
            assert await reader.read() == b""
            raise ConnectionResetError
        await eventually(lambda: heard.calls[-1:] == ["lost"])
    assert "ZeroDivisionError" in caplog.text


async def test_flood_of_frames_is_closed_with_too_many() -> None:
    for flood in (PING, PONG, TEXT):
        heard, transport = feed(frame(flood) * (websocket_connection.MAX_FRAMES_BURST + 500))
        await eventually(partial(transport.has, TOO_MANY))
        assert len(heard.messages) < websocket_connection.MAX_FRAMES_BURST + 500


@pytest.mark.parametrize("size", [1000, 65_536, 1_000_000])
async def test_close_frame_is_found_among_the_frames_that_follow_the_close(size: int) -> None:
    transport, heard = Memory(), Heard()
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    connection.close(4029, "too many")
    rest = frame(BINARY, LONG) + frame(PING, b"p") + frame(TEXT, b"t") + frame(BINARY, LONG * 3)
    for piece in chunked(rest, size):
        connection.data_received(piece)
    closed_before = transport.closed
    connection.data_received(frame(CLOSE, close_of(4029)[2:]))
    assert (closed_before, transport.closed) == (False, True)
    assert heard.messages == []
    assert transport.written == TOO_MANY


async def test_frames_after_the_close_are_read_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    set_slices(monkeypatch, -1.0)
    transport, heard = Memory(), Heard()
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    connection.close(4029, "too many")
    connection.data_received(frame(PING, b"p") * 100 + frame(CLOSE, close_of(4029)[2:]))
    assert not transport.reading
    await eventually(lambda: transport.closed)
    assert transport.written == TOO_MANY


async def test_fragments_above_the_maximum_rate_are_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "MAX_FRAMES_BURST", 10)
    fragments = [frame(FIRST_BINARY, b"0"), *[frame(MORE, b"1")] * 500, frame(LAST, b"2")]
    transport, heard = Memory(), Heard()
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    for number in range(0, len(fragments), 100):
        connection.data_received(b"".join(fragments[number : number + 100]))
    assert heard.messages == []
    await eventually(lambda: heard.messages == [b"0" + b"1" * 500 + b"2"])
    assert transport.written == b""


async def test_many_frames_are_processed_in_order_over_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that arrives in between is processed after the remaining earlier data."""
    set_slices(monkeypatch, -1.0)
    for begin in (b"", frame(FIRST, b"") + frame(LAST, b"")):  # in the second case, the library's parser reads
        messages = [str(number) for number in range(300)]
        stream = begin + b"".join(frame(TEXT, message.encode() + b"." * 100) for message in messages)
        transport, heard = Memory(), Heard()
        connection = WebSocketConnection(transport, set(), None, Turns())
        connection.set_handler(heard)
        connection.data_received(stream[:20_000])
        assert not transport.reading
        seen = len(heard.messages)
        await asyncio.sleep(0)
        assert seen < len(heard.messages)
        connection.data_received(stream[20_000:])
        while len(heard.messages) < len(messages):
            await asyncio.sleep(0)
        assert [str(message).rstrip(".") for message in heard.messages if message] == messages
        assert transport.reading


async def test_reading_resumes_only_after_its_turn_and_without_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    set_slices(monkeypatch, -1.0)
    transport, heard = Memory(), Heard()
    connection = WebSocketConnection(transport, set(), None, Turns())
    connection.set_handler(heard)
    connection.data_received(frame(TEXT, b"1") + frame(TEXT, b"2"))
    connection.set_held(True)
    connection.set_held(False)
    assert not transport.reading, "its turn has not come"
    connection.set_held(True)
    while len(heard.messages) < 2:
        await asyncio.sleep(0)
    assert not transport.reading, "the handler holds it"
    connection.set_held(False)
    assert transport.reading


async def test_probe_closes_a_connection_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_connection, "PROBE_TIMEOUT_SECONDS", 0.05)
    transport, answering = Memory(), Memory()
    for one in (transport, answering):
        connection = WebSocketConnection(one, set(), 60, Turns())
        connection.set_handler(Heard())
        connection.probe()
        connection.probe()
        assert one.written == framed(PING, b"")
        if one is answering:
            connection.data_received(frame(PONG))
    await eventually(lambda: transport.closed)
    assert transport.written == (framed(PING, b"") + close_of(4012, b"no pong"))
    await eventually(lambda: answering.written == framed(PING, b"") * 2)
    assert not answering.closed
