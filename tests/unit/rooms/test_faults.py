"""Failed commits, lost messages, broken texts and killed workers do not lose edits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from realtime.core.close_codes import CloseCode
from realtime.errors import DocumentBroken, MalformedUpdate, OutcomeUnknown
from realtime.rooms import manager, protocol
from realtime.rooms.contributors import Contributors
from realtime.rooms.crdt import TextDocument
from realtime.rooms.journal import Journal
from realtime.rooms.participants import Participants
from realtime.settings import Settings
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, state_of
from tests.unit.rooms.conftest import StartWorker, content_is, loaded, working


async def test_unjournaled_update_is_not_sent_until_the_client_resends_it(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = await start_worker(), await start_worker()
    id = await worker.create_note("text")
    writer, reader, far = [await RoomClient().sit(one.rooms, id) for one in (worker, worker, other)]
    seen = len(reader.messages)

    async def fails(_: Any) -> None:
        raise OutcomeUnknown

    with monkeypatch.context() as patch:
        patch.setattr(worker.store.texts, "journal", fails)
        await writer.append(" lost?")
        await eventually(lambda: writer.code is not None)
    assert writer.code == reader.code == CloseCode.RESUME
    assert far.code is None
    assert len(reader.messages) == seen
    writer.leave()
    again = await RoomClient(writer.text).sit(worker.rooms, id)
    assert again.room is not writer.room
    await eventually(lambda: str(far.text) == "text lost?")
    await eventually(lambda: content_is(worker, id, "text lost?"), within=2)


async def test_late_commit_of_a_closed_room_reaches_the_new_room(
    start_worker: StartWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit fails, and the second, of the same room, succeeds when another room has taken its place."""
    worker = await start_worker()
    id = await worker.create_note("text ")
    one, two = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    journal = worker.store.texts.journal
    proceed, started = asyncio.Event(), asyncio.Event()
    calls = 0

    async def slow(rows: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            started.set()
            await proceed.wait()
            raise OutcomeUnknown
        if calls == 2:
            again.append(await RoomClient().sit(worker.rooms, id))
        await journal(rows)

    again: list[RoomClient] = []
    monkeypatch.setattr(worker.store.texts, "journal", slow)
    await one.append("first ")
    await started.wait()
    await two.append("second ")
    proceed.set()
    await eventually(lambda: again and "second" in str(again[0].text))
    assert one.code == two.code == CloseCode.RESUME
    one.leave()
    two.leave()
    assert again[0].room is not None
    await again[0].append("third ")
    await eventually(lambda: again[0].text.all_acknowledged)
    await again[0].room.compact()
    assert sorted((await loaded(settings, id)).split()) == ["second", "text", "third"]
    assert sorted(str(again[0].text).split()) == ["second", "text", "third"]


async def test_lost_relay_messages_are_recovered_from_the_journal(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await start_worker(), await start_worker()
    id = await here.create_note()
    writer, reader = await RoomClient().sit(here.rooms, id), await RoomClient().sit(there.rooms, id)
    await writer.append("heard ")
    await eventually(lambda: str(reader.text) == "heard ")

    async def lost(*_: Any) -> None:
        return

    with monkeypatch.context() as patch:
        patch.setattr(here.bus, "publish", lost)
        await writer.append("lost ")
        await eventually(lambda: writer.text.all_acknowledged)
    await writer.append("heard again")
    await eventually(lambda: str(reader.text) == "heard lost heard again")


def _raise_document_broken(*_: Any) -> None:
    raise DocumentBroken("boom")


async def test_broken_text_is_reloaded_and_other_peers_stay_connected(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    bad, good = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)

    await good.append(" kept")
    with monkeypatch.context() as patch:
        patch.setattr(TextDocument, "apply", _raise_document_broken)
        with pytest.raises(MalformedUpdate, match="cannot be applied"):
            await bad.say(protocol.update(TextDocument(client=77).edit([(0, 0, "x")])))
    await good.append(" and more")
    await eventually(lambda: good.text.all_acknowledged)
    assert good.code is None
    assert str((await RoomClient().sit(worker.rooms, id)).text) == "text kept and more"
    await eventually(lambda: content_is(worker, id, "text kept and more"))


async def test_room_whose_text_cannot_be_reloaded_disconnects_all_peers(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    bad, good = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)

    async def away(*_: Any, **__: Any) -> None:
        raise OutcomeUnknown

    with monkeypatch.context() as patch:
        patch.setattr(TextDocument, "apply", _raise_document_broken)
        patch.setattr(worker.store.texts, "read", away)
        with pytest.raises(MalformedUpdate):
            await bad.say(protocol.update(TextDocument(client=77).edit([(0, 0, "x")])))
        await eventually(lambda: good.code is not None)
    assert good.code == CloseCode.RESUME
    good.leave()
    bad.leave()
    assert str((await RoomClient().sit(worker.rooms, id)).text) == "text"


async def test_update_applied_but_not_journaled_is_not_sent_to_newcomers(
    start_worker: StartWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, a newcomer would build on the update, and lose its own acknowledged text together with it."""
    worker = await start_worker()
    id = await worker.create_note("text")
    places: list[tuple[type, str]] = [(Participants, "name_of"), (Contributors, "add"), (Journal, "write")]
    for owner, method in places:
        bad, good = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, _raise_recursion_error)
            with pytest.raises(RecursionError):
                await bad.append(" never")
        assert bad.code == good.code == CloseCode.RESUME
        newcomer = await RoomClient().sit(worker.rooms, id)
        assert "never" not in str(newcomer.text)
        await newcomer.append(" kept")
        await eventually(lambda newcomer=newcomer: newcomer.text.all_acknowledged)  # type: ignore[misc]
        newcomer.leave()
    assert await loaded(settings, id) == "text kept kept kept"


def _raise_recursion_error(*_: Any) -> None:
    raise RecursionError


async def test_rejected_update_does_not_disconnect_other_peers(start_worker: StartWorker) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    bad, good = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    with pytest.raises(MalformedUpdate):
        await bad.say(protocol.update(b"\1\1\7\0\x84\1\0\1\xff\0"))
    assert good.code is None


@pytest.mark.parametrize("state", ['{"a":' + "[" * 965 + "]" * 965 + "}", '{"user":{"name":"\\ud800"}}'])
async def test_unusual_awareness_state_does_not_prevent_journaling(
    start_worker: StartWorker, settings: Settings, state: str
) -> None:
    worker = await start_worker()
    id = await worker.create_note("text")
    strange, other = await RoomClient().sit(worker.rooms, id), await RoomClient().sit(worker.rooms, id)
    with contextlib.suppress(MalformedUpdate):
        await strange.say(state_of(1, 1, state))
    await strange.append(" words")
    await eventually(lambda: strange.text.all_acknowledged and str(other.text) == "text words")
    assert strange.code is other.code is None
    assert await loaded(settings, id) == "text words"


@pytest.mark.slow
async def test_worker_recovers_unfinished_text_of_a_killed_worker(
    start_worker: StartWorker, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "RECOVERY_INTERVAL_SECONDS", 0.5)
    async with working(settings, "tend") as dying:
        await dying.store.prepare()
        id = await dying.create_note("text")
        seat = await RoomClient().sit(dying.rooms, id)
        await seat.append(" left behind")
        await eventually(lambda: seat.text.all_acknowledged)
    survivor = await start_worker()
    assert await survivor.content(id) == "text"
    await eventually(lambda: content_is(survivor, id, "text left behind"), within=20)
