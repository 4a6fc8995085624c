"""Claims on ``Idempotency-Key``: who has a key, and what was answered under it."""

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
    """What is known of an ``Idempotency-Key``: the digest of its request, and the answer if it was given.

    ``token`` marks its write in the note, and goes with the claim: the key may be used again when that has expired.
    ``first`` tells a new claim from a repeat.
    """

    fingerprint: bytes
    token: str
    first: bool
    answer: Note | None


class IdempotencyClaims:
    """The claims of one database; each is kept for :data:`CLAIM_SECONDS`."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._claims = connection.database.operations

    async def prepare(self) -> None:
        """Makes the index."""
        await self._claims.create_index("at", name="expiry", expireAfterSeconds=CLAIM_SECONDS)

    async def claim(self, operation: Operation) -> Claim:
        """Claims an ``Idempotency-Key``, or tells who has it. Raises :class:`OutcomeUnknown`."""
        token = secrets.token_hex(12)
        fields = {"fingerprint": operation.fingerprint, "token": token, "at": now()}
        with self._connection.writing():
            document = await self._claims.find_one_and_update(
                {"_id": operation.key}, {"$setOnInsert": fields}, upsert=True, return_document=ReturnDocument.AFTER
            )
        answer = document.get("answer")
        return Claim(
            document["fingerprint"],
            document["token"],
            document["token"] == token,
            None if answer is None else note_of(answer),
        )

    async def store_response(self, key: str, answer: Note) -> None:
        """Keeps the answer that was given under a key. Raises :class:`OutcomeUnknown`."""
        document: BsonDocument = dict(answer)
        document["_id"] = document.pop("id")
        with self._connection.writing():
            await self._claims.update_one({"_id": key, "answer": {"$exists": False}}, {"$set": {"answer": document}})

    async def release(self, key: str) -> None:
        """Forgets a claim whose operation changed nothing. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._claims.delete_one({"_id": key, "answer": {"$exists": False}})
