"""Connections to MongoDB's primary for small, frequent writes.

The driver takes half a millisecond of CPU time for each command, and Motor adds a switch to a thread and back. To keep
that out of the latency of an edit, the driver only finds the primary, connects and authenticates. Commands are then
sent directly over that connection, as ``OP_MSG`` of MongoDB's wire protocol.
"""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import bson
from bson.binary import UUID_SUBTYPE, Binary
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from pymongo import AsyncMongoClient
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConnectionFailure,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)
from pymongo.write_concern import WriteConcern

from realtime.store import _pymongo
from realtime.store.bson_mapping import BsonDocument

_MESSAGE_HEAD = struct.Struct("<iiiiIB")
"""The message length, request id, id of the request replied to, opcode and flags; and the kind of the first section."""
_SEQUENCE_HEAD = struct.Struct("<Bi")
"""The head of a document sequence: its kind, and its length in bytes without the kind."""
_OP_MSG = 2013
_OPTIONS: CodecOptions[BsonDocument] = CodecOptions(tz_aware=True, tzinfo=UTC)
NOT_PRIMARY_CODES = {91, 189, 10107, 11600, 11602, 13435, 13436}
"""Error codes of a server that is no longer the primary or is shutting down (server discovery specification)."""
MAX_CONNECTIONS = 4
"""Maximum number of concurrent writes in one pool; further writes wait for a free connection."""
MIN_RETRY_DELAY_SECONDS = 0.02
MAX_RETRY_DELAY_SECONDS = 0.5
"""The delay doubles with each attempt up to this limit: the election of a new primary takes seconds."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and optionally the encoded documents of its field ``name``, sent as a document sequence."""

    body: Mapping[str, Any]
    documents: Sequence[bytes] = ()
    name: str = ""

    def encoded(self, more: Mapping[str, Any]) -> bytes:
        """Return the encoded sections, without the kind of the first, with the fields of ``more`` added to the body."""
        body = bson.encode({**self.body, **more})
        if not self.documents:
            return body
        name, documents = self.name.encode() + b"\0", b"".join(self.documents)
        return body + _SEQUENCE_HEAD.pack(1, _SEQUENCE_HEAD.size - 1 + len(name) + len(documents)) + name + documents


