"""Fixtures: workers in this process with separate rooms and connections, on one MongoDB and one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from realtime.auth.permissions import UNRESTRICTED
from realtime.core.fair_queue import FairPool
from realtime.core.tasks import running
from realtime.eventlog.bus import Bus
from realtime.eventlog.outbox import Outbox
from realtime.failpoints import FailPoints
from realtime.metrics import Metrics
from realtime.notes.executor import WriteExecutor
from realtime.notes.models import NoteIn, StorageUsage
from realtime.notes.publisher import ChangePublisher
from realtime.notes.quotas import Quotas
from realtime.notes.service import NoteService
from realtime.notes.writes import WriteContext
from realtime.rooms.manager import RoomOptions, Rooms
from realtime.rooms.projector import Projector
from realtime.settings import Settings
from realtime.store.database import Store
from tests.support.harness import note_in
from tests.support.room_client import RoomClient


class Worker:
    """The parts of a worker process that shared texts need."""

    def __init__(self, settings: Settings, idle: float = 30.0) -> None:
        assert settings.mongo_url
        assert settings.redis_url
        self.store = Store(settings.mongo_url, settings.database, write_timeout=5, read_timeout=5)
        self.bus = Bus(settings.redis_url, settings.database, max_entries=1000)
        metrics, pool = Metrics(), FairPool("merges")
        self.pool = pool
        self.outbox = Outbox(self.store, self.bus, FailPoints(), metrics, publish_wait=0.25)
        publisher = ChangePublisher(self.outbox, metrics)
        self.projector = Projector(self.store, publisher)
        self.rooms = Rooms(self.store, self.bus, self.projector, pool, metrics, RoomOptions(1024 * 1024, 10, idle))
        context = WriteContext(self.store, Quotas(self.store, StorageUsage(0, 0)), pool, self.rooms)
        self.notes = NoteService(context, WriteExecutor(context, publisher, FailPoints()), publisher)
        self.tasks = {
            "log": self.bus.run,
            "outbox": self.outbox.run_archive,
            "sweep": self.outbox.run_sweep,
            "tend": self.rooms.run,
            **self.rooms.tasks,
        }

    async def create_note(self, content: str = "") -> int:
        """Create a note."""
        return (await self.notes.create(UNRESTRICTED, NoteIn(**note_in(content=content)))).id

    async def content(self, id: int) -> str:
        """Return the stored content of a note."""
        record = await self.store.notes.find(id)
        assert record
        return record.note.content


StartWorker = Callable[..., Awaitable[Worker]]


@asynccontextmanager
async def working(settings: Settings, *without: str, idle: float = 30.0) -> AsyncIterator[Worker]:
    """Run a worker without some of its tasks while the block runs. It ends as if killed."""
    worker = Worker(settings, idle)
    try:
        async with running({name: run for name, run in worker.tasks.items() if name not in without}):
            yield worker
    finally:
        leftover = worker.rooms.background_tasks
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)
        await worker.pool.aclose()
        await worker.bus.aclose()
        await worker.store.aclose()


@pytest.fixture
async def start_worker(settings: Settings) -> AsyncIterator[StartWorker]:
    """Return a function that starts workers, which end with the test."""
    async with AsyncExitStack() as stack:

        async def start(*without: str, idle: float = 30.0) -> Worker:
            worker = await stack.enter_async_context(working(settings, *without, idle=idle))
            await worker.store.prepare()
            return worker

        yield start


async def loaded(settings: Settings, id: int) -> str:
    """Return the text as a new worker would load it."""
    async with working(settings, "tend", "recover texts") as fresh:
        seat = await RoomClient().sit(fresh.rooms, id)
        return str(seat.text)


async def content_is(worker: Worker, id: int, text: str) -> bool:
    return await worker.content(id) == text


async def loaded_text_is(settings: Settings, id: int, text: str) -> bool:
    return await loaded(settings, id) == text
