"""The participants of a room: the states that clients can set, and the rate at which others receive them."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from realtime.auth.permissions import UNOWNED, Principal, key_of
from realtime.core.close_codes import CloseCode
from realtime.rooms import lib0, participants
from realtime.rooms.awareness import MAX_CLOCK
from realtime.rooms.peer import STATES_BURST, PeerRefused
from realtime.rooms.relay import RelayKind, RelayMessage
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, state_of, states_of
from tests.unit.rooms.conftest import StartWorker


def user(name: str) -> Principal:
    return Principal(keys=frozenset({UNOWNED, key_of(name)}), name=name)


def has_state(seat: RoomClient, clock: int) -> bool:
    return seat.text.states.get(1, (0, ""))[0] == clock


async def test_flood_of_states_is_refused_and_other_peers_stay(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    flood, neighbour = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    with pytest.raises(PeerRefused) as refused:
        for clock in range(2 * STATES_BURST):
            await flood.say(state_of(1, clock, "{}"))
    assert refused.value.code == CloseCode.TOO_MANY
    flood.leave()
    await neighbour.say(state_of(2, 0, "{}"))
    await eventually(lambda: neighbour.text.here == {2})


async def test_repeated_queries_and_unchanged_states_are_rate_limited(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    for message in (b"\3", state_of(1, 0, "{}")):
        seat = await RoomClient().sit(worker.rooms, id)
        with pytest.raises(PeerRefused):
            for _ in range(2 * STATES_BURST):
                await seat.say(message)


async def test_large_states_use_more_of_the_rate_limit(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    seat = await RoomClient().sit(worker.rooms, id)
    with pytest.raises(PeerRefused):
        for clock in range(STATES_BURST // 4):
            await seat.say(state_of(1, clock, '"' + "x" * 8000 + '"'))


async def test_states_of_all_workers_are_sent_in_batches(start_worker: StartWorker) -> None:
    """Stock clients send back each state that they receive, so the packets must not grow with the number of clients."""
    here, there = await start_worker(), await start_worker()
    id = await here.create_note()
    seats = [await RoomClient().sit(worker.rooms, id) for worker in (here, there) for _ in range(20)]
    listener = await RoomClient().sit(here.rooms, id)
    before, started = listener.packets, time.monotonic()
    for clock in range(10):
        for client, seat in enumerate(seats):
            await seat.say(state_of(client, clock, "{}"))
        await asyncio.sleep(0.01)
    for seat in seats[:-1]:
        seat.leave()
    await eventually(lambda: listener.text.here == {len(seats) - 1})
    assert listener.packets - before <= (time.monotonic() - started) / 0.03 + 1


async def test_signed_in_peer_is_named_by_its_account(start_worker: StartWorker) -> None:
    worker = await start_worker()
    seat = await RoomClient().sit(worker.rooms, await worker.create_note())
    assert seat.room is not None
    await seat.say(state_of(1, 0, '{"user": {"name": "Root"}}'))
    assert seat.room.participants.name_of(seat.member) == "Root"
    seat.member.principal = Principal(keys=frozenset({"*", "@ann"}), name="ann")
    assert seat.room.participants.name_of(seat.member) == "ann"
    await seat.say(state_of(1, 1, '{"user": {"name": "Root"}}'))
    assert b'"name":"ann"' in seat.room.participants.awareness_messages()[0]
    seat.member.principal = Principal(keys=frozenset({"*", "link:1"}))
    await seat.say(state_of(1, 2, '{"user": {"name": "ann"}}'))
    assert b'"name":"Guest"' in seat.room.participants.awareness_messages()[0]


async def test_client_id_belongs_to_the_first_peer_that_used_it(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    owner, other = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    await owner.say(state_of(1, 1, '{"user":{"name":"Ann"}}'))
    await eventually(lambda: other.text.here == {1})
    for clock, state in ((1, "null"), (7, "null"), (2**53 - 1, "null"), (8, '{"user":{"name":"Guest"}}')):
        await other.say(state_of(1, clock, state))
    await owner.say(state_of(1, 2, '{"user":{"name":"Ann"},"cursor":1}'))
    await eventually(lambda: other.text.states[1] == (2, '{"user":{"name":"Ann"},"cursor":1}'))
    assert owner.code is other.code is None
    assert owner.probed == 1  # once, to check whether it is still connected
    owner.leave()
    await eventually(lambda: other.text.states[1] == (2, "null"))


async def test_client_id_that_left_is_reserved_for_its_caller(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    ann = await RoomClient().sit(worker.rooms, id, principal=user("ann"))
    ben = await RoomClient().sit(worker.rooms, id, principal=user("ben"))
    await ann.say(state_of(1, 1, "{}"))
    ann.leave()
    await ben.say(state_of(1, 2, "{}"))
    await ben.say(state_of(2, 1, "{}"))
    await eventually(lambda: ben.text.here == {2})
    again = await RoomClient().sit(worker.rooms, id, principal=user("ann"))
    await again.say(state_of(1, 2, "{}"))
    await eventually(lambda: ben.text.here == {1, 2})


async def test_user_takes_over_the_client_id_of_a_dead_peer(start_worker: StartWorker) -> None:
    here, there = await start_worker(), await start_worker()
    id = await here.create_note()
    dead = await RoomClient().sit(here.rooms, id, principal=user("ann"))
    await dead.say(state_of(1, 1, "{}"))
    for clock, worker in ((2, here), (3, there)):
        again = await RoomClient().sit(worker.rooms, id, principal=user("ann"))
        await eventually(partial(has_state, again, clock - 1))
        await again.say(state_of(1, clock, "[]"))
        await eventually(partial(has_state, again, clock))
    dead.leave()
    other = await RoomClient().sit(here.rooms, id)
    await eventually(lambda: other.text.states.get(1) == (3, "[]"))


async def test_state_for_a_client_id_of_another_worker_is_ignored(start_worker: StartWorker) -> None:
    here, there = await start_worker(), await start_worker()
    id = await here.create_note()
    owner = await RoomClient().sit(here.rooms, id, principal=user("ann"))
    stranger = await RoomClient().sit(there.rooms, id, principal=user("ben"))
    await owner.say(state_of(1, 1, "{}"))
    await eventually(lambda: stranger.text.here == {1})
    await stranger.say(state_of(1, 9, "null"))
    await stranger.say(state_of(2, 1, "{}"))
    await owner.say(state_of(1, 2, "[]"))
    await eventually(lambda: stranger.text.states == {1: (2, "[]"), 2: (1, "{}")})


async def test_new_room_learns_client_id_owners_from_other_workers(start_worker: StartWorker) -> None:
    """Client ids that are present or have left cannot be used by others at a worker that had no room yet."""
    here, there = await start_worker(), await start_worker()
    id = await here.create_note()
    owner = await RoomClient().sit(here.rooms, id, principal=user("ann"))
    left = await RoomClient().sit(here.rooms, id, principal=user("cy"))
    await owner.say(state_of(1, 1, "{}"))
    await left.say(state_of(3, 1, "{}"))
    left.leave()
    stranger = await RoomClient().sit(there.rooms, id, principal=user("ben"))
    assert stranger.text.here == {1}
    for client in (1, 3):
        await stranger.say(state_of(client, 9, '"forged"'))
    await stranger.say(state_of(2, 1, "{}"))
    await eventually(lambda: owner.text.here == {1, 2})
    await owner.say(state_of(1, 2, "[]"))
    await eventually(lambda: stranger.text.states[1] == (2, "[]"))
    assert owner.text.states[1] == (2, "[]")


async def test_join_succeeds_if_other_workers_do_not_answer(start_worker: StartWorker) -> None:
    here, there = await start_worker(), await start_worker("send to other workers")
    id = await here.create_note()
    await RoomClient().sit(there.rooms, id)
    seat = await RoomClient().sit(here.rooms, id)
    await seat.say(state_of(1, 1, "{}"))
    await eventually(lambda: seat.text.here == {1})


async def test_relayed_state_of_another_caller_does_not_replace_a_client(start_worker: StartWorker) -> None:
    worker = await start_worker()
    seat = await RoomClient().sit(worker.rooms, await worker.create_note(), principal=user("ann"))
    assert seat.room is not None
    await seat.say(state_of(1, 1, "{}"))
    for caller, clock, state in (("ben", 5, "[]"), ("ben", 6, "null"), ("ann", 3, "2")):
        entry = lib0.number(1) + lib0.number(1) + lib0.number(clock) + lib0.string(state)
        message = RelayMessage(RelayKind.AWARENESS, seat.room.id, updates=[entry], names=[caller])
        seat.room.receive_relayed(message)
        if caller == "ben":
            await seat.say(state_of(1, 2, "1"))
            await eventually(lambda: seat.text.states[1] == (2, "1"))
    await eventually(lambda: seat.text.states[1] == (3, "2"))


async def test_state_with_a_clock_above_the_maximum_is_ignored(start_worker: StartWorker) -> None:
    worker = await start_worker()
    seat = await RoomClient().sit(worker.rooms, await worker.create_note())
    await seat.say(state_of(1, MAX_CLOCK + 1, "{}"))
    await seat.say(state_of(2, 0, "{}"))
    await eventually(lambda: seat.text.here == {2})


async def test_peer_with_too_many_client_ids_or_characters_is_refused(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    greedy, neighbour = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    with pytest.raises(PeerRefused):
        for client in range(100, 101 + participants.MAX_CONNECTION_CLIENTS):
            await greedy.say(state_of(client, 0, "1"))
    await neighbour.say(state_of(1, 0, "{}"))
    await eventually(lambda: len(neighbour.text.here) == 1 + participants.MAX_CONNECTION_CLIENTS)
    large = '"' + "x" * (participants.MAX_CONNECTION_CHARACTERS // 3) + '"'
    with pytest.raises(PeerRefused):
        for client in range(1, 4):
            await neighbour.say(state_of(client, 1, large))


async def test_message_with_thousands_of_client_ids_does_not_affect_others(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    flood, neighbour = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    await neighbour.say(state_of(1, 0, "{}"))
    await flood.say(states_of(range(10_000, 15_000)))
    with pytest.raises(PeerRefused):
        await flood.say(states_of(range(100, 133)))
    await neighbour.say(state_of(1, 1, "{}"))
    await eventually(lambda: neighbour.text.states == {1: (1, "{}")})
    assert neighbour.code is None


async def test_full_room_drops_the_states_of_newcomers_only(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(participants, "MAX_ROOM_CLIENTS", 4)
    worker = await start_worker()
    id = await worker.create_note()
    readers = [await RoomClient().sit(worker.rooms, id, writes=False) for _ in range(4)]
    for client, seat in enumerate(readers):
        await seat.say(state_of(client, 0, "{}"))
    writers = [await RoomClient().sit(worker.rooms, id) for _ in range(3)]
    for client, seat in enumerate(writers, 10):
        await seat.say(state_of(client, 0, "{}"))
    await eventually(lambda: readers[0].text.here == {0, 1, 10, 11})
    await readers[0].say(state_of(0, 1, "null"))
    await writers[2].say(state_of(12, 1, "{}"))
    await eventually(lambda: readers[1].text.here == {1, 10, 11})
    assert [seat.code for seat in (*readers, *writers)] == [None] * 7


async def test_room_with_large_states_drops_those_of_newcomers(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(participants, "MAX_ROOM_CHARACTERS", 20_000)
    worker = await start_worker()
    id = await worker.create_note()
    seats = [await RoomClient().sit(worker.rooms, id) for _ in range(4)]
    for client, seat in enumerate(seats):
        await seat.say(state_of(client, 0, '"' + "x" * 6000 + '"'))
    await seats[3].say(state_of(3, 1, "{}"))
    await eventually(lambda: seats[0].text.here == {0, 1, 2, 3})
    assert seats[0].text.states[3] == (1, "{}")
    assert [seat.code for seat in seats] == [None] * 4
