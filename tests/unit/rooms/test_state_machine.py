"""Clients, two workers and the journal, driven by Hypothesis: each acknowledged edit is stored exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

import pycrdt
import pytest
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from realtime.auth.permissions import UNRESTRICTED
from realtime.core.close_codes import CloseCode
from realtime.errors import EditRefused, OutcomeUnknown, Unavailable, VersionMismatch
from realtime.eventlog.bus import Bus
from realtime.notes.models import Note, NotePatch
from realtime.notes.preconditions import Conditions
from realtime.notes.text_operations import Append
from realtime.rooms import manager, projector, protocol, room
from realtime.settings import Settings
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, Text
from tests.unit.rooms.conftest import Worker, working

CLIENT_COUNT = 3
# Drawn values do not depend on the messages that arrived before, so that the steps can be repeated.
CLIENTS = st.integers(0, CLIENT_COUNT - 1)
WORKERS = st.integers(0, 1)
ANY = st.integers(0, 2**16)


class Client(Text):
    """A client that tracks which of its changes are on the server."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[set[str], set[str]]] = []
        """The characters that each update added, and those that it removed."""
        self.seen: set[str] = set()
        self._sent: dict[bytes, set[int]] = {}

    def change(self, start: int, length: int, new: str) -> None:
        """Replace characters."""
        words = str(self)
        start %= len(words) + 1
        old = words[start : start + length]
        if old or new:
            self.edit(words[:start] + new + words[start + len(old) :])
            self.changes.append((set(new), set(old)))

    def message(self, numbers: set[int]) -> bytes:
        """Return several local changes as one update."""
        updates = [self.written[number] for number in sorted(numbers)]
        payload = updates[0] if len(updates) == 1 else pycrdt.merge_updates(*updates)
        self._sent.setdefault(payload, set()).update(numbers)
        return protocol.update(payload)

    def take(self, message: bytes) -> bytes | None:
        """Send everything that the server lacks when it requests it."""
        answer = super().take(message)
        if answer is not None:
            _, payload = protocol.decode(answer)
            self._sent.setdefault(payload, set()).update(range(len(self.written)))
        return answer

    @property
    def stored(self) -> list[tuple[set[str], set[str]]]:
        """Return the changes that are acknowledged with all of their dependencies."""
        known: set[int] = set().union(*(of for payload, of in self._sent.items() if payload in self.acknowledged))
        first = next(number for number in range(len(self.changes) + 1) if number not in known)
        return self.changes[:first]

    @property
    def own(self) -> tuple[set[str], set[str]]:
        """Return all characters that were inserted and removed here."""
        inserted, deleted = zip(*self.changes, strict=True) if self.changes else ((), ())
        return set().union(*inserted), set().union(*deleted)


