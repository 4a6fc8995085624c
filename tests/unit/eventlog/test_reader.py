"""Reads of the event log: shared by clients with the same cursor, even if the first one disconnects."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from realtime.errors import BusUnavailable
from realtime.eventlog.cursor import Cursor
from realtime.eventlog.reader import MAX_CONCURRENT_READS, LogReader

SINCE = Cursor("e", 10)
Entries = list[tuple[int, bytes]] | None


def entry(offset: int) -> tuple[int, bytes]:
    return offset, f'{{"type":"note.deleted","cursor":"e:{offset}","id":1,"version":{offset}}}'.encode()


class Log:
    """A bus whose reads are answered by the test."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.answers: list[asyncio.Future[Entries]] = []

    async def read(self, since: Cursor, last: int, **_: Any) -> Entries:
        self.reads.append((since.offset, last))
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


@pytest.fixture
def log() -> Log:
    return Log()


async def start_reads(reads: LogReader, *lasts: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(reads.missed(SINCE, last)) for last in lasts]
    await asyncio.sleep(0)
    return tasks


async def offsets(task: asyncio.Task[Any]) -> list[int]:
    return [event.cursor.offset for event in await task]


async def test_clients_with_the_same_cursor_share_a_read(log: Log) -> None:
    reads = LogReader(cast(Any, log))
    tasks = await start_reads(reads, 12, 12, 13, 12)
    assert log.reads == [(10, 12), (10, 13)]
    log.answers[0].set_result([entry(11), entry(12)])
    log.answers[1].set_result([entry(13)])
    assert [await offsets(task) for task in tasks] == [[11, 12], [11, 12], [13], [11, 12]]
    (later,) = await start_reads(reads, 12)
    assert len(log.reads) == 3, "results are not cached"
    log.answers[2].set_result(None)
    assert await later is None


async def test_cancelled_read_does_not_affect_waiting_clients(log: Log) -> None:
    reads = LogReader(cast(Any, log))
    first, second, third = await start_reads(reads, 12, 12, 12)
    first.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert first.cancelled()
    assert log.reads == [(10, 12)] * 2, "another client repeats the read for both"
    third.cancel()
    log.answers[1].set_result([entry(11)])
    assert await offsets(second) == [11]


async def test_failed_read_raises_for_all_clients_and_is_not_cached(log: Log) -> None:
    reads = LogReader(cast(Any, log))
    tasks = await start_reads(reads, 12, 12)
    log.answers[0].set_exception(BusUnavailable("away"))
    for task in tasks:
        with pytest.raises(BusUnavailable, match="away"):
            await task
    (again,) = await start_reads(reads, 12)
    log.answers[1].set_result([])
    assert await offsets(again) == []


async def test_number_of_concurrent_reads_is_limited(log: Log) -> None:
    reads = LogReader(cast(Any, log))
    tasks = await start_reads(reads, *range(100, 100 + MAX_CONCURRENT_READS + 1))
    assert len(log.reads) == MAX_CONCURRENT_READS
    log.answers[0].set_result([])
    await tasks[0]
    await asyncio.sleep(0)
    assert len(log.reads) == MAX_CONCURRENT_READS + 1
    for answer in log.answers[1:]:
        answer.set_result([])
    assert [await offsets(task) for task in tasks] == [[]] * len(tasks)
