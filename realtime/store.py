"""Notes in MongoDB: documents to models and back, driver errors to domain errors. No rules."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pymongo
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, IndexModel, MongoClient, ReturnDocument, UpdateOne
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from realtime.errors import EmbeddedError, OutcomeUnknown, Unavailable
from realtime.models import KEPT_OPERATIONS, Change, Note, Operation

log = logging.getLogger(__name__)

DURABLE = WriteConcern(w="majority", j=True)
PAGE_BYTES = 8 * 1024 * 1024
TOMBSTONE_SECONDS = 30 * 24 * 3600
CLAIM_SECONDS = 24 * 3600
CLOSE_TIMEOUT = 1.0

Document = dict[str, Any]
Allowed = Collection[int] | None  # versions at which a write is allowed; ``None`` for any


@dataclass(frozen=True, slots=True)
class Record:
    """A note as it is stored, tombstones included, with the keys of the last operations on it."""

    note: Note
    deleted: bool
    operations: Sequence[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of an ``Idempotency-Key``: the digest of its request, and the answer if it was given.

    ``token`` marks its write in the note, and goes with the claim: the key may be used again when that has expired.
    ``first`` tells a new claim from a repeat; ``base`` is the version of the note when it was made.
    """

    fingerprint: bytes
    token: str
    first: bool
    base: int
    answer: Note | None


def _note(document: Mapping[str, Any]) -> Note:
    # Not validated again: only checked notes are ever stored.
    return Note.model_construct(
        id=document["_id"],
        title=document["title"],
        description=document["description"],
        content=document["content"],
        tags=document["tags"],
        version=document["version"],
        created_date=document["created_date"],
        updated_date=document["updated_date"],
    )


def _document(note: Note) -> Document:
    document = dict(note)
    document["_id"] = document.pop("id")
    return document


def _change(document: Mapping[str, Any]) -> Change:
    return Change(_note(document), deleted="deleted_date" in document)