class Cluster:
    """Two workers, a note, clients, and the expected state of every character. Each is written at most once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stacks = [AsyncExitStack(), AsyncExitStack(), AsyncExitStack()]
        self.workers: list[Worker] = []
        self.clients = [Client() for _ in range(CLIENT_COUNT)]
        self.seats: list[RoomClient | None] = [None] * CLIENT_COUNT
        self._made = 0
        self.kept: set[str] = set()
        self.gone: set[str] = set()
        self.uncertain: set[str] = set()

    async def open(self) -> None:
        """Start the workers, and create the note."""
        for place in range(2):
            await self.start_worker(place)
        # Without tasks, it has only stored data.
        self._new = await self._stacks[2].enter_async_context(working(self._settings, *self.workers[0].tasks))
        start = self.fresh(3)
        self.kept |= set(start)
        self.note = await self._new.create_note(start)

    async def close(self) -> None:
        """Stop everything."""
        for stack in self._stacks:
            await stack.aclose()

    async def start_worker(self, place: int) -> None:
        """Start a worker. The earlier one ends at once and loses everything that it did not store."""
        await self._stacks[place].aclose()
        self.seats = [seat if index % 2 != place else None for index, seat in enumerate(self.seats)]
        worker = working(self._settings, "tend", "recover texts", "outbox", "sweep", idle=0)
        self.workers[place : place + 1] = [await self._stacks[place].enter_async_context(worker)]

    def fresh(self, count: int) -> str:
        """Return characters of one or two UTF-16 code units that were not used before."""
        first, self._made = self._made, self._made + count
        return "".join(chr((0x4E00, 0x1F300)[number % 2] + number) for number in range(first, self._made))

    def seat(self, index: int) -> RoomClient | None:
        """Return the seat of a client, if it is connected."""
        seat = self.seats[index]
        if seat is not None and seat.code is not None:
            self.leave(index)
        return self.seats[index]

    def leave(self, index: int) -> None:
        """Disconnect a client."""
        seat, self.seats[index] = self.seats[index], None
        if seat is not None:
            seat.leave()

    async def connect(self, index: int) -> None:
        """Connect a client if it is disconnected."""
        if self.seat(index) is None:
            self.seats[index] = await RoomClient(self.clients[index]).sit(self.workers[index % 2].rooms, self.note)

    async def write(self, write: Coroutine[Any, Any, Note], inserted: str, deleted: str) -> None:
        """Write over REST."""
        try:
            await write
        except Unavailable:
            self.uncertain |= {*inserted, *deleted}
        except (VersionMismatch, EditRefused):
            pass
        else:
            self.kept |= set(inserted)
            self.gone |= set(deleted)

    async def pass_time(self, place: int) -> None:
        """Run the periodic tasks of a worker."""
        worker = self.workers[place]
        for _ in range(2):  # the first tasks may delay further ones
            tending = asyncio.create_task(worker.rooms.run())
            for _ in range(2 * manager.TICKS_PER_SECOND):
                await asyncio.sleep(0)
            tending.cancel()
            await asyncio.wait([tending, *worker.rooms.background_tasks])

    def mute(self, place: int, mute: bool) -> None:
        """Set whether messages from a worker to the other are lost."""

        async def lost(channel: str, data: bytes) -> None:
            pass

        bus = self.workers[place].bus
        bus.publish = lost if mute else partial(Bus.publish, bus)  # type: ignore[method-assign]  # a fault

    async def stored(self) -> str:
        """Return the text as a new room would load it."""
        seat = await RoomClient().sit(self._new.rooms, self.note)
        assert seat.room is not None
        seat.room.close(CloseCode.RESUME)
        return str(seat.text)

    async def converge(self) -> None:
        """Reconnect all clients, and wait until all have the same text."""
        for index in range(CLIENT_COUNT):
            self.leave(index)
        for place in range(2):
            self.mute(place, False)

        async def same() -> None:
            for index in range(CLIENT_COUNT):
                await self.connect(index)
            for place in range(2):
                await self.pass_time(place)
            text = await self.stored()
            assert {text} == {*map(str, self.clients), await self._new.content(self.note)}
            assert len(text) == len(set(text))
            assert set(text) - self.uncertain == self.kept - self.gone - self.uncertain

        await eventually(same, within=10)


@contextmanager
def failing(owner: Any, name: str, done: bool | None) -> Iterator[None]:
    """Make the next call fail, before it had any effect or (``done``) after all effects. ``None``: do not fail."""
    real = getattr(owner, name)

    async def fails(*arguments: Any, **more: Any) -> Any:
        setattr(owner, name, real)
        if done:
            await real(*arguments, **more)
        raise OutcomeUnknown

    if done is not None:
        setattr(owner, name, fails)
    yield
    setattr(owner, name, real)


class Machine(RuleBasedStateMachine):
    """Random events of clients and workers in any order."""

    def __init__(self, settings: Settings, runner: asyncio.Runner) -> None:
        super().__init__()
        self.run = runner.run
        self.cluster = Cluster(settings)

    @initialize()
    def open(self) -> None:
        self.run(self.cluster.open())
        for index in range(CLIENT_COUNT):
            self.run(self.cluster.connect(index))

    @rule(index=CLIENTS, start=ANY, length=st.integers(0, 2), count=st.integers(0, 3))
    def type(self, index: int, start: int, length: int, count: int) -> None:
        """Type without sending."""
        client = self.cluster.clients[index]
        client.change(start, length, self.cluster.fresh(count))
        inserted, deleted = client.own
        self.cluster.kept |= inserted
        self.cluster.gone |= deleted

    @rule(index=CLIENTS, start=ANY, lost=st.booleans())
    def type_and_send(self, index: int, start: int, lost: bool) -> None:
        """Type one character, which is stored. The other worker may miss it and the following ones."""
        self.type(index, start, 0, 1)
        self.cluster.mute(index % 2, lost)
        self.send(index, [{0}], wait=True)

    @rule(
        index=CLIENTS, pieces=st.lists(st.sets(ANY, min_size=1, max_size=3), min_size=1, max_size=4), wait=st.booleans()
    )
    def send(self, index: int, pieces: list[set[int]], wait: bool) -> None:
        """Send several changes in any order, possibly repeated and with gaps."""

        async def send() -> None:
            client = self.cluster.clients[index]
            for piece in pieces:
                if (seat := self.cluster.seat(index)) and (count := len(client.written)):
                    await seat.say(client.message({count - 1 - number % count for number in piece}))
            if wait and (seat := self.cluster.seat(index)) and seat.room:
                await seat.room.wait_until_durable()

        self.run(send())

    @rule(index=CLIENTS)
    def lose_connection(self, index: int) -> None:
        self.cluster.leave(index)

    @rule(index=CLIENTS)
    def connect(self, index: int) -> None:
        self.run(self.cluster.connect(index))

    @rule(place=WORKERS, done=st.booleans())
    def fail_commit(self, place: int, done: bool) -> None:
        """Make the next commit of the journal fail, and type something for it."""

        async def fail() -> None:
            with failing(self.cluster.workers[place].store.texts, "journal", done):
                for index in range(place, CLIENT_COUNT, 2):
                    client, seat = self.cluster.clients[index], self.cluster.seat(index)
                    if seat and client.written:
                        await seat.say(client.message({len(client.written) - 1}))
                        assert seat.room
                        await seat.room.wait_until_durable()

        self.run(fail())

    @rule(place=WORKERS)
    def kill_worker(self, place: int) -> None:
        self.run(self.cluster.start_worker(place))

    @rule(place=WORKERS, done=st.none() | st.booleans())
    def append(self, place: int, done: bool | None) -> None:
        new, worker = self.cluster.fresh(1), self.cluster.workers[place]
        with failing(worker.store.notes, "update", done):
            write = worker.notes.edit(UNRESTRICTED, self.cluster.note, [Append(op="append", text=new)])
            self.run(self.cluster.write(write, new, ""))

    @rule(place=WORKERS, at=ANY, done=st.none() | st.booleans())
    def replace(self, place: int, at: int, done: bool | None) -> None:
        """Replace a character at exactly the current version."""
        new, worker = self.cluster.fresh(1), self.cluster.workers[place]
        record = self.run(worker.store.notes.find(self.cluster.note))
        assert record
        content = record.note.content
        old = content[at % len(content)] if content else ""
        patch = NotePatch.model_validate({"content": content.replace(old, new) if old else new})
        with failing(worker.store.notes, "update", done):
            write = worker.notes.patch(UNRESTRICTED, self.cluster.note, patch, Conditions({record.note.version}))
            self.run(self.cluster.write(write, new, old))

    @rule(place=WORKERS)
    def archive(self, place: int) -> None:
        """Move edits over REST from the note to the journal."""
        self.run(self.cluster.workers[place].store.archiver.archive([self.cluster.note]))

    @rule(index=CLIENTS)
    def compact(self, index: int) -> None:
        if (seat := self.cluster.seat(index)) and seat.room:
            self.run(seat.room.compact())

    @rule(place=WORKERS)
    def tend(self, place: int) -> None:
        """Project, compact and unload texts, and detect lost messages."""
        self.run(self.cluster.pass_time(place))

    @invariant()
    def acknowledged_changes_are_stored_and_no_others_are_visible(self) -> None:
        cluster = self.cluster
        # Read the state of the clients first: they may receive more while the text is read.
        known = [(client, client.stored, *client.own, set(str(client))) for client in cluster.clients]
        text = self.run(cluster.stored())
        there = set(text)
        assert len(text) == len(there)
        doubtful = cluster.gone | cluster.uncertain
        for client, stored, inserted, deleted, here in known:
            for added, removed in stored:
                assert added - doubtful <= there
                assert not removed & there
            assert here - inserted - doubtful <= there
            assert not (client.seen - here - deleted) & there
            client.seen |= here

    def teardown(self) -> None:
        try:
            self.run(self.cluster.converge())
        finally:
            self.run(self.cluster.close())


@pytest.mark.slow
def test_random_operations_neither_lose_nor_duplicate_text(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "TICK_SECONDS", 0)
    monkeypatch.setattr(projector, "DELAY_SECONDS", (0, 0))
    monkeypatch.setattr(projector, "REMOTE_DELAY_SECONDS", (0, 0))
    monkeypatch.setattr(room, "COMPACT_IDLE_SECONDS", 0)
    monkeypatch.setattr(room, "AWARENESS_TIMEOUT_SECONDS", 0)  # many workers are killed, and cannot answer
    bounded = hypothesis(max_examples=20, stateful_step_count=30, deadline=None, derandomize=True)
    with asyncio.Runner() as runner:
        make: Any = partial(Machine, settings, runner)
        run_state_machine_as_test(make, settings=bounded)
