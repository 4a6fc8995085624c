"""Two workers that write, compact, lose messages, fail and die at random: each word is stored exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest

from realtime.auth.permissions import UNRESTRICTED
from realtime.errors import OutcomeUnknown, Unavailable
from realtime.eventlog.bus import Bus
from realtime.notes.text_operations import Append
from realtime.settings import Settings
from realtime.store.database import Store
from tests.support.harness import eventually
from tests.support.room_client import RoomClient, Text
from tests.unit.rooms.conftest import Worker, working


class Cluster:
    """Two workers with two clients each, on one note."""

    def __init__(self, settings: Settings, choose: random.Random) -> None:
        self._settings = settings
        self._choose = choose
        self._stacks = [AsyncExitStack(), AsyncExitStack()]
        self.workers: list[Worker] = []
        self.texts = [Text() for _ in range(4)]
        self.seats: list[RoomClient | None] = [None] * 4
        self.words: list[str] = []
        self.uncertain: set[str] = set()
        self.note = 0

    async def open(self, place: int) -> None:
        """Start a worker in place of an earlier one, which ends at once."""
        await self._stacks[place].aclose()
        worker = await self._stacks[place].enter_async_context(working(self._settings))
        self.workers[place : place + 1] = [worker]
        for number in (place, place + 2):
            self.seats[number] = None

    async def close(self) -> None:
        """Stop both workers."""
        for stack in self._stacks:
            await stack.aclose()

    async def seat(self, number: int) -> RoomClient:
        """Return a client, and create it again if it was closed."""
        seat = self.seats[number]
        if seat is None or seat.code is not None:
            if seat is not None:
                seat.leave()
            seat = self.seats[number] = await RoomClient(self.texts[number]).sit(
                self.workers[number % 2].rooms, self.note
            )
        return seat

    async def step(self, word: str) -> None:
        """Do a random step."""
        number = self._choose.randrange(4)
        worker = self.workers[number % 2]
        match self._choose.choice("tttttttrrffledk"):
            case "t":
                seat = await self.seat(number)
                self.words.append(word)
                await seat.append(f"{word};")
            case "r":
                try:
                    await worker.notes.edit(UNRESTRICTED, self.note, [Append(op="append", text=f"{word};")])
                    self.words.append(word)
                except Unavailable:
                    self.uncertain.add(word)
            case "f":
                room = (await self.seat(number)).room
                assert room is not None
                with contextlib.suppress(Unavailable):  # a commit has just failed
                    await room.compact()
            case "l":
                (await self.seat(number)).leave()
                self.seats[number] = None
            case "e":
                fail_next_commit(worker.store, done=self._choose.random() < 0.5)
            case "d":
                lose_next_message(worker.bus)
            case _:
                await self.open(number % 2)


def fail_next_commit(store: Store, *, done: bool) -> None:
    """Let the next commit of typed text fail, or only seem to fail if it is ``done``."""
    journal = store.texts.journal

    async def fails(rows: Any) -> None:
        store.texts.journal = journal  # type: ignore[method-assign]  # a fault
        if done:
            await journal(rows)
        raise OutcomeUnknown

    store.texts.journal = fails  # type: ignore[method-assign]  # a fault


def lose_next_message(bus: Bus) -> None:
    """Lose the next message to the other workers."""
    publish = bus.publish

    async def lost(channel: str, data: bytes) -> None:
        bus.publish = publish  # type: ignore[method-assign]  # a fault

    bus.publish = lost  # type: ignore[method-assign]  # a fault


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_each_word_is_stored_exactly_once(settings: Settings, seed: int) -> None:
    choose = random.Random(seed)
    cluster = Cluster(settings, choose)
    try:
        await cluster.open(0)
        await cluster.open(1)
        await cluster.workers[0].store.prepare()
        cluster.note = await cluster.workers[0].create_note("start;")
        for number in range(60):
            await cluster.step(f"🦜{number}")
            if choose.random() < 0.5:
                await asyncio.sleep(choose.random() * 0.02)  # some steps overlap, others do not

        async def converged() -> None:
            texts = {str((await cluster.seat(number)).text) for number in range(4)}
            content = await cluster.workers[0].content(cluster.note)
            assert texts == {content}
            found = Counter(content.split(";")[:-1])
            for word in cluster.uncertain:
                assert found.pop(word, 1) == 1
            assert found == Counter(["start", *cluster.words])

        await eventually(converged, within=15)
    finally:
        await cluster.close()
