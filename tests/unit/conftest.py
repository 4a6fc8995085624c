"""Fixtures: workers whose writes and archiver a test runs explicitly, and generated texts."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from realtime.auth.permissions import UNRESTRICTED
from realtime.core.fair_queue import FairPool
from realtime.eventlog.bus import Bus
from realtime.eventlog.outbox import Outbox
from realtime.failpoints import FailPoints
from realtime.metrics import Metrics
from realtime.notes.executor import WriteExecutor
from realtime.notes.models import NoteIn, NotePatch, StorageUsage
from realtime.notes.publisher import ChangePublisher
from realtime.notes.quotas import Quotas
from realtime.notes.service import NoteService
from realtime.notes.writes import WriteContext
from realtime.rooms.manager import RoomOptions, Rooms
from realtime.rooms.projector import Projector
from realtime.settings import Settings
from realtime.store.database import Store
from tests.support.harness import Json, note_in


@dataclass
class Part:
    """The writes and the archiver of one worker, without background tasks."""

    store: Store
    outbox: Outbox
    notes: NoteService

    async def patch(self, **fields: Any) -> None:
        """Change note 1."""
        await self.notes.patch(UNRESTRICTED, 1, NotePatch(**fields))

    async def versions(self, id: int = 1) -> list[int]:
        """Return all versions in the history."""
        found: list[int] = []
        before = 2**53
        while page := await self.store.history.page(id, before, 100):
            found += [revision.version for revision in page[0]]
            if not page[1]:
                break
            before = found[-1]
        return found

    async def read(self, version: int, id: int = 1) -> Json:
        """Return the fields of a version that a client can write."""
        revision = await self.store.history.read(id, version)
        assert revision is not None, version
        return revision.model_dump(include={"title", "description", "content", "tags"})


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[list[Part]]:
    """Start two workers on one database."""
    assert settings.mongo_url
    assert settings.redis_url
    made: list[Part] = []
    buses: list[Bus] = []
    pools: list[FairPool] = []
    for _ in range(2):
        store = Store(settings.mongo_url, settings.database, write_timeout=20, read_timeout=20)
        buses.append(Bus(settings.redis_url, settings.database, max_entries=1000))
        buses[-1].available = False
        outbox = Outbox(store, buses[-1], FailPoints(), Metrics(), publish_wait=0)
        pool, quotas = FairPool("merges"), Quotas(store, StorageUsage(0, 0))
        publisher = ChangePublisher(outbox, Metrics())
        rooms = Rooms(store, buses[-1], Projector(store, publisher), pool, Metrics(), RoomOptions(1, 1, 1))
        context = WriteContext(store, quotas, pool, rooms)
        notes = NoteService(context, WriteExecutor(context, publisher, FailPoints()), publisher)
        pools.append(pool)
        made.append(Part(store, outbox, notes))
    yield made
    for pool in pools:
        await pool.aclose()
    for bus in buses:
        await bus.aclose()
    for worker in made:
        await worker.outbox.aclose()
        await worker.store.aclose()


@pytest.fixture
def worker(workers: list[Part]) -> Part:
    return workers[0]


def some_text(pick: random.Random, length: int) -> str:
    """Return a random text."""
    return "".join(pick.choices("abcdefghij \né🦜", k=length))


def changed_text(pick: random.Random, content: str) -> str:
    """Return a content with a random change, usually a small one."""
    start = pick.randrange(len(content) + 1)
    match pick.randrange(12):
        case 0:
            return some_text(pick, pick.choice([0, 10, 511, 512, 513, 30_000]))
        case 1:
            return content + content[:1000]
        case 2:
            return content[: len(content) // 2]
        case _:
            return content[:start] + some_text(pick, pick.randrange(50)) + content[start + pick.randrange(50) :]


async def write(worker: Part, pick: random.Random, written: dict[int, Json]) -> None:
    """Write the next version of note 1, and add its fields to ``written``."""
    last = written[max(written)]
    changed: Json = {}
    if pick.random() < 0.8:
        changed["content"] = changed_text(pick, last["content"])
    if not changed or pick.random() < 0.1:
        changed |= {"title": some_text(pick, 20), "tags": [some_text(pick, 3) for _ in range(pick.randrange(3))]}
    written[max(written) + 1] = last | changed
    await worker.patch(**changed)


async def start(worker: Part, content: str = "") -> dict[int, Json]:
    """Create note 1, and return its fields by version."""
    note = note_in(content=content, tags=[])
    await worker.notes.create(UNRESTRICTED, NoteIn(**note))
    return {1: note}
