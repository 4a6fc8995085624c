"""The connections to MongoDB: commands arrive, and no response is used for a different command after an error."""

from __future__ import annotations

import asyncio
import gc
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import bson
import pymongo
import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout, OperationFailure

from realtime.errors import RealtimeError
from realtime.settings import Settings
from realtime.store.connection import MAJORITY_WRITE_CONCERN
from realtime.store.raw_connection import Command, MongoClientHolder, RawConnection, RawConnections
from tests.support.harness import Json, eventually


def test_unsupported_driver_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(AsyncMongoClient, "_conn_for_writes")
    with pytest.raises(RealtimeError, match=f"PyMongo {pymongo.version} is not supported: it has no _conn_for_writes"):
        MongoClientHolder("mongodb://127.0.0.1/")


class Proxy:
    """A proxy between the connection and MongoDB that can stop forwarding and change replies.

    Attributes:
        replacement: Sent instead of the next reply to a command, if it is set.
        without_sessions: Whether the server seems to support no sessions, and so no retries.
        command_connections: The numbers of the connections that replies to commands were sent over.
    """

    def __init__(self) -> None:
        self.replacement: Json | None = None
        self.without_sessions = False
        self.command_connections: set[int] = set()
        self.forwarding = asyncio.Event()
        self.forwarding.set()
        self.replying = asyncio.Event()
        self.replying.set()
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Abort all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def reply(self, data: bytes, number: int) -> bytes:
        """Return the bytes to send for a reply of the server over a connection."""
        if b"maxWireVersion" in data:  # the reply to a handshake
            name = b"logicalSessionTimeoutMinutes"
            return data.replace(name, name.upper()) if self.without_sessions else data
        self.command_connections.add(number)
        if self.replacement is None:
            return data
        sections = bytes(5) + bson.encode(self.replacement)
        self.replacement = None
        return struct.pack("<i", 16 + len(sections)) + data[4:16] + sections

    async def pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *gates: asyncio.Event,
        change: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self._writers.append(writer)
        try:
            while data := await reader.read(65536):
                for gate in gates:
                    await gate.wait()
                writer.write(change(data))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxied(mongo_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Start a proxy to MongoDB, and yield it and its URL."""
    target, proxy = urlsplit(mongo_url), Proxy()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.connections += 1
        change = partial(proxy.reply, number=proxy.connections)
        there_reader, there = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(
            proxy.pump(reader, there, proxy.forwarding),
            proxy.pump(there_reader, writer, proxy.forwarding, proxy.replying, change=change),
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield proxy, mongo_url.replace(f":{target.port}/", f":{port}/")
    finally:
        proxy.forwarding.set()
        proxy.cut()
        server.close()


@asynccontextmanager
async def connect_raw(
    settings: Settings, url: str | None = None
) -> AsyncIterator[tuple[RawConnection, AsyncCollection[Json]]]:
    """Yield a raw connection, and a collection of the driver."""
    assert settings.mongo_url
    driver = MongoClientHolder(url or settings.mongo_url)
    connection = RawConnection(driver, settings.database, MAJORITY_WRITE_CONCERN)
    try:
        async with AsyncMongoClient[Json](settings.mongo_url) as client:
            yield connection, client[settings.database]["things"]
    finally:
        await connection.aclose()
        await driver.aclose()


async def _ids(things: AsyncCollection[Json]) -> list[int]:
    return [thing["_id"] async for thing in things.find().sort("_id")]


async def test_insert_of_any_size_stores_all_documents(settings: Settings) -> None:
    async with connect_raw(settings) as (connection, things):
        await connection.insert("things", [{"_id": 1, "data": b"one"}], 5)
        await connection.insert("things", [{"_id": number, "data": b"x" * 4_000_000} for number in range(2, 8)], 20)
        assert await _ids(things) == [1, 2, 3, 4, 5, 6, 7]
        found = await things.find_one({"_id": 1})
        assert found == {"_id": 1, "data": b"one"}


async def test_concurrent_inserts_are_all_stored(settings: Settings) -> None:
    async with connect_raw(settings) as (connection, things):
        await asyncio.gather(*(connection.insert("things", [{"_id": number}], 5) for number in range(50)))
        assert await _ids(things) == list(range(50))


async def test_insert_after_a_rejected_insert_succeeds(settings: Settings) -> None:
    async with connect_raw(settings) as (connection, things):
        await connection.insert("things", [{"_id": 1}], 5)
        with pytest.raises(BulkWriteError):
            await connection.insert("things", [{"_id": 1}, {"_id": 2}], 5)
        await connection.insert("things", [{"_id": 3}], 5)
        assert await _ids(things) == [1, 2, 3]


async def test_lost_connection_raises_auto_reconnect_and_is_reopened(settings: Settings) -> None:
    assert settings.mongo_url
    async with proxied(settings.mongo_url) as (proxy, url), connect_raw(settings, url) as (connection, things):
        await connection.insert("things", [{"_id": 1}], 5)
        proxy.forwarding.clear()
        pending = asyncio.ensure_future(connection.insert("things", [{"_id": 2}], 5))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises(AutoReconnect):
            await pending
        proxy.forwarding.set()
        await connection.insert("things", [{"_id": 3}], 5)
        proxy.cut()  # while no command is pending

        async def inserted() -> bool:
            try:
                await connection.insert("things", [{"_id": 4}], 5)
            except AutoReconnect:  # the connection may not have noticed yet
                return False
            return True

        await eventually(inserted)
        assert {1, 3, 4} <= set(await _ids(things))


async def test_late_reply_is_not_used_for_the_next_insert(settings: Settings) -> None:
    assert settings.mongo_url
    async with proxied(settings.mongo_url) as (proxy, url), connect_raw(settings, url) as (connection, things):
        await connection.insert("things", [{"_id": 1}], 5)
        proxy.forwarding.clear()
        started = time.monotonic()
        with pytest.raises(NetworkTimeout):
            await connection.insert("things", [{"_id": 2}], 0.2)
        assert time.monotonic() - started < 4
        proxy.forwarding.set()
        with pytest.raises(BulkWriteError):
            await connection.insert("things", [{"_id": 1}], 5)
        await connection.insert("things", [{"_id": 3}], 5)
        assert {1, 3} <= set(await _ids(things))


async def test_connection_after_a_cancelled_insert_is_usable(settings: Settings) -> None:
    async with connect_raw(settings) as (connection, things):
        await connection.insert("things", [{"_id": 1}], 5)
        cancelled = asyncio.ensure_future(connection.insert("things", [{"_id": 2}], 5))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await connection.insert("things", [{"_id": 3}], 5)
        assert {1, 3} <= set(await _ids(things))


async def test_insert_to_an_unreachable_server_times_out(settings: Settings) -> None:
    async with connect_raw(settings, "mongodb://127.0.0.1:1/?directConnection=true") as (connection, _):
        with pytest.raises(NetworkTimeout):
            await connection.insert("things", [{"_id": 1}], 0.3)


# Writes


def increment(id: int, by: int = 1) -> Command:
    update = bson.encode({"q": {"_id": id}, "u": {"$inc": {"count": by}}, "upsert": True})
    return Command({"update": "things"}, [update], "updates")


NOT_PRIMARY: Json = {"ok": 0, "code": 10107, "errmsg": "not primary"}
FIND = Command({"find": "things", "filter": {}})


async def test_write_returns_the_reply_of_the_pipelined_command(settings: Settings) -> None:
    async with connect_raw(settings) as (connection, things):
        for count in range(1, 4):
            done, found = await connection.write(increment(1), FIND)
            assert done["n"] == 1
            assert found["cursor"]["firstBatch"] == [{"_id": 1, "count": count}]
        assert await things.count_documents({}) == 1


async def test_write_with_a_lost_reply_is_applied_once(settings: Settings) -> None:
    assert settings.mongo_url
    async with proxied(settings.mongo_url) as (proxy, url), connect_raw(settings, url) as (connection, things):
        await connection.write(increment(1))
        for number, command in enumerate((increment(1), MODIFY), 2):
            proxy.replying.clear()
            pending = asyncio.ensure_future(connection.write(command, FIND))
            await eventually(partial(_has_count, things, number))
            proxy.cut()
            proxy.replying.set()
            done, found = await pending
            assert done["ok"] == 1
            assert found["cursor"]["firstBatch"] == [{"_id": 1, "count": number}]
        assert done["value"] == {"_id": 1, "count": 3}


MODIFY = Command({"findAndModify": "things", "query": {"_id": 1}, "update": {"$inc": {"count": 1}}, "new": True})


async def _has_count(things: AsyncCollection[Json], count: int) -> bool:
    found = await things.find_one({"_id": 1})
    return found is not None and found["count"] == count


async def test_write_that_did_not_arrive_is_sent_again(settings: Settings) -> None:
    assert settings.mongo_url
    async with proxied(settings.mongo_url) as (proxy, url), connect_raw(settings, url) as (connection, things):
        await connection.write(increment(1))
        proxy.forwarding.clear()
        pending = asyncio.ensure_future(connection.write(increment(1)))
        await asyncio.sleep(0)
        proxy.cut()
        proxy.forwarding.set()
        await pending
        assert await _has_count(things, 2)


async def test_connection_after_a_cancelled_write_is_usable(settings: Settings) -> None:
    assert settings.mongo_url
    async with proxied(settings.mongo_url) as (proxy, url), connect_raw(settings, url) as (connection, things):
        await connection.write(increment(1))
        proxy.replying.clear()
        cancelled = asyncio.ensure_future(connection.write(increment(1)))
        await eventually(partial(_has_count, things, 2))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        proxy.replying.set()
        done, found = await connection.write(increment(2), FIND)
        assert done["n"] == 1
        assert found["cursor"]["firstBatch"] == [{"_id": 1, "count": 2}, {"_id": 2, "count": 1}]


async def test_write_after_a_step_down_uses_a_new_connection(settings: Settings) -> None:
    assert settings.mongo_url
    async with proxied(settings.mongo_url) as (proxy, url), connect_raw(settings, url) as (connection, things):
        await connection.write(increment(1))
        assert len(proxy.command_connections) == 1
        proxy.replacement = NOT_PRIMARY
        await connection.write(increment(1))
        assert await _has_count(things, 2)
        assert len(proxy.command_connections) == 2, "the retry is sent over another connection"
        proxy.replacement = NOT_PRIMARY
        with pytest.raises(AutoReconnect):
            await connection.insert("things", [{"_id": 2}], 5)
        await connection.insert("things", [{"_id": 3}], 5)
        assert len(proxy.command_connections) == 3


@pytest.mark.parametrize("supported_before", [False, True])
async def test_write_without_retry_support_is_not_sent_twice(settings: Settings, supported_before: bool) -> None:
    """The server supports no retries, or no longer when the write has to be sent again."""
    assert settings.mongo_url
    async with proxied(settings.mongo_url) as (proxy, url), connect_raw(settings, url) as (connection, things):
        proxy.without_sessions = not supported_before
        await connection.write(increment(1))
        proxy.without_sessions = True
        proxy.replying.clear()
        pending = asyncio.ensure_future(connection.write(increment(1)))
        await eventually(partial(_has_count, things, 2))
        proxy.cut()
        proxy.replying.set()
        with pytest.raises(AutoReconnect, match="lost"):
            await pending
        assert await _has_count(things, 2)


async def test_write_to_an_unreachable_server_waits_until_the_timeout(settings: Settings) -> None:
    driver = MongoClientHolder("mongodb://127.0.0.1:1/?directConnection=true&serverSelectionTimeoutMS=50")
    connections = RawConnections(driver, settings.database, MAJORITY_WRITE_CONCERN)
    started = time.monotonic()
    with pytest.raises(NetworkTimeout):
        await connections.write(increment(1), 0.5)
    assert time.monotonic() - started > 0.4, "it does not fail at once"
    await connections.aclose()
    await driver.aclose()


async def test_replies_are_not_kept_after_a_write(settings: Settings) -> None:
    async with connect_raw(settings) as (connection, _):
        replies = await connection.write(increment(1), FIND)
        await asyncio.sleep(0)  # until then, the event loop holds the future of the replies
        holders = [
            holder for holder in gc.get_referrers(replies) if isinstance(holder, (RawConnection, asyncio.Future, dict))
        ]
        assert holders == []


async def test_rejected_write_is_not_sent_again(settings: Settings) -> None:
    async with connect_raw(settings) as (connection, things):
        with pytest.raises(OperationFailure, match="no such command"):
            await connection.write(Command({"nonsense": "things"}))
        done, _ = await connection.write(increment(1), Command({"nonsense": "things"}))
        assert done["n"] == 1
        assert await _has_count(things, 1)


async def test_concurrent_writes_receive_their_own_replies(settings: Settings) -> None:
    assert settings.mongo_url
    driver = MongoClientHolder(settings.mongo_url)
    connections = RawConnections(driver, settings.database, MAJORITY_WRITE_CONCERN)
    try:
        answers = await asyncio.gather(
            *(
                connections.write(increment(id, id), 10, Command({"find": "things", "filter": {"_id": id}}))
                for id in range(50)
            )
        )
        assert [found["cursor"]["firstBatch"] for _, found in answers] == [
            [{"_id": id, "count": id}] for id in range(50)
        ]
        with pytest.raises(NetworkTimeout):
            await connections.write(increment(1), 0)
    finally:
        await connections.aclose()
        await driver.aclose()
