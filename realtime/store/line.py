"""A line to MongoDB's primary for inserts that are small and come often.

The driver's own way through a command takes half a millisecond of CPU time, and Motor's a hop into a thread and back.
The journal of co-editing inserts every few milliseconds, and everyone who types waits for it. So the driver makes the
connection, and signs in; what is said over it then is said here: ``OP_MSG`` of MongoDB's wire protocol, one command at
a time.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import bson
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect, BulkWriteError, NetworkTimeout, OperationFailure, WriteConcernError
from pymongo.write_concern import WriteConcern

from realtime.store.documents import Document

_HEAD = struct.Struct("<iiiiIB")
"""Length, request, response to, opcode, flags; the kind of the first section, a document."""
_DOCUMENTS = struct.Struct("<Bi10s")
"""The head of a section of many documents: its kind, its length without that, and which list of the command it is."""
_OP_MSG = 2013


class Line(asyncio.Protocol):
    """One connection, made when it is needed, and anew after every failure."""

    def __init__(self, url: str, database: str, write_concern: WriteConcern) -> None:
        self._url = url
        self._common = {"$db": database, "writeConcern": write_concern.document}
        self._client: AsyncMongoClient[Document] | None = None
        self._turn = asyncio.Lock()
        self._asked = 0
        self._held = AsyncExitStack()
        self._driver: asyncio.BaseProtocol | None = None
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Document] | None = None
        self._read = bytearray()

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._hang_up()
        if self._client is not None:
            await self._client.close()

    async def insert(self, collection: str, documents: Sequence[Mapping[str, Any]], timeout: float) -> None:
        """Inserts documents, within so many seconds. Raises ``PyMongoError``: some may be there, then."""
        command = bson.encode({"insert": collection, "ordered": False, **self._common})
        encoded = b"".join(map(bson.encode, documents))
        head = _DOCUMENTS.pack(1, _DOCUMENTS.size - 1 + len(encoded), b"documents")
        async with self._turn:
            try:
                async with asyncio.timeout(timeout):
                    _check(await self._say(command + head + encoded))
            except TimeoutError:
                await self._hang_up()
                raise NetworkTimeout("MongoDB did not answer in time") from None
            except BaseException:  # what would come now is the answer to this command, not to the next one
                await self._hang_up()
                raise

    async def _say(self, sections: bytes) -> Document:
        transport = self._transport or await self._connect()
        self._reply = asyncio.get_running_loop().create_future()
        self._asked = (self._asked + 1) % 2**31
        transport.write(_HEAD.pack(_HEAD.size + len(sections), self._asked, 0, _OP_MSG, 0, 0) + sections)
        return await self._reply

    async def _connect(self) -> asyncio.Transport:
        """Takes a connection to the primary from the driver: found, encrypted and signed in as the URL says."""
        await self._hang_up()
        if self._client is None:
            self._client = AsyncMongoClient(self._url, appname="realtime", maxPoolSize=1)
        # The driver has no public way to lend a connection.
        connection = await self._held.enter_async_context(await self._client._conn_for_writes(None, "insert"))
        self._held.push_async_callback(connection.close_conn, None)
        self._driver = connection.conn.get_conn
        self._transport = transport = self._driver.transport
        transport.set_protocol(self)
        transport.resume_reading()
        return transport

    async def _hang_up(self) -> None:
        self._transport = None
        held, self._held = self._held, AsyncExitStack()
        await held.aclose()
        self._read.clear()

    def data_received(self, data: bytes) -> None:
        """Called with a part of an answer."""
        self._read += data
        if len(self._read) < _HEAD.size:
            return
        length, _, asked, *_ = _HEAD.unpack_from(self._read)
        if len(self._read) >= length:
            answer = bson.decode(self._read[_HEAD.size : length])
            del self._read[:length]
            if asked == self._asked and self._reply is not None and not self._reply.done():
                self._reply.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Called when the connection is gone."""
        self._transport = None
        if self._driver is not None:
            self._driver.connection_lost(error)
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(AutoReconnect(f"the connection to MongoDB was lost: {error}"))


def _check(reply: Document) -> None:
    if reply["ok"] != 1:
        raise OperationFailure(reply.get("errmsg", ""), reply.get("code"), reply)
    if reply.get("writeErrors"):
        raise BulkWriteError(reply)
    if reply.get("writeConcernError"):
        failure = reply["writeConcernError"]
        raise WriteConcernError(failure.get("errmsg", ""), failure.get("code"), failure)
