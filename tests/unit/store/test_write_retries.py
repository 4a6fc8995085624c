"""Updates of notes and the journal when connections break: each write is applied once, or fails in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from realtime.errors import OutcomeUnknown
from realtime.settings import Settings
from realtime.store.database import Store
from realtime.store.texts import new_row
from tests.faults.proxy import Proxy, Toxics
from tests.support.harness import Json, eventually, note_in

IDS = (1, 2, 3)
FIELDS = note_in(content="", tags=[])
LOST_WRITES = Toxics(reset=True, match=b"txnNumber")
"""Resets connections when they send a retryable write."""
LOST_REPLIES = Toxics(reset=True, match=b"\x10n\0")
"""Resets connections when they receive the reply to a write, which contains the number of documents."""
NO_REPLIES = Toxics(hole=True, match=b"\x10n\0")


async def update(store: Store) -> None:
    """Update one note."""
    assert await store.notes.update(1, {"title": "changed"}, None, None)


async def update_together(store: Store) -> None:
    """Update several notes, most of them in one command."""
    assert all(await asyncio.gather(*(store.notes.update(id, {"title": "changed"}, None, None) for id in IDS)))


async def journal(store: Store) -> None:
    """Store a journal row."""
    await store.texts.journal([new_row(1, [b"update"])])


Write = Callable[[Store], Coroutine[Any, Any, None]]
every_write = pytest.mark.parametrize("write", [update, update_together, journal])


@pytest.fixture
async def proxy(settings: Settings, store: Store) -> AsyncIterator[Proxy]:
    """Create notes, and return a proxy to MongoDB."""
    for _ in IDS:
        await store.notes.create(FIELDS, None)
    target = urlsplit(settings.mongo_url or "")
    assert target.hostname
    assert target.port
    async with Proxy(target.hostname, target.port) as proxy:
        yield proxy


@pytest.fixture
async def proxied(settings: Settings, proxy: Proxy) -> AsyncIterator[Store]:
    """Return a connected store that reaches MongoDB through the proxy."""
    proxied = Store(proxy.through(settings.mongo_url or ""), settings.database, write_timeout=20, read_timeout=20)
    await proxied.ping(20)
    yield proxied
    await proxied.aclose()


async def applied_counts(database: AsyncDatabase[Json], write: Write) -> list[int]:
    """Return how often a write was applied to each document."""
    if write is journal:
        return [await database.updates.count_documents({})]
    ids = [1] if write is update else [*IDS]
    return [note["version"] - 1 for note in await database.notes.find({"_id": {"$in": ids}}).to_list()]


@every_write
async def test_write_with_lost_replies_is_applied_once(
    proxied: Store, proxy: Proxy, async_database: AsyncDatabase[Json], write: Write
) -> None:
    proxy.down = LOST_REPLIES
    pending = asyncio.create_task(write(proxied))

    async def applied() -> bool:
        return all(await applied_counts(async_database, write))

    await eventually(applied)
    assert not pending.done()
    proxy.heal()
    await pending
    assert set(await applied_counts(async_database, write)) == {1}


@every_write
async def test_write_that_did_not_arrive_is_sent_again(
    proxied: Store, proxy: Proxy, async_database: AsyncDatabase[Json], write: Write
) -> None:
    proxy.up = LOST_WRITES
    asyncio.get_running_loop().call_later(0.2, proxy.heal)
    await write(proxied)
    assert set(await applied_counts(async_database, write)) == {1}


@every_write
async def test_write_after_a_step_down_is_applied_once(
    settings: Settings, store: Store, async_database: AsyncDatabase[Json], write: Write
) -> None:
    for _ in IDS:
        await store.notes.create(FIELDS, None)
    # With a direct connection, the driver does not wait for a new primary.
    url = (settings.mongo_url or "").replace("directConnection=true", "replicaSet=realtime")
    member = Store(url, settings.database, write_timeout=20, read_timeout=20)
    try:
        await journal(member)  # opens the connection that the next write uses
        await async_database.updates.delete_many({})
        await async_database.client.admin.command("replSetStepDown", 1, force=True)
        await write(member)
        assert set(await applied_counts(async_database, write)) == {1}
    finally:
        await member.aclose()


@every_write
async def test_write_without_a_reply_raises_outcome_unknown(settings: Settings, proxy: Proxy, write: Write) -> None:
    url = proxy.through(settings.mongo_url or "")
    impatient = Store(url, settings.database, write_timeout=0.5, read_timeout=20)

    async def succeeds() -> bool:
        try:
            await write(impatient)
        except OutcomeUnknown:
            return False
        return True

    try:
        assert await succeeds()
        proxy.down = NO_REPLIES
        assert not await succeeds()
        proxy.accepts = False
        proxy.cut()
        assert not await succeeds()
        proxy.heal()
        await eventually(succeeds)
    finally:
        await impatient.aclose()


async def test_cancellation_that_the_driver_loses_is_raised_after_the_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose_cancellation(*_: Any, **__: Any) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(AsyncCollection, "insert_many", lose_cancellation)
    pending = asyncio.create_task(journal(store))
    await asyncio.sleep(0)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
