"""Lines to MongoDB's primary, for writes that are small and come often.

The driver's own way through a command takes half a millisecond of CPU time, and Motor's a hop into a thread and back;
whoever types or writes waits for it. So the driver finds the primary, makes the connection, and signs in; what is said
over it then is said here: ``OP_MSG`` of MongoDB's wire protocol.
"""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC
from functools import partial
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

from realtime.store.bson_mapping import BsonDocument

_HEAD = struct.Struct("<iiiiIB")
"""Length, request, response to, opcode, flags; the kind of the first section, a document."""
_DOCUMENTS = struct.Struct("<Bi")
"""The head of a section of many documents: its kind, and its length without that."""
_OP_MSG = 2013
_OPTIONS: CodecOptions[BsonDocument] = CodecOptions(tz_aware=True, tzinfo=UTC)
GAVE_WAY = {91, 189, 10107, 11600, 11602, 13435, 13436}
"""Codes of a server that is not the primary any more, or stops (the specification of server discovery)."""
AT_ONCE = 4
"""Writes; more wait for their turn."""
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
"""Seconds between two attempts: a new primary takes its time to be found."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, with the encoded documents of one of its lists, if it has one."""

    body: Mapping[str, Any]
    documents: Sequence[bytes] = ()
    name: str = ""

    def encoded(self, more: Mapping[str, Any]) -> bytes:
        """Its sections, the kind of the first left out."""
        body = bson.encode({**self.body, **more})
        if not self.documents:
            return body
        name, documents = self.name.encode() + b"\0", b"".join(self.documents)
        return body + _DOCUMENTS.pack(1, _DOCUMENTS.size - 1 + len(name) + len(documents)) + name + documents


class MongoClientHolder:
    """The driver that makes the connections of all lines, once one is needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: AsyncMongoClient[BsonDocument] | None = None

    @property
    def client(self) -> AsyncMongoClient[BsonDocument]:
        """The driver's client."""
        if self._client is None:
            # The URL may say otherwise, for all else: each line keeps a connection, and repeats what was cut off.
            self._client = AsyncMongoClient(self._url, appname="realtime", maxPoolSize=AT_ONCE + 1, retryWrites=True)
        return self._client

    async def aclose(self) -> None:
        """Closes it."""
        if self._client is not None:
            await self._client.close()