def _now() -> datetime:
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Store:
    """The notes of one database. Every write is acknowledged at ``w: majority, j: true`` or fails."""

    def __init__(self, url: str, database: str, *, write_timeout: float, read_timeout: float) -> None:
        self._client: Any = AsyncIOMotorClient(url, appname="realtime", retryWrites=True, retryReads=True)
        options: CodecOptions[Document] = CodecOptions(tz_aware=True, tzinfo=UTC)
        self._database = self._client.get_database(
            database, codec_options=options, read_concern=ReadConcern("majority"), write_concern=DURABLE
        )
        self._notes = self._database.notes
        self._counters = self._database.counters
        self._claims = self._database.operations
        self._prepared = asyncio.Event()
        self._write_timeout = write_timeout
        self._read_timeout = read_timeout

    def close(self) -> None:
        """Closes the connections."""
        # It tells MongoDB of the end of its sessions first, and would look for one that is away for half a minute.
        with pymongo.timeout(CLOSE_TIMEOUT):
            self._client.close()

    async def prepare(self) -> None:
        """Makes the indexes. Raises :class:`Unavailable`."""
        with self._reading():
            await self._notes.create_indexes(
                [
                    IndexModel([("dirty", ASCENDING)], name="dirty", partialFilterExpression={"dirty": True}),
                    IndexModel(
                        [("deleted_date", ASCENDING)],
                        name="tombstones",
                        expireAfterSeconds=TOMBSTONE_SECONDS,
                        partialFilterExpression={"deleted_date": {"$exists": True}},
                    ),
                    IndexModel(
                        [("origin", ASCENDING)],
                        name="origin",
                        unique=True,
                        partialFilterExpression={"origin": {"$exists": True}},
                    ),
                ]
            )
            await self._claims.create_index("at", name="expiry", expireAfterSeconds=CLAIM_SECONDS)
        self._prepared.set()

    async def ping(self, timeout: float) -> None:
        """Asks the server for a sign of life from its primary. Raises :class:`Unavailable`."""
        with self._translated(Unavailable), pymongo.timeout(timeout):
            await self._database.command("ping")

    async def create(self, fields: Mapping[str, Any], key: str | None) -> Change | None:
        """Inserts a note under the next id. ``None`` if an operation with this key made one already.

        Raises :class:`OutcomeUnknown`.
        """
        if key is not None:
            await self._until_prepared()
        now = _now()
        with self._writing():
            while True:
                counter = await self._counters.find_one_and_update(
                    {"_id": "notes"}, {"$inc": {"value": 1}}, upsert=True, return_document=ReturnDocument.AFTER
                )
                document = {
                    "_id": counter["value"],
                    **fields,
                    "version": 1,
                    "created_date": now,
                    "updated_date": now,
                    "dirty": True,
                }
                if key is not None:
                    document |= {"origin": key, "operations": [key]}
                try:
                    await self._notes.insert_one(document)
                except DuplicateKeyError as error:
                    if "origin" in (error.details or {}).get("keyPattern", {}):
                        return None
                    log.warning("the next id is taken, trying the one after", extra={"id": counter["value"]})
                else:
                    return _change(document)

    async def _until_prepared(self) -> None:
        # Only the unique index keeps a repeated creation from making a second note.
        try:
            async with asyncio.timeout(self._write_timeout):
                await self._prepared.wait()
        except TimeoutError:
            raise OutcomeUnknown from None

    async def update(self, id: int, fields: Mapping[str, Any], versions: Allowed, key: str | None) -> Change | None:
        """Sets fields of a live note, one version on.

        ``None``, with nothing written, if there is none, it is at none of these versions, or this key was applied.
        Raises :class:`OutcomeUnknown`.
        """
        return await self._advance(id, {**fields, "updated_date": _now()}, versions, key)

    async def delete(self, id: int, versions: Allowed, key: str | None) -> Change | None:
        """Turns a live note into a tombstone, one version on; otherwise as :meth:`update`."""
        return await self._advance(id, {"deleted_date": _now()}, versions, key)

    async def _advance(self, id: int, fields: Mapping[str, Any], versions: Allowed, key: str | None) -> Change | None:
        condition: Document = {"_id": id, "deleted_date": {"$exists": False}}
        if isinstance(versions, range):
            condition["version"] = {"$gte": versions.start, "$lt": versions.stop}
        elif versions is not None:
            condition["version"] = {"$in": list(versions)}
        update: Document = {"$set": {**fields, "dirty": True}, "$inc": {"version": 1}}
        if key is not None:
            condition["operations"] = {"$ne": key}
            update["$push"] = {"operations": {"$each": [key], "$slice": -KEPT_OPERATIONS}}
        with self._writing():
            document = await self._notes.find_one_and_update(
                condition, update, return_document=ReturnDocument.AFTER, projection={"operations": False}
            )
        return None if document is None else _change(document)

    async def find(self, id: int) -> Record | None:
        """The note or its tombstone. Raises :class:`Unavailable`."""
        return await self._record({"_id": id})

    async def find_origin(self, key: str) -> Record | None:
        """The note that the operation with this key created. Raises :class:`Unavailable`."""
        return await self._record({"origin": key})

    async def _record(self, condition: Document) -> Record | None:
        with self._reading():
            document = await self._notes.find_one(condition)
        if document is None:
            return None
        return Record(_note(document), "deleted_date" in document, document.get("operations", ()))

    async def page(self, after: int, limit: int) -> tuple[list[Note], bool]:
        """Live notes with an id above ``after``, in its order, and whether there are more.

        A page ends early when its texts grow beyond :data:`PAGE_BYTES`. Raises :class:`Unavailable`.
        """
        notes: list[Note] = []
        size = 0
        with self._reading():
            cursor: Any = self._notes.find(
                {"_id": {"$gt": after}, "deleted_date": {"$exists": False}}, {"operations": False}
            )
            cursor = cursor.sort("_id", ASCENDING).limit(limit + 1).batch_size(min(limit + 1, 101))
            async for document in cursor:
                if len(notes) == limit or size > PAGE_BYTES:
                    await cursor.close()
                    return notes, True
                size += len(document["content"].encode())
                notes.append(_note(document))
        return notes, False

    async def dirty(self, most: int) -> dict[int, int]:
        """Notes whose last change may not be published: id and version. Raises :class:`Unavailable`."""
        with self._reading():
            documents = await self._notes.find({"dirty": True}, {"version": True}).limit(most).to_list(most)
        return {document["_id"]: document["version"] for document in documents}

    async def changes(self, ids: Collection[int]) -> list[Change]:
        """The last change of each of these notes. Raises :class:`Unavailable`."""
        with self._reading():
            cursor = self._notes.find({"_id": {"$in": list(ids)}}, {"operations": False})
            documents = await cursor.to_list(None)
        changes = []
        for document in documents:
            try:
                changes.append(_change(document))
            except KeyError:
                log.exception("this document is no note", extra={"id": document["_id"]})
        return changes

    async def clear_dirty(self, versions: Mapping[int, int]) -> None:
        """Takes the mark off notes that still are at these versions. Raises :class:`Unavailable`."""
        clear = [
            UpdateOne({"_id": id, "version": version}, {"$unset": {"dirty": ""}}) for id, version in versions.items()
        ]
        # Not worth a journal flush: a mark that comes back is published again and cleared again.
        notes = self._notes.with_options(write_concern=WriteConcern(w=1))
        with self._reading():
            await notes.bulk_write(clear, ordered=False)

    async def claim(self, operation: Operation, base: int) -> Claim:
        """Claims an ``Idempotency-Key``, or tells who has it. Raises :class:`OutcomeUnknown`."""
        token = secrets.token_hex(12)
        fields = {"fingerprint": operation.fingerprint, "token": token, "base": base, "at": _now()}
        with self._writing():
            document = await self._claims.find_one_and_update(
                {"_id": operation.key}, {"$setOnInsert": fields}, upsert=True, return_document=ReturnDocument.AFTER
            )
        answer = document.get("answer")
        return Claim(
            document["fingerprint"],
            document["token"],
            document["token"] == token,
            document["base"],
            None if answer is None else _note(answer),
        )

    async def settle(self, key: str, answer: Note) -> None:
        """Keeps the answer that was given under a key. Raises :class:`OutcomeUnknown`."""
        with self._writing():
            unanswered = {"_id": key, "answer": {"$exists": False}}
            await self._claims.update_one(unanswered, {"$set": {"answer": _document(answer)}})

    async def release(self, key: str) -> None:
        """Forgets a claim whose operation changed nothing. Raises :class:`OutcomeUnknown`."""
        with self._writing():
            await self._claims.delete_one({"_id": key, "answer": {"$exists": False}})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._translated(OutcomeUnknown), pymongo.timeout(self._write_timeout):
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._translated(Unavailable), pymongo.timeout(self._read_timeout):
            yield

    @contextmanager
    def _translated(self, error: type[Unavailable]) -> Iterator[None]:
        try:
            yield
        except PyMongoError as cause:
            log.warning("MongoDB: %s", error.__name__, extra={"error": str(cause)[:500]})
            raise error from cause


