"""Group commit: concurrent rows are stored together, all rooms receive the outcome, and rooms are independent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from realtime.core.tasks import running
from realtime.errors import OutcomeUnknown
from realtime.rooms import journal
from realtime.rooms.journal import Journal
from realtime.settings import Settings
from realtime.store.database import Store
from realtime.store.texts import Row
from tests.support.harness import note_in


@dataclass(eq=False)
class Source:
    id: int


Commits = list[tuple[list[tuple[Source, Row]], bool]]


def is_overloaded(one: Journal[Source]) -> bool:
    """Return whether too many updates are queued."""
    return one.overloaded


@asynccontextmanager
async def open_journal(settings: Settings, busy: float = 0) -> AsyncIterator[tuple[Journal[Source], Store, Commits]]:
    """Run a journal whose handler takes ``busy`` seconds."""
    assert settings.mongo_url
    store = Store(settings.mongo_url, settings.database, write_timeout=5, read_timeout=5)
    commits: Commits = []

    def stored(rows: Sequence[tuple[Source, Row]], done: bool) -> None:
        commits.append((list(rows), done))
        time.sleep(busy)

    one = Journal[Source](store.texts, stored)
    try:
        yield one, store, commits
    finally:
        await store.aclose()


async def test_concurrent_writes_are_one_commit_with_one_row_per_source(settings: Settings) -> None:
    async with open_journal(settings) as (one, store, commits):
        await store.notes.create(note_in(content="", tags=[]), None)
        await store.texts.begin(1, 1, b"\0\0")
        a, b = Source(1), Source(1)
        waits = [one.write(a, b"one", "Ada"), one.write(b, b"two", None), one.write(a, b"three", "Ada")]
        assert len(set(waits)) == 1
        async with running({"journal": one.run}):
            assert await waits[0] is True
        [(rows, stored)] = commits
        assert stored
        committed = [(source, row.updates, row.authors) for source, row in rows]
        assert committed == [(a, [b"one", b"three"], ["Ada"]), (b, [b"two"], [])]
        found = await store.texts.read(1)
        assert found
        assert sorted(list(row.updates) for row in found.rows) == [[b"one", b"three"], [b"two"]]


async def test_writes_soon_after_a_slow_handler_share_one_commit(settings: Settings) -> None:
    async with open_journal(settings, busy=0.01) as (one, _, commits), running({"journal": one.run}):
        assert await one.write(Source(1), b"first", None)
        source = Source(2)
        for update in (b"one", b"two", b"three"):
            last = one.write(source, update, None)
            await asyncio.sleep(0)
        assert await last
        assert [[row.updates for _, row in rows] for rows, _ in commits] == [[[b"first"]], [[b"one", b"two", b"three"]]]


async def test_writes_during_a_commit_are_stored_by_the_next_commit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_journal(settings) as (one, store, commits):
        started, proceed = asyncio.Event(), asyncio.Event()
        commit = store.texts.journal

        async def slow(rows: Sequence[Row]) -> None:
            started.set()
            await proceed.wait()
            await commit(rows)

        monkeypatch.setattr(store.texts, "journal", slow)
        async with running({"journal": one.run}), asyncio.timeout(20):
            first = one.write(Source(1), b"one", None)
            await started.wait()
            source = Source(1)
            later = [one.write(source, b"two", None), one.write(source, b"three", None)]
            proceed.set()
            assert await first
            assert all(await asyncio.gather(*later))
        assert [[row.updates for _, row in rows] for rows, _ in commits] == [[[b"one"]], [[b"two", b"three"]]]


async def test_journal_beyond_its_limits_is_overloaded_and_splits_rows(settings: Settings) -> None:
    async with open_journal(settings) as (one, _, commits):
        async with running({"journal": one.run}), asyncio.timeout(20):
            large = [one.write(Source(1), b"y" * 3_000_000, None) for _ in range(7)]
            assert is_overloaded(one)
            assert await large[-1]
        assert not is_overloaded(one)
        sizes = [[len(b"".join(row.updates)) for _, row in rows] for rows, _ in commits]
        assert max(max(row_sizes) for row_sizes in sizes) <= journal.MAX_ROW_BYTES
        assert sum(map(sum, sizes)) == 7 * 3_000_000


async def test_failed_commit_is_reported_and_the_next_one_succeeds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_journal(settings) as (one, store, commits):

        async def fails(_: Any) -> None:
            raise OutcomeUnknown

        async with running({"journal": one.run}):
            with monkeypatch.context() as patch:
                patch.setattr(store.texts, "journal", fails)
                assert await one.write(Source(1), b"lost", None) is False
            assert await one.write(Source(1), b"kept", None) is True
        assert [stored for _, stored in commits] == [False, True]
