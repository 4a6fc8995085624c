"""The parts of workers that access a database: stores in MongoDB, and event logs in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from realtime.core.tasks import running
from realtime.eventlog.bus import Bus
from realtime.settings import Settings
from realtime.store.database import Store

NO_REDIS = "redis://127.0.0.1:1/0"
"""A URL that no server listens on."""


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment variables of a server on the database of a test."""
    assert settings.mongo_url
    assert settings.redis_url
    return {
        "REALTIME_MONGO_URL": settings.mongo_url,
        "REALTIME_REDIS_URL": settings.redis_url,
        "REALTIME_DATABASE": settings.database,
        "REALTIME_PORT": "0",
    }


@asynccontextmanager
async def open_bus(settings: Settings, max_entries: int = 100, **options: Any) -> AsyncIterator[Bus]:
    """Open the event log of a database. It appends no events."""
    assert settings.redis_url
    bus = Bus(settings.redis_url, settings.database, max_entries=max_entries, **options)
    try:
        yield bus
    finally:
        await bus.aclose()


@asynccontextmanager
async def running_bus(settings: Settings, **options: Any) -> AsyncIterator[Bus]:
    """Open the event log of a database, and append events while the block runs."""
    async with open_bus(settings, 1000, **options) as bus, running({"append": bus.run}):
        yield bus


@asynccontextmanager
async def open_stores(settings: Settings, count: int = 2) -> AsyncIterator[list[Store]]:
    """Open the stores of several workers on one database with accounts."""
    assert settings.mongo_url
    stores = [Store(settings.mongo_url, settings.database, write_timeout=20, read_timeout=5) for _ in range(count)]
    await asyncio.gather(*(store.prepare(accounts=True) for store in stores))
    yield stores
    for store in stores:
        await store.aclose()
