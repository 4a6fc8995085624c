"""Rooms of several workers: one text for all, whatever gets lost between them, and never a character twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from realtime import crdt, rooms
from realtime.crdt import Document
from realtime.edits import Append
from realtime.errors import CloseCode, DocumentBroken, MalformedUpdate, NoteNotFound, OutcomeUnknown
from realtime.models import MAX_CONTENT, NotePatch
from realtime.rooms import protocol, relay, room
from realtime.rooms.credits import Shown
from realtime.rooms.member import BURST, Refused
from realtime.rooms.relay import Told
from realtime.settings import Settings
from realtime.store.documents import Record
from tests.harness import eventually
from tests.rooms.client import Seat, Text, state_of
from tests.rooms.conftest import Hire, Worker, working


def closed(seat: Seat) -> CloseCode | None:
    """How a seat was closed, if it was."""
    return seat.code


async def loaded(settings: Settings, id: int) -> str:
    """The text as a worker that comes new would load it."""
    async with working(settings, "tend", "finish texts") as fresh:
        seat = await Seat().sit(fresh.rooms, id)
        return str(seat.text)


async def content_is(worker: Worker, id: int, text: str) -> bool:
    return await worker.content(id) == text


async def test_what_one_types_others_see_here_and_elsewhere(hire: Hire, settings: Settings) -> None:
    here, there = await hire(), await hire()
    id = await here.make("one ")
    seats = [await Seat().sit(worker.rooms, id) for worker in (here, here, there)]
    assert {str(seat.text) for seat in seats} == {"one "}
    await seats[0].append("two ")
    await eventually(lambda: {str(seat.text) for seat in seats} == {"one two "})
    await seats[2].append("three")
    await eventually(lambda: {str(seat.text) for seat in seats} == {"one two three"})
    assert seats[0].text.all_acknowledged
    await eventually(lambda: content_is(here, id, "one two three"), within=2)
    assert await loaded(settings, id) == "one two three"


async def test_one_genesis_of_twenty_at_once(settings: Settings, hire: Hire) -> None:
    first = await hire()
    id = await first.make("made once 🦜 ")
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(working(settings, "tend", "finish texts")) for _ in range(20)]
        seats = await asyncio.gather(*(Seat().sit(worker.rooms, id) for worker in workers))
        assert {str(seat.text) for seat in seats} == {"made once 🦜 "}
        await asyncio.gather(*(seat.append(f"{number};") for number, seat in enumerate(seats)))
        words = {f"{number}" for number in range(20)}
        await eventually(lambda: all(set(str(seat.text)[12:-1].split(";")) == words for seat in seats), within=10)
        assert len({str(seat.text) for seat in seats}) == 1
    async with AsyncMongoClient[dict[str, Any]](settings.mongo_url) as client:
        assert await client[settings.database].texts.count_documents({"note": id}) == 1


async def test_unknown_notes_have_no_room(hire: Hire) -> None:
    worker = await hire()
    with pytest.raises(NoteNotFound):
        await Seat().sit(worker.rooms, 99)
    id = await worker.make()
    seat = await Seat().sit(worker.rooms, id)
    await worker.notes.delete(id, None, None)
    worker.rooms.gone(id, 2)
    await eventually(lambda: seat.code == CloseCode.NOTE_GONE)
    with pytest.raises(NoteNotFound):
        await Seat().sit(worker.rooms, id)


async def test_a_note_that_is_deleted_while_its_room_is_loaded_lets_nobody_in(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hire()
    id = await worker.make("text")
    read = worker.store.texts.read

    async def late(note: int, **more: Any) -> Any:
        stored = await read(note, **more)
        monkeypatch.setattr(worker.store.texts, "read", read)
        await worker.notes.delete(id, None, None)
        worker.rooms.gone(id, 2)
        return stored

    monkeypatch.setattr(worker.store.texts, "read", late)
    with pytest.raises(NoteNotFound):
        await Seat().sit(worker.rooms, id)


async def test_a_viewer_reads_on_and_writes_nothing(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make("text")
    writer, viewer = await Seat().sit(worker.rooms, id), await Seat().sit(worker.rooms, id, writes=False)
    for _ in range(3):
        await viewer.append("never")
    assert viewer.text.denied == 1
    await writer.append(" more")
    await eventually(lambda: "more" in str(viewer.text))
    assert str(writer.text) == "text more"
    assert viewer.code is None


async def test_what_cannot_be_journaled_nobody_sees_and_it_comes_again(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, other = await hire(), await hire()
    id = await worker.make("text")
    writer, reader, far = [await Seat().sit(one.rooms, id) for one in (worker, worker, other)]
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
    again = await Seat(writer.text).sit(worker.rooms, id)
    assert again.room is not writer.room
    await eventually(lambda: str(far.text) == "text lost?")
    await eventually(lambda: content_is(worker, id, "text lost?"), within=2)


async def test_a_late_commit_of_a_room_that_was_given_up_is_not_lost(
    hire: Hire, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit fails, and the second, of the same room, succeeds when another room has taken its place."""
    worker = await hire()
    id = await worker.make("text ")
    one, two = await Seat().sit(worker.rooms, id), await Seat().sit(worker.rooms, id)
    journal = worker.store.texts.journal
    go_on, begun = asyncio.Event(), asyncio.Event()
    calls = 0

    async def slow(rows: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            begun.set()
            await go_on.wait()
            raise OutcomeUnknown
        if calls == 2:
            again.append(await Seat().sit(worker.rooms, id))
        await journal(rows)

    again: list[Seat] = []
    monkeypatch.setattr(worker.store.texts, "journal", slow)
    await one.append("first ")
    await begun.wait()
    await two.append("second ")
    go_on.set()
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


async def test_what_is_typed_during_a_rest_write_stays(hire: Hire, settings: Settings) -> None:
    worker = await hire()
    id = await worker.make("one two three ")
    seat = await Seat().sit(worker.rooms, id)
    write = worker.store.notes.update

    async def slow(*arguments: Any, **more: Any) -> Any:
        if more.get("edit") is not None:
            await seat.append("typed before the commit ")
        return await write(*arguments, **more)

    worker.store.notes.update = slow  # type: ignore[method-assign]
    original = worker.rooms._held(id)
    async with original as held:
        base = held.base

        async def slower(record: Record) -> tuple[Shown, bytes]:
            found = await base(record)
            await seat.append("typed before the draft ")
            return found

        held.base = slower  # type: ignore[method-assign]
        note = await worker.notes.edit(id, [Append(op="append", text="appended ")], None, None)
        held.base = base  # type: ignore[method-assign]
    assert note.content == "one two three appended "
    words = {"one two three ", "typed before the draft ", "typed before the commit ", "appended "}

    async def whole() -> None:
        content = await worker.content(id)
        assert all(word in content for word in words)
        assert len(content) == sum(map(len, words))
        assert content == str(seat.text) == await loaded(settings, id)

    await eventually(whole)


async def test_a_replaced_content_leaves_words_that_no_version_has_yet(hire: Hire, settings: Settings) -> None:
    worker = await hire("tend")  # nothing is brought into the note by itself
    id = await worker.make("one\ntwo\nthree\n")
    seat = await Seat().sit(worker.rooms, id)
    await seat.append("typed\n")
    await eventually(lambda: seat.text.all_acknowledged)
    # Made of version 1, and allowed at version 1 only: what was typed since is not its business.
    note = await worker.notes.patch(id, NotePatch.model_validate({"content": "ONE\ntwo\nthree\n"}), {1}, None, None)
    assert note.content == "ONE\ntwo\nthree\ntyped\n"
    await eventually(lambda: str(seat.text) == note.content)
    await seat.append("more\n")
    await eventually(lambda: seat.text.all_acknowledged)
    # Where both touch, the write wins, but not before a version has what was typed.
    note = await worker.notes.restore(id, 1, None, None)
    assert note.content == "one\ntwo\nthree\n"
    before = await worker.store.history.read(id, note.version - 1)
    assert before is not None
    assert before.content == "ONE\ntwo\nthree\ntyped\nmore\n"
    assert await loaded(settings, id) == note.content


async def test_a_write_builds_on_what_another_worker_brought_into_the_note(hire: Hire, settings: Settings) -> None:
    deaf = ("hear other workers", "tend")
    one, other = await hire(), await hire(*deaf)
    id = await one.make("start\n")
    seat, _ = await Seat().sit(one.rooms, id), await Seat().sit(other.rooms, id)
    await seat.append("typed\n")

    async def there() -> bool:
        return await one.content(id) == "start\ntyped\n"

    await eventually(there)
    note = await other.notes.patch(
        id, NotePatch.model_validate({"content": "start\ntyped\nand more\n"}), None, None, None
    )
    assert note.content == "start\ntyped\nand more\n"  # and "typed" not twice
    assert await loaded(settings, id) == note.content


async def test_what_is_told_while_a_room_is_loaded_is_in_it(hire: Hire) -> None:
    one, other = await hire(), await hire("tend")
    id = await one.make("start ")
    seat = await Seat().sit(one.rooms, id)
    read = other.store.texts.read

    async def slow(*arguments: Any, **more: Any) -> Any:
        found = await read(*arguments, **more)
        await seat.append("meanwhile ")
        await eventually(lambda: seat.text.all_acknowledged)
        await eventually(lambda: other.rooms._rooms[id]._early)
        return found

    other.store.texts.read = slow  # type: ignore[method-assign]
    late = await Seat().sit(other.rooms, id)
    await eventually(lambda: str(late.text) == "start meanwhile ")


async def test_rest_writes_of_many_workers_at_once_all_stay(hire: Hire, settings: Settings) -> None:
    workers = [await hire() for _ in range(3)]
    id = await workers[0].make("start ")
    seats = [await Seat().sit(worker.rooms, id) for worker in workers]

    async def write(number: int) -> None:
        await workers[number % 3].notes.edit(id, [Append(op="append", text=f"w{number} ")], None, None)

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


async def test_a_write_of_unknown_outcome_is_found_and_not_written_over(
    hire: Hire, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed; the room does not know, and must not write under the same clocks again."""
    worker = await hire()
    id = await worker.make("text ")
    seat = await Seat().sit(worker.rooms, id)
    update = worker.store.notes.update

    async def unknown(*arguments: Any, **more: Any) -> Any:
        if await update(*arguments, **more) is not None:
            raise OutcomeUnknown

    with monkeypatch.context() as patch:
        patch.setattr(worker.store.notes, "update", unknown)
        with pytest.raises(OutcomeUnknown):
            await worker.notes.patch(id, NotePatch.model_validate({"content": "text one "}), None, None, None)
    await worker.notes.edit(id, [Append(op="append", text="two ")], None, None)
    await eventually(lambda: str(seat.text) == "text one two ", within=10)
    assert await worker.content(id) == "text one two "
    await eventually(lambda: loaded_is(settings, id, "text one two "))


async def loaded_is(settings: Settings, id: int, text: str) -> bool:
    return await loaded(settings, id) == text


async def test_lost_messages_between_workers_are_found_in_the_journal(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = await hire(), await hire()
    id = await here.make()
    writer, reader = await Seat().sit(here.rooms, id), await Seat().sit(there.rooms, id)
    await writer.append("heard ")
    await eventually(lambda: str(reader.text) == "heard ")

    async def lost(*_: Any) -> None:
        return

    with monkeypatch.context() as patch:
        patch.setattr(here.bus, "tell", lost)
        await writer.append("lost ")
        await eventually(lambda: writer.text.all_acknowledged)
    await writer.append("heard again")
    await eventually(lambda: str(reader.text) == "heard lost heard again")


async def test_both_fold_and_nothing_is_lost(hire: Hire, settings: Settings) -> None:
    workers = [await hire(), await hire()]
    id = await workers[0].make("|")
    seats = [await Seat().sit(worker.rooms, id) for worker in workers]
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


async def test_when_it_is_quiet_everything_is_in_one_snapshot(hire: Hire, settings: Settings) -> None:
    workers = [await hire(), await hire()]
    id = await workers[0].make("text ")
    seats = [await Seat().sit(worker.rooms, id) for worker in workers]
    for seat in seats:
        await seat.append("more ")
    await workers[0].notes.edit(id, [Append(op="append", text="rest")], None, None)
    async with AsyncMongoClient[dict[str, Any]](settings.mongo_url) as client:
        database = client[settings.database]

        async def folded() -> bool:
            note = await database.notes.find_one({"_id": id}) or {}
            return await database.updates.count_documents({}) == 0 and not note.get("edits") and "dirty" not in note

        await eventually(folded, within=12)
        text = await database.texts.find_one({"note": id}) or {}
        assert str(Document([text["state"]])) == str(seats[0].text)


async def test_a_room_nobody_is_in_is_unloaded_and_loaded_again(hire: Hire) -> None:
    worker = await hire(idle=0)
    id = await worker.make("text")
    for number in range(2):
        seat = await Seat().sit(worker.rooms, id)
        await seat.append(f" {number}")
        seat.leave()
        await eventually(lambda: not worker.rooms._rooms, within=10)
    assert await worker.content(id) == "text 0 1"


async def test_a_text_that_breaks_is_loaded_again_and_only_its_breaker_goes(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hire()
    id = await worker.make("text")
    bad, good = await Seat().sit(worker.rooms, id), await Seat().sit(worker.rooms, id)

    def breaks(*_: Any) -> None:
        raise DocumentBroken("boom")

    await good.append(" kept")
    with monkeypatch.context() as patch:
        patch.setattr(Document, "apply", breaks)
        with pytest.raises(MalformedUpdate, match="breaks"):
            await bad.say(protocol.update(Document(client=77).edit([(0, 0, "x")])))
    await good.append(" and more")
    await eventually(lambda: good.text.all_acknowledged)
    assert good.code is None
    assert str((await Seat().sit(worker.rooms, id)).text) == "text kept and more"
    await eventually(lambda: content_is(worker, id, "text kept and more"))


async def test_a_text_that_cannot_be_loaded_again_sends_everyone_away(
    hire: Hire, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await hire()
    id = await worker.make("text")
    bad, good = await Seat().sit(worker.rooms, id), await Seat().sit(worker.rooms, id)

    def breaks(*_: Any) -> None:
        raise DocumentBroken("boom")

    async def away(*_: Any, **__: Any) -> None:
        raise OutcomeUnknown

    with monkeypatch.context() as patch:
        patch.setattr(Document, "apply", breaks)
        patch.setattr(worker.store.texts, "read", away)
        with pytest.raises(MalformedUpdate):
            await bad.say(protocol.update(Document(client=77).edit([(0, 0, "x")])))
        await eventually(lambda: good.code is not None)
    assert good.code == CloseCode.RESUME
    good.leave()
    bad.leave()
    assert str((await Seat().sit(worker.rooms, id)).text) == "text"


async def test_a_worker_takes_up_what_another_left(
    hire: Hire, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "UNFINISHED_EVERY", 0.5)
    async with working(settings, "tend") as dying:
        await dying.store.prepare()
        id = await dying.make("text")
        seat = await Seat().sit(dying.rooms, id)
        await seat.append(" left behind")
        await eventually(lambda: seat.text.all_acknowledged)
    survivor = await hire()
    assert await survivor.content(id) == "text"
    await eventually(lambda: content_is(survivor, id, "text left behind"), within=20)


async def test_no_note_is_left_because_of_others_before_it(
    hire: Hire, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "UNFINISHED_EVERY", 0.2)
    monkeypatch.setattr(rooms, "UNFINISHED", 2)
    async with working(settings, "tend") as dying:
        await dying.store.prepare()
        made = [await dying.make("text") for _ in range(6)]
        for id in made:
            seat = await Seat().sit(dying.rooms, id)
            await seat.append(" left behind")
            await eventually(lambda seat=seat: seat.text.all_acknowledged)  # type: ignore[misc]
        for id in (made[0], made[1], made[3]):
            await dying.notes.delete(id, None, None)
    survivor = await hire()
    for id in (made[2], made[4], made[5]):
        await eventually(lambda id=id: content_is(survivor, id, "text left behind"), within=20)  # type: ignore[misc]


async def test_a_client_back_after_long_merges(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make("one two three")
    text = Text()
    seat = await Seat(text).sit(worker.rooms, id)
    seat.leave()
    text.edit("zero one two three")
    text.edit("zero one 2 three")
    await worker.notes.patch(id, NotePatch.model_validate({"content": "one two 3"}), None, None, None)
    other = await Seat().sit(worker.rooms, id)
    assert other.room is not None
    await other.room.compact()
    await Seat(text).sit(worker.rooms, id)
    await eventually(lambda: str(other.text) == str(text) == "zero one 2 3")


async def test_too_many_updates_at_once(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make()
    seat, neighbour = await Seat().sit(worker.rooms, id), await Seat().sit(worker.rooms, id)
    with pytest.raises(Refused) as refused:
        for _ in range(2 * BURST):
            await seat.append("x")
    assert refused.value.code == CloseCode.TOO_MANY
    await neighbour.append("y")
    await eventually(lambda: neighbour.text.all_acknowledged)


async def test_a_text_beyond_its_limit_is_refused(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make("x" * (MAX_CONTENT - 10))
    seat = await Seat().sit(worker.rooms, id)
    await seat.append("y" * 10)
    await eventually(lambda: seat.text.all_acknowledged)
    with pytest.raises(Refused) as refused:
        await seat.append("z")
    assert refused.value.code == CloseCode.TOO_BIG
    other = await Seat().sit(worker.rooms, id)
    await other.say(other.text.edit("short"))
    await eventually(lambda: content_is(worker, id, "short"))
    await other.append(" again")


async def test_what_is_deleted_again_and_again_has_room(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is left counts against the limit of the state."""
    monkeypatch.setattr(room, "MAX_STATE", 20_000)
    worker = await hire()
    id = await worker.make()
    seat = await Seat().sit(worker.rooms, id)
    for number in range(20):
        update = seat.text.document.edit([(0, len(str(seat.text)), chr(97 + number) * 2000)])
        await seat.say(protocol.update(update))
    await eventually(lambda: content_is(worker, id, "t" * 2000))
    with pytest.raises(Refused) as refused:
        await seat.append("x" * 30_000)
    assert refused.value.code == CloseCode.TOO_BIG


async def test_whoever_takes_nothing_is_too_slow_and_whoever_asks_a_lot_is_not(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make("x" * 900_000)
    slow, quick = await Seat().sit(worker.rooms, id), await Seat().sit(worker.rooms, id)
    slow.buffered = 1_800_000  # within what it asked for
    await quick.append("y")
    await eventually(lambda: quick.text.all_acknowledged)
    assert closed(slow) is None
    slow.buffered = 2_500_000
    await quick.append("y")
    await eventually(lambda: slow.code is not None)
    assert slow.code == CloseCode.TOO_SLOW
    assert quick.code is None


async def test_asking_on_and_on_without_reading_is_too_slow(hire: Hire) -> None:
    worker = await hire()
    id = await worker.make("x" * 900_000)
    greedy = Seat()
    send = greedy.send

    def takes_nothing(packet: Any) -> None:
        send(packet)
        greedy.buffered += len(packet.framed)

    greedy.send = takes_nothing  # type: ignore[method-assign]
    await greedy.sit(worker.rooms, id)
    for _ in range(20):
        await greedy.say(Text().hello())
    assert greedy.code == CloseCode.TOO_SLOW
    assert greedy.buffered < 5_000_000


async def test_who_is_there_is_told_and_leaves_with_its_connection(hire: Hire) -> None:
    here, there = await hire(), await hire()
    id = await here.make()
    seats = [await Seat().sit(worker.rooms, id) for worker in (here, here, there)]
    await seats[0].say(state_of(1, 0, '{"user":{"name":"Ada"}}'))
    await eventually(lambda: all(seat.text.here == {1} for seat in seats))
    late = await Seat().sit(there.rooms, id)
    assert late.text.here == {1}
    seats[0].leave()
    await eventually(lambda: all(seat.text.here == set() for seat in (*seats[1:], late)))
    # It comes back, and says what it said before; it learns that it was thought gone, and says so with a newer clock.
    back = await Seat().sit(here.rooms, id)
    await back.say(state_of(1, 0, '{"user":{"name":"Ada"}}'))
    assert back.text.states[1] == (0, "null")
    await back.say(state_of(1, 1, '{"user":{"name":"Ada"}}'))
    await eventually(lambda: all(seat.text.here == {1} for seat in (*seats[1:], late)))
    query = await Seat().sit(there.rooms, id)
    query.text.states.clear()
    await query.say(b"\3")
    assert query.text.here == {1}


async def test_the_history_names_who_typed(hire: Hire) -> None:
    here, there = await hire(), await hire()
    id = await here.make()
    for client, (worker, name) in enumerate([(here, "Ada"), (there, "Grace")], 1):
        seat = await Seat(Text(client)).sit(worker.rooms, id)
        await seat.say(state_of(client, 0, f'{{"user":{{"name":"{name}"}}}}'))
        await seat.append(f"{name} ")

    async def both() -> bool:
        return sorted((await here.content(id)).split()) == ["Ada", "Grace"]

    await eventually(both)
    revision = await here.store.history.page(id, 2**53, 10)
    assert revision
    names = {name for one in revision[0] if one.action == "type" for name in one.authors}
    assert names == {"Ada", "Grace"}


async def test_nonsense_of_clients_touches_nobody_else(hire: Hire) -> None:
    """Ten thousand frames, each of a client of its own."""
    worker = await hire()
    id = await worker.make("text ")
    neighbour = await Seat().sit(worker.rooms, id)
    choose = random.Random(11)
    good = [Document(client=choose.randrange(1, 2**32)).edit([(0, 0, "word")]) for _ in range(8)]
    frames = [protocol.update(one) for one in good] + [Text().hello(), state_of(5, 1, '{"a":1}'), b"\3"]
    refused = taken = 0
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
        hostile = Seat()
        hostile.member = worker.rooms.member(hostile, writes=number % 10 == 0)
        hostile.room = neighbour.room
        try:
            await hostile.say(bytes(frame))
            taken += 1
        except (MalformedUpdate, Refused):
            refused += 1
        if number % 500 == 0:
            await neighbour.append(f"n{number};")
    await eventually(lambda: neighbour.text.all_acknowledged)
    assert neighbour.code is None
    assert all(f"n{number};" in str(neighbour.text) for number in range(0, 10_000, 500))
    assert refused > 3000
    assert neighbour.room is not None
    await neighbour.room.compact()
    assert str((await Seat().sit(worker.rooms, id)).text) == str(neighbour.text)


def test_what_is_told_is_read_back() -> None:
    told = Told(relay.Kind.UPDATES, 7, "row", [b"a", crdt.EMPTY], ["Ada"], 3)
    sender, serial, found = relay._decoded(b"\1x\5" + told.encode() + told.encode())
    assert (sender, serial, list(found)) == ("x", 5, [told, told])
