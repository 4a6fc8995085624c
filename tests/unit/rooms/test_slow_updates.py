"""Updates that take long to apply: split, charged to the caller, and rejected by very fragmented texts."""

from __future__ import annotations

import asyncio

import pytest

from realtime.auth.permissions import UNOWNED, Principal, key_of
from realtime.core.close_codes import CloseCode
from realtime.core.token_bucket import TokenBuckets
from realtime.rooms import lib0, protocol
from realtime.rooms.crdt import TextDocument
from realtime.rooms.peer import PeerRefused
from realtime.rooms.room import Room
from realtime.rooms.yjs_update import count_pieces, recount_pieces, split_update
from realtime.settings import Settings
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, alternating, many_clients, without_origins
from tests.unit.rooms.conftest import StartWorker, loaded

ANN, BEN = (Principal(keys=frozenset({UNOWNED, key_of(name)}), name=name) for name in ("ann", "ben"))


class TestParts:
    def test_pieces_without_origins_are_split_into_parts(self) -> None:
        update = without_origins(99, 40)
        assert len(split_update(update, 500)[1]) == 1
        parts = split_update(update, 500, {}, 100_000, 0.025)[1]
        assert len(parts) == 40
        document = TextDocument([alternating(10), *parts])
        assert str(document) == str(TextDocument([alternating(10), update]))

    def test_pieces_that_continue_new_pieces_stay_in_one_part(self) -> None:
        typed = TextDocument(client=5)
        typed.edit([(0, 0, "one ")])
        before = typed.state
        typed.edit([(4, 4, "two ")])
        typed.edit([(8, 8, "three")])
        assert len(split_update(typed.since(before), 500, {5: 4}, 100_000, 0.005)[1]) == 1

    def test_piece_that_continues_a_known_piece_is_split_off(self) -> None:
        chain = bytes((4, 1)) + lib0.string("content") + lib0.string("a") + b"\x84\7\0" + lib0.string("b")
        update = b"\1\2\7\0" + chain + b"\0"
        assert len(split_update(update, 500, {}, 100_000, 0.004)[1]) == 1
        assert len(split_update(update, 500, {7: 1}, 100_000, 0.004)[1]) == 2

    def test_pieces_of_the_same_update_count_toward_its_cost(self) -> None:
        assert max(map(count_pieces, split_update(without_origins(9, 5000), 500, {}, 0, 0.025)[1])) < 10

    def test_overlapping_deletions_are_merged(self) -> None:
        update = b"\0\1\x0b" + lib0.number(300) + b"\0\5" * 300
        assert split_update(update, 500)[1] == [b"\0\1\x0b\1\0\5"]


class TestPieces:
    def test_piece_estimate_is_not_below_the_exact_count(self) -> None:
        document = TextDocument([alternating(100), without_origins(99, 50)])
        document.apply(b"\0\1\x0b\2\1\1\3\1")
        assert document.piece_count >= recount_pieces(document.since()) == 150


class TestRoom:
    @pytest.fixture(autouse=True)
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make texts of few pieces as slow as large ones."""
        monkeypatch.setattr("realtime.rooms.loader.SEARCH_SECONDS", 1e-4)

    async def test_update_of_many_searches_does_not_block_the_event_loop(
        self, start_worker: StartWorker, settings: Settings
    ) -> None:
        worker = await start_worker()
        id = await worker.create_note()
        hostile, near = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
        await hostile.say(protocol.update(alternating(60)))
        turns = 0
        saying = asyncio.create_task(hostile.say(protocol.update(update := without_origins(99, 200))))
        while not saying.done():
            await asyncio.sleep(0)
            turns += 1
        await saying
        assert turns >= 200
        await eventually(lambda: update in hostile.text.acknowledged)
        await near.append("near")
        await eventually(lambda: near.text.all_acknowledged and str(near.text) == str(hostile.text))
        assert await loaded(settings, id) == str(near.text)

    async def test_waiting_update_that_would_be_slow_is_refused(self, start_worker: StartWorker) -> None:
        worker = await start_worker()
        id = await worker.create_note()
        seat = await RoomClient().sit(worker.rooms, id)
        await seat.say(protocol.update(alternating(60)))
        with pytest.raises(PeerRefused) as refused:
            await seat.say(protocol.update(without_origins(99, 200, first=1)))
        assert refused.value.code == CloseCode.RESUME

    async def test_text_of_too_many_clients_accepts_known_clients_only(
        self, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("realtime.rooms.room.MAX_YJS_CLIENTS", 20)
        worker = await start_worker()
        id = await worker.create_note()
        typist, hostile = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
        await typist.append("x")
        await hostile.say(protocol.update(many_clients(100, 18)))
        for update in (many_clients(200, 2), many_clients(300, 3)):
            with pytest.raises(PeerRefused) as refused:
                await hostile.say(protocol.update(update))
            assert refused.value.code == CloseCode.TOO_BIG
        await typist.append("y")
        await eventually(lambda: typist.text.all_acknowledged)
        assert str(typist.text) == "xy"

    async def test_text_of_too_many_pieces_accepts_deletions_only(
        self, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("realtime.rooms.loader.MAX_PIECES", 50)
        worker = await start_worker()
        id = await worker.create_note()
        typist, hostile = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
        for _ in range(70):  # they merge into one piece, although the estimate counts each
            await typist.append("x")
        await eventually(lambda: typist.text.all_acknowledged)
        await hostile.say(protocol.update(alternating(60)))
        with pytest.raises(PeerRefused) as refused:
            await typist.append("y")
        assert refused.value.code == CloseCode.TOO_BIG
        other = await RoomClient().sit(worker.rooms, id)
        await other.say(other.text.edit(""))
        await eventually(lambda: other.text.all_acknowledged)


async def test_time_allowance_is_counted_per_caller_and_note(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection and a new room continue with the same allowance."""
    monkeypatch.setattr("realtime.rooms.scheduler.LONG_UPDATE_SECONDS", 0.0)
    monkeypatch.setattr("realtime.rooms.scheduler.LONG_UPDATE_FACTOR", 1e12)
    worker = await start_worker(idle=0)
    id, elsewhere = await worker.create_note(), await worker.create_note()
    seat = await RoomClient().sit(worker.rooms, id, principal=ANN)
    await seat.append("x")
    room = seat.room
    assert isinstance(room, Room)
    seat.leave()
    room.close(CloseCode.RESUME)
    again = await RoomClient().sit(worker.rooms, id, principal=ANN)
    assert again.room is not room
    with pytest.raises(PeerRefused) as refused:
        await again.append("y")
    assert refused.value.code == CloseCode.TOO_MANY
    for note, principal in ((id, BEN), (elsewhere, ANN)):
        other = await RoomClient().sit(worker.rooms, note, principal=principal)
        await other.append("z")
        await eventually(lambda other=other: other.text.all_acknowledged)  # type: ignore[misc]


def test_buckets_are_bounded_and_full_ones_are_dropped_first() -> None:
    buckets = TokenBuckets(1, 10, limit=4)
    for key in range(3):
        buckets.consume(key, 5, 0)
    buckets.consume("owes", 100, 0)
    assert buckets.remaining("owes", 1) == -89
    assert buckets.remaining("new", 1) == 10
    buckets.consume("later", 1, 20)  # by then the first ones are full again
    assert len(buckets) == 2
    for key in range(100):
        buckets.consume(key, 1, 20)
        assert len(buckets) <= 4
