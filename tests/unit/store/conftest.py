"""Fixtures: a store, and direct access to its database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from realtime.settings import Settings
from realtime.store.database import Store
from tests.support.harness import Json


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    assert settings.mongo_url
    store = Store(settings.mongo_url, settings.database, write_timeout=20, read_timeout=20)
    yield store
    await store.aclose()


@pytest.fixture
async def async_database(settings: Settings) -> AsyncIterator[AsyncDatabase[Json]]:
    """Return the database of the store, for direct access."""
    async with AsyncMongoClient[Json](settings.mongo_url) as client:
        yield client[settings.database]