class RawConnection(asyncio.Protocol):
    """One connection, made when it is needed, and anew after every failure."""

    def __init__(self, driver: MongoClientHolder, database: str, write_concern: WriteConcern) -> None:
        self._driver = driver
        self._database = {"$db": database}
        self._durable = {"writeConcern": write_concern.document}
        self._session = {"id": Binary(uuid.uuid4().bytes, UUID_SUBTYPE)}
        self._writes = 0
        self._retries = False
        self._turn = asyncio.Lock()
        self._held = AsyncExitStack()
        self._former: asyncio.BaseProtocol | None = None
        self._transport: asyncio.Transport | None = None
        self._is_stale: Callable[[], bool] = lambda: False
        self._asked = 0
        self._wanted = 0
        self._answers: list[BsonDocument] = []
        self._done: asyncio.Future[list[BsonDocument]] | None = None
        self._read = bytearray()

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._hang_up()

    async def insert(self, collection: str, documents: Sequence[Mapping[str, Any]], timeout: float) -> None:
        """Inserts documents, within so many seconds. Raises ``PyMongoError``: some may be there, then."""
        encoded = [bson.encode(document) for document in documents]
        command = Command({"insert": collection, "ordered": False}, encoded, "documents")
        async with self._turn:
            try:
                async with asyncio.timeout(timeout):
                    (answer,) = await self._ask((command, self._durable))
                    _check(answer)
            except TimeoutError:
                raise NetworkTimeout("MongoDB did not answer in time") from None
            except PyMongoError:
                await self._hang_up()  # the next insert may have to go to another server
                raise
        if answer.get("writeErrors"):
            raise BulkWriteError(answer)

    async def write(self, command: Command, then: Command | None = None) -> list[BsonDocument]:
        """The answer to a write, and to a command that follows it right away, if there is one, failed or not.

        Attempts that fail are followed by others, until this is cancelled; the server tells them apart from new writes
        (MongoDB's specification of retryable writes). Raises ``PyMongoError`` for what another attempt cannot mend.
        """
        self._writes += 1
        number = {"lsid": self._session, "txnNumber": Int64(self._writes)}
        pause = FIRST_PAUSE
        failure: PyMongoError | None = None
        while True:
            try:
                await self._connected()
            except ConnectionFailure:
                pass  # and nothing was sent
            else:
                if failure is not None and not self._retries:  # it would not be told apart here
                    raise failure
                once = number if self._retries else {}
                asked = [(command, {**self._durable, **once}), *([] if then is None else [(then, {})])]
                try:
                    answers = await self._ask(*asked)
                    _check(answers[0])
                    return answers
                except PyMongoError as error:
                    if not isinstance(error, ConnectionFailure) and not error.has_error_label("RetryableWriteError"):
                        raise
                    await self._hang_up()  # the next attempt may have to go to another server
                    if not self._retries:
                        raise
                    failure = error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _ask(self, *commands: tuple[Command, Mapping[str, Any]]) -> list[BsonDocument]:
        """The answers to commands, each with more fields, that are sent together."""
        try:
            transport = await self._connected()
            messages = []
            for number, (command, more) in enumerate(commands, self._asked + 1):
                sections = command.encoded({**self._database, **more})
                messages += [_HEAD.pack(_HEAD.size + len(sections), number % 2**31, 0, _OP_MSG, 0, 0), sections]
            self._wanted, self._answers = len(commands), []
            self._done = asyncio.get_running_loop().create_future()
            transport.write(b"".join(messages))
            return await self._done
        except BaseException:  # what would come now is the answer to this, not to what is asked next
            await self._hang_up()
            raise
        finally:
            self._asked = (self._asked + len(commands)) % 2**31
            self._answers, self._done = [], None

    async def _connected(self) -> asyncio.Transport:
        """Takes a connection to the primary from the driver: found, encrypted and signed in as the URL says."""
        if self._transport is not None and not self._is_stale():
            return self._transport
        await self._hang_up()
        client = self._driver.client
        # The driver has no public way to lend a connection.
        connection = await self._held.enter_async_context(await client._conn_for_writes(None, "insert"))
        self._held.push_async_callback(connection.close_conn, None)
        # One that was found to be away is given up by the driver, though nothing was heard on this connection.
        self._is_stale = partial(connection.pool_gen.stale, connection.generation, connection.service_id)
        self._retries = bool(connection.supports_sessions) and not connection.is_standalone
        self._former = connection.conn.get_conn
        self._transport = transport = self._former.transport
        transport.set_protocol(self)
        transport.resume_reading()
        return transport

    async def _hang_up(self) -> None:
        self._transport = None
        held, self._held = self._held, AsyncExitStack()
        await held.aclose()
        self._read.clear()

    def data_received(self, data: bytes) -> None:
        """Called with a part of an answer, or more than one."""
        self._read += data
        while len(self._read) >= _HEAD.size:
            length, _, asked, *_ = _HEAD.unpack_from(self._read)
            if len(self._read) < length:
                return
            answer = bson.decode(self._read[_HEAD.size : length], _OPTIONS)
            del self._read[:length]
            if self._done is None or self._done.done() or asked != (self._asked + len(self._answers) + 1) % 2**31:
                continue
            self._answers.append(answer)
            if len(self._answers) == self._wanted:
                self._done.set_result(self._answers)

    def connection_lost(self, error: Exception | None) -> None:
        """Called when the connection is gone."""
        self._transport = None
        if self._former is not None:
            self._former.connection_lost(error)
        if self._done is not None and not self._done.done():
            self._done.set_exception(AutoReconnect(f"the connection to MongoDB was lost: {error}"))


class RawConnections:
    """Lines that writes take in turn, each its own for as long as it takes."""

    def __init__(self, driver: MongoClientHolder, database: str, write_concern: WriteConcern) -> None:
        self._lines = [RawConnection(driver, database, write_concern) for _ in range(AT_ONCE)]
        self._free: asyncio.LifoQueue[RawConnection] = asyncio.LifoQueue()
        for line in self._lines:
            self._free.put_nowait(line)

    async def aclose(self) -> None:
        """Closes the connections."""
        for line in self._lines:
            await line.aclose()

    async def write(self, command: Command, timeout: float, then: Command | None = None) -> list[BsonDocument]:
        """As :meth:`Line.write`, within so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                line = await self._free.get()
                try:
                    return await line.write(command, then)
                finally:
                    self._free.put_nowait(line)
        except TimeoutError:
            raise NetworkTimeout("MongoDB did not answer in time") from None


def _check(answer: BsonDocument) -> None:
    """Raises ``PyMongoError`` for a command that failed, or a write that a majority did not confirm."""
    failure = answer.get("writeConcernError", {})
    if answer.get("code") in GAVE_WAY or failure.get("code") in GAVE_WAY:
        raise NotPrimaryError(answer.get("errmsg") or failure.get("errmsg", ""), answer)
    if answer["ok"] != 1:
        raise OperationFailure(answer.get("errmsg", ""), answer.get("code"), answer)
    if failure:
        labels = {"errorLabels": answer.get("errorLabels", [])}
        raise WriteConcernError(failure.get("errmsg", ""), failure.get("code"), {**failure, **labels})
