"""The connections to MongoDB: commands arrive, and no response is used for a different command after an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import bson
import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout, OperationFailure

from realtime.settings import Settings
from realtime.store.connection import MAJORITY_WRITE_CONCERN
from realtime.store.raw_connection import Command, MongoClientHolder, RawConnection, RawConnections
from tests.support.harness import Json, eventually


class Between:
    """A proxy between the connection and MongoDB that can stop forwarding."""

    def __init__(self) -> None:
        self.passing = asyncio.Event()
        self.passing.set()
        self.answering = asyncio.Event()
        self.answering.set()
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Ends all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *gates: asyncio.Event) -> None:
        self._writers.append(writer)
        try:
            while data := await reader.read(65536):
                for gate in gates:
                    await gate.wait()
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
        await asyncio.gather(
            relay.pump(reader, there, relay.passing), relay.pump(there_reader, writer, relay.passing, relay.answering)
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield relay, mongo_url.replace(f":{target.port}/", f":{port}/")
    finally:
        relay.passing.set()
        relay.cut()
        server.close()


@asynccontextmanager
async def lined(
    settings: Settings, url: str | None = None
) -> AsyncIterator[tuple[RawConnection, AsyncCollection[Json]]]:
    """A line, and a collection as the driver sees it."""
    assert settings.mongo_url
    driver = MongoClientHolder(url or settings.mongo_url)
    line = RawConnection(driver, settings.database, MAJORITY_WRITE_CONCERN)
    try:
        async with AsyncMongoClient[Json](settings.mongo_url) as client:
            yield line, client[settings.database]["things"]
    finally:
        await line.aclose()
        await driver.aclose()


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


# Writes


def increment(id: int, by: int = 1) -> Command:
    update = bson.encode({"q": {"_id": id}, "u": {"$inc": {"count": by}}, "upsert": True})
    return Command({"update": "things"}, [update], "updates")


FIND = Command({"find": "things", "filter": {}})


async def test_a_write_is_answered_with_what_was_asked_after_it(settings: Settings) -> None:
    async with lined(settings) as (line, things):
        for count in range(1, 4):
            done, found = await line.write(increment(1), FIND)
            assert done["n"] == 1
            assert found["cursor"]["firstBatch"] == [{"_id": 1, "count": count}]
        assert await things.count_documents({}) == 1


async def test_a_write_whose_answer_was_lost_is_not_done_again(settings: Settings) -> None:
    assert settings.mongo_url
    async with between(settings.mongo_url) as (relay, url), lined(settings, url) as (line, things):
        await line.write(increment(1))
        for number, command in enumerate((increment(1), MODIFY), 2):
            relay.answering.clear()
            on_its_way = asyncio.ensure_future(line.write(command, FIND))
            await eventually(partial(_is_at, things, number))
            relay.cut()
            relay.answering.set()
            done, found = await on_its_way
            assert done["ok"] == 1
            assert found["cursor"]["firstBatch"] == [{"_id": 1, "count": number}]
        assert done["value"] == {"_id": 1, "count": 3}


MODIFY = Command({"findAndModify": "things", "query": {"_id": 1}, "update": {"$inc": {"count": 1}}, "new": True})


async def _is_at(things: AsyncCollection[Json], count: int) -> bool:
    found = await things.find_one({"_id": 1})
    return found is not None and found["count"] == count


async def test_a_write_that_did_not_get_there_is_sent_again(settings: Settings) -> None:
    assert settings.mongo_url
    async with between(settings.mongo_url) as (relay, url), lined(settings, url) as (line, things):
        await line.write(increment(1))
        relay.passing.clear()
        on_its_way = asyncio.ensure_future(line.write(increment(1)))
        await asyncio.sleep(0)
        relay.cut()
        relay.passing.set()
        await on_its_way
        assert await _is_at(things, 2)


async def test_a_write_that_was_given_up_leaves_the_line_usable(settings: Settings) -> None:
    assert settings.mongo_url
    async with between(settings.mongo_url) as (relay, url), lined(settings, url) as (line, things):
        await line.write(increment(1))
        relay.answering.clear()
        given_up = asyncio.ensure_future(line.write(increment(1)))
        await eventually(partial(_is_at, things, 2))
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        relay.answering.set()
        done, found = await line.write(increment(2), FIND)
        assert done["n"] == 1
        assert found["cursor"]["firstBatch"] == [{"_id": 1, "count": 2}, {"_id": 2, "count": 1}]


async def test_who_is_not_the_primary_any_more_is_not_asked_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lined(settings) as (line, things):
        await line.write(increment(1))
        ask, answers = line._send, [{"ok": 0, "code": 10107, "errmsg": "not primary"}]
        asked = []

        async def stepped_down(*commands: Any) -> list[Json]:
            asked.append(line._transport)
            return [answers.pop()] if answers else await ask(*commands)

        monkeypatch.setattr(line, "_send", stepped_down)
        await line.write(increment(1))
        assert await _is_at(things, 2)
        assert len(set(asked)) == 2, "the second time over another connection"
        answers.append({"ok": 0, "code": 10107, "errmsg": "not primary"})
        with pytest.raises(AutoReconnect):
            await line.insert("things", [{"_id": 2}], 5)
        assert line._transport is None
        await line.insert("things", [{"_id": 3}], 5)


@pytest.mark.parametrize("known", [False, True])
async def test_what_the_server_would_not_tell_apart_is_not_sent_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """It keeps no numbers, or does no more when the write is to be sent again."""
    async with lined(settings) as (line, _):
        connected, asked = line._connect, 0

        async def alone() -> Any:
            transport = await connected()
            line._supports_retries = known and asked == 0
            return transport

        async def lost(*commands: Any) -> list[Json]:
            nonlocal asked
            asked += 1
            raise AutoReconnect("lost")

        monkeypatch.setattr(line, "_connect", alone)
        monkeypatch.setattr(line, "_send", lost)
        with pytest.raises(AutoReconnect, match="lost"):
            await line.write(increment(1))
        assert asked == 1


async def test_a_write_waits_for_a_server_that_is_away(settings: Settings) -> None:
    driver = MongoClientHolder("mongodb://127.0.0.1:1/?directConnection=true&serverSelectionTimeoutMS=50")
    lines = RawConnections(driver, settings.database, MAJORITY_WRITE_CONCERN)
    started = time.monotonic()
    with pytest.raises(NetworkTimeout):
        await lines.write(increment(1), 0.5)
    assert time.monotonic() - started > 0.4, "and does not fail at once"
    await lines.aclose()
    await driver.aclose()


async def test_nothing_is_kept_of_answers(settings: Settings) -> None:
    async with lined(settings) as (line, _):
        await line.write(increment(1), FIND)
        assert (line._replies, line._completed) == ([], None)


async def test_a_write_that_mongodb_refuses_is_not_sent_again(settings: Settings) -> None:
    async with lined(settings) as (line, things):
        with pytest.raises(OperationFailure, match="no such command"):
            await line.write(Command({"nonsense": "things"}))
        done, _ = await line.write(increment(1), Command({"nonsense": "things"}))
        assert done["n"] == 1
        assert await _is_at(things, 1)


async def test_many_writes_at_once_have_their_own_answers(settings: Settings) -> None:
    assert settings.mongo_url
    driver = MongoClientHolder(settings.mongo_url)
    lines = RawConnections(driver, settings.database, MAJORITY_WRITE_CONCERN)
    try:
        answers = await asyncio.gather(
            *(
                lines.write(increment(id, id), 10, Command({"find": "things", "filter": {"_id": id}}))
                for id in range(50)
            )
        )
        assert [found["cursor"]["firstBatch"] for _, found in answers] == [
            [{"_id": id, "count": id}] for id in range(50)
        ]
        with pytest.raises(NetworkTimeout):
            await lines.write(increment(1), 0)
    finally:
        await lines.aclose()
        await driver.aclose()
