"""The line to MongoDB: what it says arrives, and whatever happens to it, no answer is taken for another one's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout

from realtime.settings import Settings
from realtime.store.connection import DURABLE
from realtime.store.line import Line
from tests.harness import Json, eventually


class Between:
    """Passes bytes on between the line and MongoDB, unless it is told not to."""

    def __init__(self) -> None:
        self.passing = asyncio.Event()
        self.passing.set()
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Ends all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while data := await reader.read(65536):
                await self.passing.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def between(mongo_url: str) -> AsyncIterator[tuple[Between, str]]:
    """A way to MongoDB that can be cut, and its URL."""
    target, relay = urlsplit(mongo_url), Between()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay.connections += 1
        there_reader, there = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(relay.pump(reader, there), relay.pump(there_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield relay, mongo_url.replace(f":{target.port}/", f":{port}/")
    finally:
        relay.passing.set()
        relay.cut()
        server.close()


@asynccontextmanager
async def lined(settings: Settings, url: str | None = None) -> AsyncIterator[tuple[Line, AsyncCollection[Json]]]:
    """A line, and a collection as the driver sees it."""
    assert settings.mongo_url
    line = Line(url or settings.mongo_url, settings.database, DURABLE)
    try:
        async with AsyncMongoClient[Json](settings.mongo_url) as client:
            yield line, client[settings.database]["things"]
    finally:
        await line.aclose()


async def _names(things: AsyncCollection[Json]) -> list[int]:
    return [thing["_id"] async for thing in things.find().sort("_id")]


async def test_documents_are_there_however_large_the_command(settings: Settings) -> None:
    async with lined(settings) as (line, things):
        await line.insert("things", [{"_id": 1, "data": b"one"}], 5)
        await line.insert("things", [{"_id": number, "data": b"x" * 4_000_000} for number in range(2, 8)], 20)
        assert await _names(things) == [1, 2, 3, 4, 5, 6, 7]
        found = await things.find_one({"_id": 1})
        assert found == {"_id": 1, "data": b"one"}


async def test_inserts_at_once_go_one_after_the_other(settings: Settings) -> None:
    async with lined(settings) as (line, things):
        await asyncio.gather(*(line.insert("things", [{"_id": number}], 5) for number in range(50)))
        assert await _names(things) == list(range(50))


async def test_what_mongodb_refuses_is_an_error_and_the_next_insert_is_fine(settings: Settings) -> None:
    async with lined(settings) as (line, things):
        await line.insert("things", [{"_id": 1}], 5)
        with pytest.raises(BulkWriteError):
            await line.insert("things", [{"_id": 1}, {"_id": 2}], 5)
        await line.insert("things", [{"_id": 3}], 5)
        assert await _names(things) == [1, 2, 3]


async def test_a_lost_connection_is_an_error_and_made_anew(settings: Settings) -> None:
    assert settings.mongo_url
    async with between(settings.mongo_url) as (relay, url), lined(settings, url) as (line, things):
        await line.insert("things", [{"_id": 1}], 5)
        relay.passing.clear()
        on_its_way = asyncio.ensure_future(line.insert("things", [{"_id": 2}], 5))
        await asyncio.sleep(0)
        relay.cut()
        with pytest.raises(AutoReconnect):
            await on_its_way
        relay.passing.set()
        await line.insert("things", [{"_id": 3}], 5)
        relay.cut()  # while nothing is on its way

        async def inserted() -> bool:
            try:
                await line.insert("things", [{"_id": 4}], 5)
            except AutoReconnect:  # the line may not have heard of it yet
                return False
            return True

        await eventually(inserted)
        assert {1, 3, 4} <= set(await _names(things))


async def test_a_late_answer_is_not_that_to_the_next_insert(settings: Settings) -> None:
    assert settings.mongo_url
    async with between(settings.mongo_url) as (relay, url), lined(settings, url) as (line, things):
        await line.insert("things", [{"_id": 1}], 5)
        relay.passing.clear()
        started = time.monotonic()
        with pytest.raises(NetworkTimeout):
            await line.insert("things", [{"_id": 2}], 0.2)
        assert time.monotonic() - started < 4
        relay.passing.set()
        with pytest.raises(BulkWriteError):
            await line.insert("things", [{"_id": 1}], 5)
        await line.insert("things", [{"_id": 3}], 5)
        assert {1, 3} <= set(await _names(things))


async def test_a_cancelled_insert_leaves_the_line_usable(settings: Settings) -> None:
    async with lined(settings) as (line, things):
        await line.insert("things", [{"_id": 1}], 5)
        given_up = asyncio.ensure_future(line.insert("things", [{"_id": 2}], 5))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await line.insert("things", [{"_id": 3}], 5)
        assert {1, 3} <= set(await _names(things))


async def test_a_server_that_is_away_costs_the_time_given(settings: Settings) -> None:
    async with lined(settings, "mongodb://127.0.0.1:1/?directConnection=true") as (line, _):
        with pytest.raises(NetworkTimeout):
            await line.insert("things", [{"_id": 1}], 0.3)