def check_url(url: str) -> None:
    """Raises ``ValueError`` with the reason when a MongoDB URL cannot be used."""
    try:
        pymongo.uri_parser.parse_uri(url, validate=True, warn=False)
    except (InvalidURI, ConfigurationError, ValueError, OSError) as error:
        raise ValueError(f"the MongoDB URL cannot be used: {error}") from None


def ensure_replica_set(port: int, timeout: float = 60.0) -> None:
    """Makes the ``mongod`` on this loopback port the primary of a replica set of one.

    Its port may be another one than last time, which a plain restart would not survive: the set's own configuration
    names it. Raises :class:`EmbeddedError`.
    """
    host = f"127.0.0.1:{port}"
    deadline = time.monotonic() + timeout
    with MongoClient[Document](host, directConnection=True, serverSelectionTimeoutMS=int(timeout * 1000)) as client:
        try:
            config = {"_id": "realtime", "version": 1, "members": [{"_id": 0, "host": host}]}
            try:
                try:
                    client.admin.command("replSetInitiate", config)
                except AutoReconnect:
                    # It hangs up once it has found out that it is not where its configuration says, which takes it
                    # half a minute when somebody silent sits there now.
                    client.admin.command("replSetInitiate", config)
            except OperationFailure as error:
                if error.code != 23:  # AlreadyInitialized
                    raise
                known = client.local["system.replset"].find_one() or {}
                if [member["host"] for member in known["members"]] != [host]:
                    config["version"] = known["version"] + 1
                    client.admin.command("replSetReconfig", config, force=True)
            while not client.admin.command("hello")["isWritablePrimary"]:
                if time.monotonic() > deadline:
                    raise EmbeddedError(f"the embedded MongoDB did not become primary within {timeout:.0f} s")
                time.sleep(0.02)
        except PyMongoError as error:
            raise EmbeddedError(f"the embedded MongoDB does not answer: {error}") from error
