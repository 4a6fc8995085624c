"""The connection to MongoDB: time limits, read and write concerns, and translation of driver errors."""

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
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError, ServerSelectionTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from realtime.errors import OutcomeUnknown, Unavailable
from realtime.store.bson_mapping import BsonDocument

log = logging.getLogger(__name__)

T = TypeVar("T")

MAJORITY_WRITE_CONCERN = WriteConcern(w="majority", j=True)
PRIMARY_WRITE_CONCERN = WriteConcern(w=1)
"""For cleanup writes that are repeated if they are lost."""

CLOSE_TIMEOUT_SECONDS = 1.0

DUPLICATE_KEY = 11000
REFUSED = "MongoDB rejected the server's user, password or permissions. An administrator has to correct its settings"
_UNAUTHORIZED, _AUTHENTICATION_FAILED = 13, 18


def is_refusal(error: BaseException) -> bool:
    """Return whether MongoDB rejected a command because of the server's credentials or permissions."""
    return (isinstance(error, OperationFailure) and error.code in (_UNAUTHORIZED, _AUTHENTICATION_FAILED)) or (
        isinstance(error, ServerSelectionTimeoutError) and "Authentication failed" in str(error)
    )


async def insert_missing(collection: Any, documents: Sequence[BsonDocument]) -> Sequence[BsonDocument]:
    """Insert documents, and return those that did not exist yet.

    The others were inserted by another worker, or by an interrupted attempt.
    """
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        write_errors = error.details["writeErrors"]
        if error.details["writeConcernErrors"] or any(item["code"] != DUPLICATE_KEY for item in write_errors):
            raise
        existing = {item["index"] for item in write_errors}
        return [document for index, document in enumerate(documents) if index not in existing]
    return documents


class MongoConnection:
    """A connection to one database.

    Writes are acknowledged at ``w: majority, j: true``; reads return data that a majority of the members has. Within
    the time limit, the driver retries both. MongoDB applies a retried write once.

    Attributes:
        database: The database for most commands, through Motor.
        async_database: The database for small, frequent writes. It runs without Motor's threads.

    Args:
        url: The MongoDB URL.
        database: The name of the database.
        write_timeout: The default time limit of writes in seconds.
        read_timeout: The default time limit of reads in seconds.
    """

    def __init__(self, url: str, database: str, *, write_timeout: float, read_timeout: float) -> None:
        client_options: dict[str, Any] = {"appname": "realtime", "retryWrites": True, "retryReads": True}
        self._client: Any = AsyncIOMotorClient(url, **client_options)
        self._async_client: AsyncMongoClient[BsonDocument] = AsyncMongoClient(url, **client_options)
        options: dict[str, Any] = {
            "codec_options": CodecOptions[BsonDocument](tz_aware=True, tzinfo=UTC),
            "read_concern": ReadConcern("majority"),
            "write_concern": MAJORITY_WRITE_CONCERN,
            # This overrides the URL: a secondary may not have the latest acknowledged writes.
            "read_preference": ReadPreference.PRIMARY,
        }
        self.database: Any = self._client.get_database(database, **options)
        self.async_database: AsyncDatabase[BsonDocument] = self._async_client.get_database(database, **options)
        self.write_timeout = write_timeout
        self.read_timeout = read_timeout
        self.prepared = asyncio.Event()

    async def aclose(self) -> None:
        """Close all connections."""
        # The driver ends its sessions first. It would search for an unavailable server for half a minute.
        with pymongo.timeout(CLOSE_TIMEOUT_SECONDS):
            await self._async_client.close()
            self._client.close()

    async def ping(self, timeout: float) -> None:
        """Check that the primary answers within ``timeout`` seconds. Raises :class:`Unavailable`."""
        with self._translated(Unavailable), pymongo.timeout(timeout):
            await self.database.command("ping")

    async def until_prepared(self, error: type[Unavailable] = Unavailable) -> None:
        """Wait until the indexes exist, within the time limit of writes or reads; raise ``error`` if they do not."""
        if not self.prepared.is_set():
            try:
                async with asyncio.timeout(self.write_timeout if error is OutcomeUnknown else self.read_timeout):
                    await self.prepared.wait()
            except TimeoutError:
                raise error from None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Limit the time of a block that writes, and raise driver errors as :class:`OutcomeUnknown`."""
        task = asyncio.current_task()
        cancellations = task.cancelling() if task is not None else 0
        try:
            with self._translated(OutcomeUnknown), pymongo.timeout(self.write_timeout):
                yield
        finally:
            # Before Python 3.12, asyncio.wait_for, which the asyncio client uses, can lose a cancellation:
            # https://github.com/python/cpython/issues/86296
            if task is not None and task.cancelling() > cancellations:
                raise asyncio.CancelledError

    async def transaction(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Call ``work`` with a session in a transaction, and return its result.

        ``work`` is called again if another transaction changes the same documents. Raises :class:`OutcomeUnknown`.
        """
        with self.writing():
            async with await self._client.start_session() as session:
                result: T = await session.with_transaction(
                    work, read_concern=ReadConcern("snapshot"), write_concern=MAJORITY_WRITE_CONCERN
                )
        return result

    @contextmanager
    def reading(self, timeout: float | None = None) -> Iterator[None]:
        """Limit the time of a block that reads, and raise driver errors as :class:`Unavailable`.

        ``timeout`` is in seconds; the default is the read timeout of the connection.
        """
        with self._translated(Unavailable), pymongo.timeout(timeout or self.read_timeout):
            yield

    @contextmanager
    def _translated(self, error: type[Unavailable]) -> Iterator[None]:
        try:
            yield
        except PyMongoError as cause:
            extra = {"error": str(cause)[:500]}
            if is_refusal(cause):  # nothing was written, so the outcome is known
                log.error("MongoDB rejected the user, password or permissions of REALTIME_MONGO_URL", extra=extra)
                raise Unavailable(REFUSED) from cause
            log.warning("MongoDB: %s", error.__name__, extra=extra)
            raise error from cause
