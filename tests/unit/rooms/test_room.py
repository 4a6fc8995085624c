"""A room and its note: deletion of the note, and attribution of typed text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from realtime.auth.permissions import UNRESTRICTED
from realtime.core.close_codes import CloseCode
from realtime.notes.models import NotePatch
from realtime.notes.text_operations import Append
from realtime.rooms import lib0, manager, projector, protocol
from realtime.rooms.contributors import TextSnapshot
from realtime.rooms.crdt import TextDocument
from realtime.rooms.peer import PeerRefused
from realtime.settings import Settings
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, Text, state_of
from tests.unit.rooms.conftest import StartWorker, Worker, working


async def content_is(worker: Worker, id: int, text: str) -> bool:
    return await worker.content(id) == text


async def connect_with_name(worker: Worker, id: int, client: int, name: str) -> RoomClient:
    """Connect a client with a name."""
    seat = await RoomClient(Text(client)).sit(worker.rooms, id)
    await seat.say(state_of(client, 0, f'{{"user":{{"name":"{name}"}}}}'))
    return seat


async def authors(worker: Worker, id: int) -> Sequence[tuple[str, list[str]]]:
    """Return the action and the authors of each version but the first, the oldest first."""
    revisions, _ = await worker.store.history.page(id, 2**53, 100) or ([], None)
    return [(revision.action, revision.authors) for revision in reversed(revisions)][1:]


async def test_late_deletion_event_keeps_peers_of_the_restored_note(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    before = await RoomClient().sit(worker.rooms, id)
    await worker.notes.delete(UNRESTRICTED, id)
    await worker.notes.undelete(UNRESTRICTED, id)
    worker.rooms.note_deleted(id, 2)  # the room does not know about the deletion
    assert before.room is not None
    restored = before.room
    await eventually(lambda: restored.version == 3)
    after = await RoomClient().sit(worker.rooms, id)
    worker.rooms.note_deleted(id, 2)
    await before.append(" more")
    await eventually(lambda: str(after.text) == "text more")
    await eventually(lambda: not worker.rooms.background_tasks)
    assert before.code is None
    assert after.code is None


async def test_unannounced_deletion_is_detected_and_keeps_typed_text(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "COMPARE_INTERVAL_SECONDS", 0.5)
    monkeypatch.setattr(manager, "RECOVERY_INTERVAL_SECONDS", 0.5)
    monkeypatch.setattr(projector, "DELAY_SECONDS", (60.0, 60.0))  # only the comparison detects the deletion
    here, there = await start_worker(), await start_worker()
    id = await here.create_note("text")
    writer, reader = await RoomClient().sit(there.rooms, id), await RoomClient().sit(there.rooms, id)
    await here.notes.delete(UNRESTRICTED, id)
    await writer.append(" typed")
    await eventually(lambda: writer.text.all_acknowledged)
    await eventually(lambda: writer.code is not None and reader.code is not None)
    assert writer.code == reader.code == CloseCode.NOTE_GONE
    await here.notes.undelete(UNRESTRICTED, id)
    assert str((await RoomClient().sit(here.rooms, id)).text) == "text typed"


async def test_text_projected_before_it_is_durable_names_its_author(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start_worker()
    id = await worker.create_note()
    ada, ben = await connect_with_name(worker, id, 1, "Ada"), await connect_with_name(worker, id, 2, "Ben")
    await ada.append("Ada ")
    await eventually(lambda: ada.text.all_acknowledged)
    journal, started, proceed = worker.store.texts.journal, asyncio.Event(), asyncio.Event()

    async def slow(rows: Any) -> None:
        started.set()
        await proceed.wait()
        await journal(rows)

    monkeypatch.setattr(worker.store.texts, "journal", slow)
    await ben.append("Ben ")
    await started.wait()
    held = ada.room
    assert held is not None
    show, read = held.contributors.snapshot, asyncio.Event()

    def reads(text: str) -> TextSnapshot:
        read.set()
        return show(text)

    monkeypatch.setattr(held.contributors, "snapshot", reads)
    await read.wait()  # with Ben's text
    await ada.append("more ")  # not in this snapshot
    proceed.set()

    async def whole() -> bool:
        return sorted((await worker.content(id)).split()) == ["Ada", "Ben", "more"]

    await eventually(whole)
    await eventually(lambda: not worker.projector.is_scheduled(held) and not held.has_unwritten_updates)
    assert await authors(worker, id) == [("type", ["Ada", "Ben"]), ("type", ["Ada"])]


async def test_write_names_the_authors_of_the_typed_text_it_includes(start_worker: StartWorker) -> None:
    worker = await start_worker("tend")  # nothing is stored in the note automatically
    id = await worker.create_note("text\n")
    ada = await connect_with_name(worker, id, 1, "Ada")
    await ada.append("Ada\n")
    await eventually(lambda: ada.text.all_acknowledged)
    await worker.notes.edit(UNRESTRICTED, id, [Append(op="append", text="added\n")])
    await worker.notes.edit(UNRESTRICTED, id, [Append(op="append", text="again\n")])
    await ada.append("more\n")
    await eventually(lambda: ada.text.all_acknowledged)
    patch = NotePatch.model_validate({"content": "TEXT\nAda\nadded\nagain\n"})
    note = await worker.notes.patch(UNRESTRICTED, id, patch)
    assert note.content == "TEXT\nAda\nadded\nagain\nmore\n"
    assert await authors(worker, id) == [("edit", ["Ada"]), ("edit", []), ("update", ["Ada"])]


def update_of_pieces(count: int) -> bytes:
    """Return an update with one item per character, unlike those of Yjs clients. The library merges each item."""
    first = bytes((4, 1)) + lib0.string("content") + lib0.string("a")
    rest = (bytes((0x84, 7)) + lib0.number(clock) + lib0.string("a") for clock in range(count - 1))
    return b"\1" + lib0.number(count) + b"\7\0" + first + b"".join(rest) + b"\0"


@pytest.mark.slow
async def test_update_of_many_pieces_does_not_delay_other_peers(start_worker: StartWorker) -> None:
    here, there = await start_worker(), await start_worker()
    id = await here.create_note("")
    hostile, near, far = [await RoomClient().sit(worker.rooms, id) for worker in (here, here, there)]
    update = update_of_pieces(40_000)
    saying = asyncio.create_task(hostile.say(protocol.update(update)))
    await near.append("near")
    await eventually(lambda: near.text.all_acknowledged)
    assert not saying.done()
    await saying
    assert update in hostile.text.acknowledged
    await eventually(lambda: str(far.text) == str(near.text) == str(hostile.text))
    assert sorted(str(far.text)) == sorted("a" * 40_000 + "near")
    # A client that reconnects and sends it again gets an acknowledgement.
    again = await RoomClient().sit(here.rooms, id)
    before = len(again.messages)
    await again.say(bytes((0, 1)) + lib0.array(update))
    assert again.messages[before:] == [protocol.update(update)]


@pytest.mark.parametrize("code", [CloseCode.PERMISSION_GONE, None])
async def test_update_of_many_pieces_stops_when_write_access_ends(
    start_worker: StartWorker, code: CloseCode | None
) -> None:
    worker = await start_worker()
    id = await worker.create_note("")
    hostile, near = [await RoomClient().sit(worker.rooms, id) for _ in range(2)]
    saying = asyncio.create_task(hostile.say(protocol.update(update_of_pieces(40_000))))
    await eventually(lambda: str(near.text) != "")
    if code is None:
        hostile.member.has_write_access = False
    else:
        hostile.member.close(code)
    with pytest.raises(PeerRefused) as refused:
        await saying
    assert refused.value.code == (code or CloseCode.RESUME)
    await near.append("near")
    await eventually(lambda: near.text.all_acknowledged)
    assert 0 < str(near.text).count("a") - 1 < 40_000


async def test_update_of_a_closed_peer_is_ignored(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    seat = await RoomClient().sit(worker.rooms, id)
    seat.member.close(CloseCode.PERMISSION_GONE)
    await seat.append(" more")
    assert str((await RoomClient().sit(worker.rooms, id)).text) == "text"


async def test_large_update_with_missing_dependencies_requires_a_resume(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    seat = await RoomClient().sit(worker.rooms, id)
    other = TextDocument(client=9)
    other.edit([(0, 0, "missing")])
    missing = other.state
    for number in range(600):
        other.edit([(0, 0, "many ")] if number % 2 else [(len(str(other)), len(str(other)), " pieces")])
    with pytest.raises(PeerRefused) as refused:
        await seat.say(protocol.update(other.since(missing)))
    assert refused.value.code == CloseCode.RESUME
    assert str(seat.text) == "text"


@pytest.mark.slow
async def test_recovery_continues_past_texts_of_deleted_notes(
    start_worker: StartWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "RECOVERY_INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr(manager, "RECOVERY_PAGE_SIZE", 2)
    async with working(settings, "tend") as dying:
        await dying.store.prepare()
        made = [await dying.create_note("text") for _ in range(6)]
        for id in made:
            seat = await RoomClient().sit(dying.rooms, id)
            await seat.append(" left behind")
            await eventually(lambda seat=seat: seat.text.all_acknowledged)  # type: ignore[misc]
        for id in (made[0], made[1], made[3]):
            await dying.notes.delete(UNRESTRICTED, id)
    survivor = await start_worker()
    for id in (made[2], made[4], made[5]):
        await eventually(lambda id=id: content_is(survivor, id, "text left behind"), within=20)  # type: ignore[misc]
