"""When the shared text of a note is written to the note."""

from __future__ import annotations

import time

from realtime.rooms.projector import DELAY_PER_READ
from realtime.rooms.room import Room
from tests.support.room_client import RoomClient
from tests.unit.rooms.conftest import StartWorker


async def test_text_that_takes_long_to_read_is_written_less_often(start_worker: StartWorker) -> None:
    worker = await start_worker()
    client = await RoomClient().sit(worker.rooms, await worker.create_note())
    room, now = client.room, time.monotonic()
    assert isinstance(room, Room)
    worker.projector.schedule(room)
    assert worker.projector.is_due(room, now + 1)
    worker.projector.forget(room)
    room.read_seconds = 0.05
    worker.projector.schedule(room)
    delay = DELAY_PER_READ * room.read_seconds
    assert not worker.projector.is_due(room, now + delay - 1)
    assert worker.projector.is_due(room, now + delay + 1)
