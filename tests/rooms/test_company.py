"""Who is in a room: what one client may say of itself, and how often others hear of it."""

from __future__ import annotations

import asyncio
import time

import pytest

from realtime.access import Viewer
from realtime.errors import CloseCode
from realtime.rooms.member import STATES_BURST, Refused
from tests.harness import eventually
from tests.rooms.client import Seat, state_of
from tests.rooms.conftest import Hire


async def test_a_flood_of_states_is_refused_and_neighbours_stay(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make()
    flood, neighbour = await Seat().sit(worker.rooms, id), await Seat().sit(worker.rooms, id)
    with pytest.raises(Refused) as refused:
        for clock in range(2 * STATES_BURST):
            await flood.say(state_of(1, clock, "{}"))
    assert refused.value.code == CloseCode.TOO_MANY
    flood.leave()
    await neighbour.say(state_of(2, 0, "{}"))
    await eventually(lambda: neighbour.text.here == {2})


async def test_asking_who_is_here_and_saying_the_same_on_and_on_count_too(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make()
    for message in (b"\3", state_of(1, 0, "{}")):
        seat = await Seat().sit(worker.rooms, id)
        with pytest.raises(Refused):
            for _ in range(2 * STATES_BURST):
                await seat.say(message)


async def test_large_states_count_for_several(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make()
    seat = await Seat().sit(worker.rooms, id)
    with pytest.raises(Refused):
        for clock in range(STATES_BURST // 4):
            await seat.say(state_of(1, clock, '"' + "x" * 8000 + '"'))


async def test_news_from_here_and_elsewhere_are_gathered(hire: Hire) -> None:
    """Stock clients send back all that they hear, so that this must not grow with the number of others."""
    here, there = await hire(), await hire()
    id = await here.make()
    seats = [await Seat().sit(worker.rooms, id) for worker in (here, there) for _ in range(20)]
    listener = await Seat().sit(here.rooms, id)
    before, started = listener.packets, time.monotonic()
    for clock in range(10):
        for client, seat in enumerate(seats):
            await seat.say(state_of(client, clock, "{}"))
        await asyncio.sleep(0.01)
    for seat in seats[:-1]:
        seat.leave()
    await eventually(lambda: listener.text.here == {len(seats) - 1})
    assert listener.packets - before <= (time.monotonic() - started) / 0.03 + 1


async def test_who_is_signed_in_is_named_by_their_account(hire: Hire) -> None:
    worker = await hire()
    seat = await Seat().sit(worker.rooms, await worker.make())
    assert seat.room is not None
    await seat.say(state_of(1, 0, '{"user": {"name": "Root"}}'))
    assert seat.room.company.name_of(seat.member) == "Root"
    seat.member.viewer = Viewer(keys=frozenset({"*", "@ann"}), name="ann")
    assert seat.room.company.name_of(seat.member) == "ann"
    await seat.say(state_of(1, 1, '{"user": {"name": "Root"}}'))
    assert b'"name":"ann"' in seat.room.company.everyone()[0]
    seat.member.viewer = Viewer(keys=frozenset({"*", "link:1"}))
    await seat.say(state_of(1, 2, '{"user": {"name": "ann"}}'))
    assert b'"name":"Guest"' in seat.room.company.everyone()[0]