class MongoClientHolder:
    """Creates the driver's client, shared by all raw connections, on first use."""

    def __init__(self, url: str) -> None:
        _pymongo.check_version()
        self._url = url
        self._client: AsyncMongoClient[BsonDocument] | None = None

    @property
    def client(self) -> AsyncMongoClient[BsonDocument]:
        """The driver's client."""
        if self._client is None:
            # These options override the URL: each raw connection holds a pooled one, and retries need sessions.
            self._client = AsyncMongoClient(
                self._url, appname="realtime", maxPoolSize=MAX_CONNECTIONS + 1, retryWrites=True
            )
        return self._client

    async def aclose(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()


class RawConnection(asyncio.Protocol):
    """A connection to the primary that is opened on first use, and again after each failure."""

    def __init__(self, driver: MongoClientHolder, database: str, write_concern: WriteConcern) -> None:
        self._driver = driver
        self._database = {"$db": database}
        self._write_concern = {"writeConcern": write_concern.document}
        self._session = {"id": Binary(uuid.uuid4().bytes, UUID_SUBTYPE)}
        self._writes = 0
        self._supports_retries = False
        self._lock = asyncio.Lock()
        self._checkout = AsyncExitStack()
        self._driver_protocol: asyncio.BaseProtocol | None = None
        self._transport: asyncio.Transport | None = None
        self._is_stale: Callable[[], bool] = lambda: False
        self._last_request = 0
        self._expected_replies = 0
        self._replies: list[BsonDocument] = []
        self._completed: asyncio.Future[list[BsonDocument]] | None = None
        self._buffer = bytearray()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._disconnect()

    async def insert(self, collection: str, documents: Sequence[Mapping[str, Any]], timeout: float) -> None:
        """Insert documents.

        Args:
            collection: The name of the collection.
            documents: The documents, with their ids.
            timeout: The time limit in seconds.

        Raises:
            PyMongoError: The insert failed; some of the documents may be stored.
        """
        encoded = [bson.encode(document) for document in documents]
        command = Command({"insert": collection, "ordered": False}, encoded, "documents")
        async with self._lock:
            try:
                async with asyncio.timeout(timeout):
                    (reply,) = await self._send((command, self._write_concern))
                    _check(reply)
            except TimeoutError:
                raise NetworkTimeout("MongoDB did not reply in time") from None
            except PyMongoError:
                await self._disconnect()  # the next insert may have to go to another server
                raise
        if reply.get("writeErrors"):
            raise BulkWriteError(reply)

    async def write(self, command: Command, then: Command | None = None) -> list[BsonDocument]:
        """Send a write and return its reply, and the reply to a command pipelined after it, which may be an error.

        The write is retried until it succeeds or the caller cancels it. The transaction number lets the server
        recognize a retry (MongoDB's specification of retryable writes).

        Args:
            command: The write.
            then: A command to send right after it, for example a ``find``.

        Raises:
            PyMongoError: The write failed and cannot be retried.
        """
        self._writes += 1
        transaction = {"lsid": self._session, "txnNumber": Int64(self._writes)}
        delay = MIN_RETRY_DELAY_SECONDS
        failure: PyMongoError | None = None
        while True:
            try:
                await self._connect()
            except ConnectionFailure:
                pass  # nothing was sent
            else:
                if failure is not None and not self._supports_retries:  # the server would apply the write twice
                    raise failure
                fields = {**self._write_concern, **(transaction if self._supports_retries else {})}
                try:
                    replies = await self._send((command, fields), *([] if then is None else [(then, {})]))
                    _check(replies[0])
                    return replies
                except PyMongoError as error:
                    if not isinstance(error, ConnectionFailure) and not error.has_error_label("RetryableWriteError"):
                        raise
                    await self._disconnect()  # the next attempt may have to go to another server
                    if not self._supports_retries:
                        raise
                    failure = error
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_RETRY_DELAY_SECONDS)

    async def _send(self, *commands: tuple[Command, Mapping[str, Any]]) -> list[BsonDocument]:
        """Send commands together, each with additional fields, and return the replies in their order."""
        try:
            transport = await self._connect()
            messages = []
            for request, (command, more) in enumerate(commands, self._last_request + 1):
                sections = command.encoded({**self._database, **more})
                messages += [
                    _MESSAGE_HEAD.pack(_MESSAGE_HEAD.size + len(sections), request % 2**31, 0, _OP_MSG, 0, 0),
                    sections,
                ]
            self._expected_replies, self._replies = len(commands), []
            self._completed = asyncio.get_running_loop().create_future()
            transport.write(b"".join(messages))
            return await self._completed
        except BaseException:  # a late reply must not be taken for a reply to the next command
            await self._disconnect()
            raise
        finally:
            self._last_request = (self._last_request + len(commands)) % 2**31
            self._replies, self._completed = [], None

    async def _connect(self) -> asyncio.Transport:
        """Return the transport to the primary, and check a connection out of the driver's pool if there is none."""
        if self._transport is not None and not self._is_stale():
            return self._transport
        await self._disconnect()
        connection = await _pymongo.check_out(self._driver.client, self._checkout)
        self._is_stale, self._supports_retries = connection.is_stale, connection.supports_retries
        self._driver_protocol, self._transport = connection.protocol, connection.transport
        connection.transport.set_protocol(self)
        connection.transport.resume_reading()
        return connection.transport

    async def _disconnect(self) -> None:
        self._transport = None
        checkout, self._checkout = self._checkout, AsyncExitStack()
        await checkout.aclose()
        self._buffer.clear()

    def data_received(self, data: bytes) -> None:
        """Collect received bytes, and complete the pending call once all its replies have arrived."""
        self._buffer += data
        while len(self._buffer) >= _MESSAGE_HEAD.size:
            length, _, request, *_ = _MESSAGE_HEAD.unpack_from(self._buffer)
            if len(self._buffer) < length:
                return
            reply = bson.decode(self._buffer[_MESSAGE_HEAD.size : length], _OPTIONS)
            del self._buffer[:length]
            if (
                self._completed is None
                or self._completed.done()
                or request != (self._last_request + len(self._replies) + 1) % 2**31
            ):
                continue
            self._replies.append(reply)
            if len(self._replies) == self._expected_replies:
                self._completed.set_result(self._replies)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the pending call with ``AutoReconnect``, and pass the event on to the driver's protocol."""
        self._transport = None
        if self._driver_protocol is not None:
            self._driver_protocol.connection_lost(error)
        if self._completed is not None and not self._completed.done():
            self._completed.set_exception(AutoReconnect(f"the connection to MongoDB was lost: {error}"))


class RawConnections:
    """A pool of raw connections; each write uses one exclusively until it is complete."""

    def __init__(self, driver: MongoClientHolder, database: str, write_concern: WriteConcern) -> None:
        self._connections = [RawConnection(driver, database, write_concern) for _ in range(MAX_CONNECTIONS)]
        self._idle: asyncio.LifoQueue[RawConnection] = asyncio.LifoQueue()
        for connection in self._connections:
            self._idle.put_nowait(connection)

    async def aclose(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            await connection.aclose()

    async def write(self, command: Command, timeout: float, then: Command | None = None) -> list[BsonDocument]:
        """Send a write over a free connection, as :meth:`RawConnection.write` does.

        Raises ``NetworkTimeout`` if it takes longer than ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                connection = await self._idle.get()
                try:
                    return await connection.write(command, then)
                finally:
                    self._idle.put_nowait(connection)
        except TimeoutError:
            raise NetworkTimeout("MongoDB did not reply in time") from None


def _check(reply: BsonDocument) -> None:
    """Raise ``PyMongoError`` for a command that failed, or for a write that a majority did not confirm."""
    failure = reply.get("writeConcernError", {})
    if reply.get("code") in NOT_PRIMARY_CODES or failure.get("code") in NOT_PRIMARY_CODES:
        raise NotPrimaryError(reply.get("errmsg") or failure.get("errmsg", ""), reply)
    if reply["ok"] != 1:
        raise OperationFailure(reply.get("errmsg", ""), reply.get("code"), reply)
    if failure:
        labels = {"errorLabels": reply.get("errorLabels", [])}
        raise WriteConcernError(failure.get("errmsg", ""), failure.get("code"), {**failure, **labels})
