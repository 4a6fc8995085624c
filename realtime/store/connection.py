"""The connection to MongoDB: time limits, durability, and the driver's errors under the program's names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any, TypeVar

import pymongo
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from realtime.errors import OutcomeUnknown, Unavailable
from realtime.store.bson_mapping import BsonDocument
from realtime.store.raw_connection import MongoClientHolder, RawConnection, RawConnections

log = logging.getLogger(__name__)

T = TypeVar("T")

MAJORITY_WRITE_CONCERN = WriteConcern(w="majority", j=True)
PRIMARY_WRITE_CONCERN = WriteConcern(w=1)
"""For what is only tidied up: if it is lost, it is done again."""

CLOSE_TIMEOUT = 1.0


DUPLICATE_KEY = 11000


REFUSED = "The database refuses the server: its user, password or rights are wrong"
_UNAUTHORIZED, _AUTHENTICATION_FAILED = 13, 18


def is_refusal(error: BaseException) -> bool:
    """Return whether MongoDB refused a command because of the user of the server."""
    return (isinstance(error, OperationFailure) and error.code in (_UNAUTHORIZED, _AUTHENTICATION_FAILED)) or (
        isinstance(error, ServerSelectionTimeoutError) and "Authentication failed" in str(error)
    )


async def insert_again(collection: Any, documents: Sequence[BsonDocument]) -> Sequence[BsonDocument]:
    """Insert documents of which some may be there, and return the others.

    Those that are there were inserted by another worker, or by an attempt that was interrupted.
    """
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        failed = [one for one in error.details["writeErrors"] if one["code"] != DUPLICATE_KEY]
        if failed or error.details["writeConcernErrors"]:
            raise
        there = {one["index"] for one in error.details["writeErrors"]}
        return [document for number, document in enumerate(documents) if number not in there]
    return documents


class MongoConnection:
    """One database. Writes are acknowledged at ``w: majority, j: true``, reads are of what a majority has."""

    def __init__(self, url: str, database: str, *, write_timeout: float, read_timeout: float) -> None:
        self._client: Any = AsyncIOMotorClient(url, appname="realtime", retryWrites=True, retryReads=True)
        options: CodecOptions[BsonDocument] = CodecOptions(tz_aware=True, tzinfo=UTC)
        self.database: Any = self._client.get_database(
            database,
            codec_options=options,
            read_concern=ReadConcern("majority"),
            write_concern=MAJORITY_WRITE_CONCERN,
            # Whatever the URL says: a secondary may not have yet what was just acknowledged.
            read_preference=ReadPreference.PRIMARY,
        )
        self._driver = MongoClientHolder(url)
        self.line = RawConnection(self._driver, database, MAJORITY_WRITE_CONCERN)
        self.lines = RawConnections(self._driver, database, MAJORITY_WRITE_CONCERN)
        self.write_timeout = write_timeout
        self.read_timeout = read_timeout
        self.prepared = asyncio.Event()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.line.aclose()
        await self.lines.aclose()
        await self._driver.aclose()
        # It tells MongoDB of the end of its sessions first, and would look for one that is away for half a minute.
        with pymongo.timeout(CLOSE_TIMEOUT):
            self._client.close()

    async def ping(self, timeout: float) -> None:
        """Asks the server for a sign of life from its primary. Raises :class:`Unavailable`."""
        with self._translated(Unavailable), pymongo.timeout(timeout):
            await self.database.command("ping")

    async def until_prepared(self, error: type[Unavailable] = Unavailable) -> None:
        """Waits until the indexes are there, within the budget for what is to be done; then raises ``error``."""
        if not self.prepared.is_set():
            try:
                async with asyncio.timeout(self.write_timeout if error is OutcomeUnknown else self.read_timeout):
                    await self.prepared.wait()
            except TimeoutError:
                raise error from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within the budget for writes. Raises :class:`OutcomeUnknown`."""
        with self._translated(OutcomeUnknown), pymongo.timeout(self.write_timeout):
            yield

    async def transaction(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Return the result of ``work``, whose commands with the given session are committed together.

        It is called again if another transaction changed the same documents. Raises :class:`OutcomeUnknown`.
        """
        with self.writing():
            async with await self._client.start_session() as session:
                result: T = await session.with_transaction(
                    work, read_concern=ReadConcern("snapshot"), write_concern=MAJORITY_WRITE_CONCERN
                )
        return result

    @contextmanager
    def reading(self, timeout: float | None = None) -> Iterator[None]:
        """Within the budget for reads, or another one in seconds. Raises :class:`Unavailable`."""
        with self._translated(Unavailable), pymongo.timeout(timeout or self.read_timeout):
            yield

    @contextmanager
    def _translated(self, error: type[Unavailable]) -> Iterator[None]:
        try:
            yield
        except PyMongoError as cause:
            log.warning("MongoDB: %s", error.__name__, extra={"error": str(cause)[:500]})
            if is_refusal(cause):  # nothing was written
                raise Unavailable(REFUSED) from cause
            raise error from cause
