"""The rooms of several workers: all have the same text even if messages are lost, and no character twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from realtime.auth.permissions import UNRESTRICTED
from realtime.core.close_codes import CloseCode
from realtime.errors import NoteNotFound
from realtime.notes.models import NotePatch
from realtime.notes.text_operations import Append
from realtime.rooms.crdt import TextDocument
from realtime.rooms.relay import RelayKind, RelayMessage
from realtime.rooms.room import Room
from realtime.settings import Settings
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, Text, state_of
from tests.unit.rooms.conftest import StartWorker, content_is, loaded, working


async def test_edit_reaches_peers_of_the_same_and_other_workers(start_worker: StartWorker, settings: Settings) -> None:
    here, there = await start_worker(), await start_worker()
    id = await here.create_note("one ")
    seats = [await RoomClient().sit(worker.rooms, id) for worker in (here, here, there)]
    assert {str(seat.text) for seat in seats} == {"one "}
    await seats[0].append("two ")
    await eventually(lambda: {str(seat.text) for seat in seats} == {"one two "})
    await seats[2].append("three")
    await eventually(lambda: {str(seat.text) for seat in seats} == {"one two three"})
    assert seats[0].text.all_acknowledged
    await eventually(lambda: content_is(here, id, "one two three"), within=2)
    assert await loaded(settings, id) == "one two three"


async def test_twenty_concurrent_workers_create_one_genesis(settings: Settings, start_worker: StartWorker) -> None:
    first = await start_worker()
    id = await first.create_note("made once 🦜 ")
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(settings, "tend", "recover texts")) for _ in range(20)]
        seats = await asyncio.gather(*(RoomClient().sit(worker.rooms, id) for worker in workers))
        assert {str(seat.text) for seat in seats} == {"made once 🦜 "}
        await asyncio.gather(*(seat.append(f"{number};") for number, seat in enumerate(seats)))
        words = {f"{number}" for number in range(20)}
        await eventually(lambda: all(set(str(seat.text)[12:-1].split(";")) == words for seat in seats), within=10)
        assert len({str(seat.text) for seat in seats}) == 1
    async with AsyncMongoClient[dict[str, Any]](settings.mongo_url) as client:
        assert await client[settings.database].texts.count_documents({"note": id}) == 1


async def test_join_of_unknown_or_deleted_note_raises_note_not_found(start_worker: StartWorker) -> None:
    worker = await start_worker()
    with pytest.raises(NoteNotFound):
        await RoomClient().sit(worker.rooms, 99)
    id = await worker.create_note()
    seat = await RoomClient().sit(worker.rooms, id)
    await worker.notes.delete(UNRESTRICTED, id)
    worker.rooms.note_deleted(id, 2)
    await eventually(lambda: seat.code == CloseCode.NOTE_GONE)
    with pytest.raises(NoteNotFound):
        await RoomClient().sit(worker.rooms, id)


async def test_note_deleted_while_its_room_loads_cannot_be_joined(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    read = worker.store.texts.read

    async def late(note: int, **more: Any) -> Any:
        stored = await read(note, **more)
        monkeypatch.setattr(worker.store.texts, "read", read)
        await worker.notes.delete(UNRESTRICTED, id)
        worker.rooms.note_deleted(id, 2)
        return stored

    monkeypatch.setattr(worker.store.texts, "read", late)
    with pytest.raises(NoteNotFound):
        await RoomClient().sit(worker.rooms, id)


async def test_viewer_receives_edits_and_cannot_write(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    writer, viewer = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id, writes=False)
    for _ in range(3):
        await viewer.append("never")
    assert viewer.text.denied == 1
    await writer.append(" more")
    await eventually(lambda: "more" in str(viewer.text))
    assert str(writer.text) == "text more"
    assert viewer.code is None


async def test_updates_relayed_while_a_room_loads_are_applied(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await start_worker(), await start_worker("tend")
    id = await one.create_note("start ")
    seat = await RoomClient().sit(one.rooms, id)
    read, receive = other.store.texts.read, Room.receive_relayed
    relayed: list[RelayKind] = []

    def record(room: Room, message: RelayMessage) -> None:
        receive(room, message)
        relayed.append(message.kind)

    monkeypatch.setattr(Room, "receive_relayed", record)

    async def slow(*arguments: Any, **more: Any) -> Any:
        found = await read(*arguments, **more)
        await seat.append("meanwhile ")
        await eventually(lambda: seat.text.all_acknowledged)
        await eventually(lambda: RelayKind.UPDATES in relayed)
        return found

    other.store.texts.read = slow  # type: ignore[method-assign]
    late = await RoomClient().sit(other.rooms, id)
    await eventually(lambda: str(late.text) == "start meanwhile ")


async def test_concurrent_compactions_of_two_workers_lose_no_edits(
    start_worker: StartWorker, settings: Settings
) -> None:
    workers = [await start_worker(), await start_worker()]
    id = await workers[0].create_note("|")
    seats = [await RoomClient().sit(worker.rooms, id) for worker in workers]
    tokens = []
    choose = random.Random(7)
    for number in range(30):
        await choose.choice(seats).append(f"{number};")
        tokens.append(str(number))
        if choose.random() < 0.5:
            await asyncio.gather(*(seat.room.compact() for seat in seats if seat.room))
    await eventually(lambda: all(len(str(seat.text)) == len("".join(tokens)) + 31 for seat in seats))
    await asyncio.gather(*(seat.room.compact() for seat in seats if seat.room))
    assert sorted((await loaded(settings, id))[1:-1].split(";")) == sorted(tokens)
    assert str(seats[0].text) == str(seats[1].text)


@pytest.mark.slow
async def test_idle_text_is_compacted_into_one_snapshot(start_worker: StartWorker, settings: Settings) -> None:
    workers = [await start_worker(), await start_worker()]
    id = await workers[0].create_note("text ")
    seats = [await RoomClient().sit(worker.rooms, id) for worker in workers]
    for seat in seats:
        await seat.append("more ")
    await workers[0].notes.edit(UNRESTRICTED, id, [Append(op="append", text="rest")])
    async with AsyncMongoClient[dict[str, Any]](settings.mongo_url) as client:
        database = client[settings.database]

        async def compacted() -> bool:
            note = await database.notes.find_one({"_id": id}) or {}
            return await database.updates.count_documents({}) == 0 and not note.get("edits") and "dirty" not in note

        await eventually(compacted, within=12)
        text = await database.texts.find_one({"note": id}) or {}
        assert str(TextDocument([text["state"]])) == str(seats[0].text)


@pytest.mark.slow
async def test_empty_room_is_unloaded_and_can_be_loaded_again(start_worker: StartWorker) -> None:
    worker = await start_worker(idle=0)
    id = await worker.create_note("text")
    for number in range(2):
        seat = await RoomClient().sit(worker.rooms, id)
        await seat.append(f" {number}")
        seat.leave()
        room = seat.room
        assert room is not None
        await eventually(lambda room=room: room.closed, within=10)  # type: ignore[misc]
    assert await worker.content(id) == "text 0 1"


async def test_client_with_offline_edits_is_merged_after_a_compaction(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("one two three")
    text = Text()
    seat = await RoomClient(text).sit(worker.rooms, id)
    seat.leave()
    text.edit("zero one two three")
    text.edit("zero one 2 three")
    await worker.notes.patch(UNRESTRICTED, id, NotePatch.model_validate({"content": "one two 3"}))
    other = await RoomClient().sit(worker.rooms, id)
    assert other.room is not None
    await other.room.compact()
    await RoomClient(text).sit(worker.rooms, id)
    await eventually(lambda: str(other.text) == str(text) == "zero one 2 3")


async def test_awareness_state_is_shared_until_its_peer_leaves(start_worker: StartWorker) -> None:
    here, there = await start_worker(), await start_worker()
    id = await here.create_note()
    seats = [await RoomClient().sit(worker.rooms, id) for worker in (here, here, there)]
    await seats[0].say(state_of(1, 0, '{"user":{"name":"Ada"}}'))
    await eventually(lambda: all(seat.text.here == {1} for seat in seats))
    late = await RoomClient().sit(there.rooms, id)
    assert late.text.here == {1}
    seats[0].leave()
    await eventually(lambda: all(seat.text.here == set() for seat in (*seats[1:], late)))
    # After reconnecting, it repeats its state, receives its removal, and sends the state with a higher clock.
    back = await RoomClient().sit(here.rooms, id)
    await back.say(state_of(1, 0, '{"user":{"name":"Ada"}}'))
    assert back.text.states[1] == (0, "null")
    await back.say(state_of(1, 1, '{"user":{"name":"Ada"}}'))
    await eventually(lambda: all(seat.text.here == {1} for seat in (*seats[1:], late)))
    query = await RoomClient().sit(there.rooms, id)
    query.text.states.clear()
    await query.say(b"\3")
    assert query.text.here == {1}


async def test_history_names_the_authors_of_typed_text(start_worker: StartWorker) -> None:
    here, there = await start_worker(), await start_worker()
    id = await here.create_note()
    for client, (worker, name) in enumerate([(here, "Ada"), (there, "Grace")], 1):
        seat = await RoomClient(Text(client)).sit(worker.rooms, id)
        await seat.say(state_of(client, 0, f'{{"user":{{"name":"{name}"}}}}'))
        await seat.append(f"{name} ")

    async def both() -> bool:
        return sorted((await here.content(id)).split()) == ["Ada", "Grace"]

    await eventually(both)
    revision = await here.store.history.page(id, 2**53, 10)
    assert revision
    names = {name for one in revision[0] if one.action == "type" for name in one.authors}
    assert names == {"Ada", "Grace"}
