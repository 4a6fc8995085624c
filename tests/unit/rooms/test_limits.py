"""The limits of a client in a room: exceeding them closes its connection and does not affect other clients."""

from __future__ import annotations

import random
from typing import Any

import pytest

from realtime.auth.permissions import UNRESTRICTED
from realtime.core.close_codes import CloseCode
from realtime.errors import MalformedUpdate
from realtime.notes.models import MAX_CONTENT_BYTES
from realtime.rooms import lib0, loader, protocol
from realtime.rooms.crdt import TextDocument
from realtime.rooms.peer import UPDATES_BURST, PeerRefused
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, Text, state_of
from tests.unit.rooms.conftest import StartWorker, content_is


def close_code_of(seat: RoomClient) -> CloseCode | None:
    """Return the close code of a client, if it was closed."""
    return seat.code


async def test_peer_with_too_many_updates_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    seat, neighbour = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    with pytest.raises(PeerRefused) as refused:
        for _ in range(2 * UPDATES_BURST):
            await seat.append("x")
    assert refused.value.code == CloseCode.TOO_MANY
    await neighbour.append("y")
    await eventually(lambda: neighbour.text.all_acknowledged)


async def test_state_vector_far_larger_than_the_text_is_rejected(start_worker: StartWorker) -> None:
    worker = await start_worker()
    seat = await RoomClient().sit(worker.rooms, await worker.create_note("text"))
    vector = lib0.number(2000) + b"".join(lib0.number(client) + b"\1" for client in range(2000))
    await seat.say(protocol.state(vector))
    with pytest.raises(MalformedUpdate, match="state vector"):
        await seat.say(protocol.state(lib0.number(40_000) + b"\1\1" * 40_000))


async def test_sync_responses_are_charged_by_their_size(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.rooms.peer.DIFF_BYTES_BURST", 100_000)
    monkeypatch.setattr("realtime.rooms.peer.DIFF_BYTES_PER_SECOND", 1)
    worker = await start_worker()
    id = await worker.create_note("x" * 150_000)
    seat = await RoomClient().sit(worker.rooms, id)  # the first response is sent whatever its size
    assert len(str(seat.text)) == 150_000
    with pytest.raises(PeerRefused) as refused:
        await seat.say(Text().hello())
    assert refused.value.code == CloseCode.TOO_MANY


async def test_updates_of_a_slow_text_are_applied_in_turns(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.rooms.scheduler.LONG_UPDATE_SECONDS", 0.0)
    worker = await start_worker()
    id = await worker.create_note()
    seats = [await RoomClient().sit(worker.rooms, id) for _ in range(3)]
    for number in range(5):
        for seat in seats:
            await seat.append(f"{number};")
    await eventually(lambda: all(seat.text.all_acknowledged for seat in seats))
    assert len({str(seat.text) for seat in seats}) == 1


async def test_updates_are_charged_by_their_processing_time(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.rooms.scheduler.LONG_UPDATE_SECONDS", 0.0)
    monkeypatch.setattr("realtime.rooms.scheduler.LONG_UPDATE_FACTOR", 1e12)
    worker = await start_worker()
    seat = await RoomClient().sit(worker.rooms, await worker.create_note())
    with pytest.raises(PeerRefused):
        for _ in range(3):
            await seat.append("x")


async def test_text_beyond_its_limit_is_refused_with_too_big(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("x" * (MAX_CONTENT_BYTES - 10))
    seat = await RoomClient().sit(worker.rooms, id)
    await seat.append("y" * 10)
    await eventually(lambda: seat.text.all_acknowledged)
    with pytest.raises(PeerRefused) as refused:
        await seat.append("z")
    assert refused.value.code == CloseCode.TOO_BIG
    other = await RoomClient().sit(worker.rooms, id)
    await other.say(other.text.edit("short"))
    await eventually(lambda: content_is(worker, id, "short"))
    await other.append(" again")


async def test_deleted_text_does_not_count_toward_the_state_limit(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the remaining text counts against the limit of the state."""
    monkeypatch.setattr(loader, "MAX_STATE_BYTES", 20_000)
    worker = await start_worker()
    id = await worker.create_note()
    seat = await RoomClient().sit(worker.rooms, id)
    for number in range(20):
        update = seat.text.document.edit([(0, len(str(seat.text)), chr(97 + number) * 2000)])
        await seat.say(protocol.update(update))
    await eventually(lambda: content_is(worker, id, "t" * 2000))
    with pytest.raises(PeerRefused) as refused:
        await seat.append("x" * 30_000)
    assert refused.value.code == CloseCode.TOO_BIG


async def test_peer_beyond_its_buffer_limit_is_closed_as_too_slow(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("x" * 900_000)
    slow, quick = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    slow.buffered = 1_800_000  # within the size of the text that it requested
    await quick.append("y")
    await eventually(lambda: quick.text.all_acknowledged)
    assert close_code_of(slow) is None
    slow.buffered = 2_500_000
    await quick.append("y")
    await eventually(lambda: slow.code is not None)
    assert slow.code == CloseCode.TOO_SLOW
    assert quick.code is None


async def test_peer_that_requests_without_reading_is_closed_as_too_slow(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("x" * 900_000)
    greedy = RoomClient()
    send = greedy.send

    def send_without_reading(packet: Any, limit: int) -> bool:
        accepted = send(packet, limit)
        if accepted:
            greedy.buffered += len(packet.framed)
        return accepted

    greedy.send = send_without_reading  # type: ignore[method-assign]
    await greedy.sit(worker.rooms, id)
    for _ in range(20):
        await greedy.say(Text().hello())
    assert greedy.code == CloseCode.TOO_SLOW
    assert greedy.buffered < 5_000_000


async def test_corrupted_frames_of_hostile_peers_do_not_affect_others(start_worker: StartWorker) -> None:
    """Send 10,000 frames, each of a different client."""
    worker = await start_worker()
    id = await worker.create_note("text ")
    neighbour = await RoomClient().sit(worker.rooms, id)
    choose = random.Random(11)
    good = [TextDocument(client=choose.randrange(1, 2**32)).edit([(0, 0, "word")]) for _ in range(8)]
    frames = [protocol.update(one) for one in good] + [Text().hello(), state_of(5, 1, '{"a":1}'), b"\3"]
    refused = accepted = 0
    for number in range(10_000):
        frame = bytearray(choose.choice(frames))
        match choose.randrange(3):
            case 0:
                frame = frame[: choose.randrange(len(frame))]
            case 1:
                for _ in range(choose.randrange(1, 4)):
                    frame[choose.randrange(len(frame))] = choose.randrange(256)
            case _:
                frame = bytearray(choose.randbytes(choose.randrange(60)))
        hostile = RoomClient()
        hostile.member = worker.rooms.create_peer(hostile, UNRESTRICTED, "127.0.0.1", writes=number % 10 == 0)
        hostile.room = neighbour.room
        try:
            await hostile.say(bytes(frame))
            accepted += 1
        except (MalformedUpdate, PeerRefused):
            refused += 1
        if number % 500 == 0:
            await neighbour.append(f"n{number};")
    await eventually(lambda: neighbour.text.all_acknowledged)
    assert neighbour.code is None
    assert all(f"n{number};" in str(neighbour.text) for number in range(0, 10_000, 500))
    assert refused > 3000
    assert neighbour.room is not None
    await neighbour.room.compact()
    assert str((await RoomClient().sit(worker.rooms, id)).text) == str(neighbour.text)
