"""Claims of ``Idempotency-Key`` values, and the stored responses."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from pymongo import ReturnDocument

from realtime.notes.models import Note
from realtime.notes.preconditions import Operation
from realtime.store.bson_mapping import BsonDocument, note_of, now
from realtime.store.connection import MongoConnection

CLAIM_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Claim:
    """The claim of an ``Idempotency-Key``.

    Attributes:
        fingerprint: The digest of the request.
        token: The token that marks the write in the note. It belongs to this claim, so that the key can be used for
            another operation once the claim has expired.
        first: Whether this request created the claim; otherwise it is a repetition.
        response: The response, if it is stored.
    """

    fingerprint: bytes
    token: str
    first: bool
    response: Note | None


class IdempotencyClaims:
    """Stores the claims of one database. A claim expires after :data:`CLAIM_SECONDS`."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._claims = connection.database.operations

    async def prepare(self) -> None:
        """Create the index."""
        await self._claims.create_index("at", name="expiry", expireAfterSeconds=CLAIM_SECONDS)

    async def claim(self, operation: Operation) -> Claim:
        """Create a claim for an ``Idempotency-Key``, or return the existing one. Raises :class:`OutcomeUnknown`."""
        token = secrets.token_hex(12)
        fields = {"fingerprint": operation.fingerprint, "token": token, "at": now()}
        with self._connection.writing():
            document = await self._claims.find_one_and_update(
                {"_id": operation.key}, {"$setOnInsert": fields}, upsert=True, return_document=ReturnDocument.AFTER
            )
        response = document.get("answer")
        return Claim(
            document["fingerprint"],
            document["token"],
            document["token"] == token,
            None if response is None else note_of(response),
        )

    async def store_response(self, key: str, response: Note) -> None:
        """Store the response to the request with this key. Raises :class:`OutcomeUnknown`."""
        document: BsonDocument = dict(response)
        document["_id"] = document.pop("id")
        with self._connection.writing():
            await self._claims.update_one({"_id": key, "answer": {"$exists": False}}, {"$set": {"answer": document}})

    async def release(self, key: str) -> None:
        """Delete a claim whose operation changed nothing. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._claims.delete_one({"_id": key, "answer": {"$exists": False}})
