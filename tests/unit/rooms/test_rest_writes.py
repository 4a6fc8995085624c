"""Writes over REST to texts that are being edited: both edits are kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from realtime.auth.permissions import UNRESTRICTED
from realtime.errors import OutcomeUnknown
from realtime.notes.models import NotePatch
from realtime.notes.preconditions import Conditions
from realtime.notes.text_operations import Append
from realtime.rooms.contributors import TextSnapshot
from realtime.rooms.drafts import DraftBase
from realtime.settings import Settings
from realtime.store.bson_mapping import Record
from realtime.store.notes import SharedTextChange
from tests.support.harness import eventually
from tests.support.room_client import RoomClient
from tests.unit.rooms.conftest import StartWorker, loaded, loaded_text_is


async def test_text_typed_during_a_rest_write_is_kept(start_worker: StartWorker, settings: Settings) -> None:
    worker = await start_worker()
    id = await worker.create_note("one two three ")
    seat = await RoomClient().sit(worker.rooms, id)
    write = worker.store.notes.update

    async def slow(*arguments: Any, **more: Any) -> Any:
        if isinstance(arguments[-1], SharedTextChange) and arguments[-1].edit is not None:
            await seat.append("typed before the commit ")
        return await write(*arguments, **more)

    worker.store.notes.update = slow  # type: ignore[method-assign]
    room = seat.room
    assert room is not None
    base = room.durable_base

    async def slower(record: Record) -> tuple[TextSnapshot, DraftBase]:
        found = await base(record)
        await seat.append("typed before the draft ")
        return found

    room.durable_base = slower  # type: ignore[method-assign]
    note = await worker.notes.edit(UNRESTRICTED, id, [Append(op="append", text="appended ")])
    room.durable_base = base  # type: ignore[method-assign]
    assert note.content == "one two three appended "
    words = {"one two three ", "typed before the draft ", "typed before the commit ", "appended "}

    async def whole() -> None:
        content = await worker.content(id)
        assert all(word in content for word in words)
        assert len(content) == sum(map(len, words))
        assert content == str(seat.text) == await loaded(settings, id)

    await eventually(whole)


async def test_content_write_keeps_text_that_no_version_has(start_worker: StartWorker, settings: Settings) -> None:
    worker = await start_worker("tend")  # nothing is stored in the note automatically
    id = await worker.create_note("one\ntwo\nthree\n")
    seat = await RoomClient().sit(worker.rooms, id)
    await seat.append("typed\n")
    await eventually(lambda: seat.text.all_acknowledged)
    # Based on version 1, and conditional on it: text typed since does not conflict.
    note = await worker.notes.patch(
        UNRESTRICTED, id, NotePatch.model_validate({"content": "ONE\ntwo\nthree\n"}), Conditions({1})
    )
    assert note.content == "ONE\ntwo\nthree\ntyped\n"
    await eventually(lambda: str(seat.text) == note.content)
    await seat.append("more\n")
    await eventually(lambda: seat.text.all_acknowledged)
    # Where both changed the same lines, the write wins, after a version has stored the typed text.
    note = await worker.notes.restore(UNRESTRICTED, id, 1)
    assert note.content == "one\ntwo\nthree\n"
    before = await worker.store.history.read(id, note.version - 1)
    assert before is not None
    assert before.content == "ONE\ntwo\nthree\ntyped\nmore\n"
    assert await loaded(settings, id) == note.content


async def test_title_write_with_a_base_version_does_not_wait_for_the_text(start_worker: StartWorker) -> None:
    worker = await start_worker("tend")
    id = await worker.create_note("one\n")
    seat = await RoomClient().sit(worker.rooms, id)
    await seat.append("typed\n")
    await eventually(lambda: seat.text.all_acknowledged)
    assert seat.room is not None
    patch = NotePatch.model_validate({"title": "another title"})
    async with seat.room.write_lock, asyncio.timeout(10):
        note = await worker.notes.patch(UNRESTRICTED, id, patch, base=1)
    assert (note.title, note.content) == ("another title", "one\n")


async def test_write_builds_on_the_projection_of_another_worker(start_worker: StartWorker, settings: Settings) -> None:
    without_tasks = ("receive from other workers", "tend")
    one, other = await start_worker(), await start_worker(*without_tasks)
    id = await one.create_note("start\n")
    seat, _ = await RoomClient().sit(one.rooms, id), await RoomClient().sit(other.rooms, id)
    await seat.append("typed\n")

    async def there() -> bool:
        return await one.content(id) == "start\ntyped\n"

    await eventually(there)
    note = await other.notes.patch(UNRESTRICTED, id, NotePatch.model_validate({"content": "start\ntyped\nand more\n"}))
    assert note.content == "start\ntyped\nand more\n"  # "typed" only once
    assert await loaded(settings, id) == note.content


async def test_concurrent_rest_writes_of_several_workers_are_all_kept(
    start_worker: StartWorker, settings: Settings
) -> None:
    workers = [await start_worker() for _ in range(3)]
    id = await workers[0].create_note("start ")
    seats = [await RoomClient().sit(worker.rooms, id) for worker in workers]

    async def write(number: int) -> None:
        await workers[number % 3].notes.edit(UNRESTRICTED, id, [Append(op="append", text=f"w{number} ")])

    async def type_on(number: int) -> None:
        for word in range(5):
            await seats[number].append(f"t{number}{word} ")
            await asyncio.sleep(0.03)  # as people type

    await asyncio.gather(*map(write, range(9)), *map(type_on, range(3)))
    words = sorted(["start", *(f"w{n}" for n in range(9)), *(f"t{n}{m}" for n in range(3) for m in range(5))])

    async def same() -> None:
        content = await workers[0].content(id)
        assert sorted(content.split()) == words
        assert {str(seat.text) for seat in seats} == {content}

    await eventually(same, within=10)
    assert sorted((await loaded(settings, id)).split()) == words


async def test_committed_write_of_unknown_outcome_is_not_overwritten(
    start_worker: StartWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write was committed. The room does not know it, and must not use the same clocks again."""
    worker = await start_worker()
    id = await worker.create_note("text ")
    seat = await RoomClient().sit(worker.rooms, id)
    update = worker.store.notes.update

    async def unknown(*arguments: Any, **more: Any) -> Any:
        if await update(*arguments, **more) is not None:
            raise OutcomeUnknown

    with monkeypatch.context() as patch:
        patch.setattr(worker.store.notes, "update", unknown)
        with pytest.raises(OutcomeUnknown):
            await worker.notes.patch(UNRESTRICTED, id, NotePatch.model_validate({"content": "text one "}))
    await worker.notes.edit(UNRESTRICTED, id, [Append(op="append", text="two ")])
    await eventually(lambda: str(seat.text) == "text one two ", within=10)
    assert await worker.content(id) == "text one two "
    await eventually(lambda: loaded_text_is(settings, id, "text one two "))
