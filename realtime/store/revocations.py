"""Revocations: changes of access rights that every worker polls, to disconnect or re-check its clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from bson import ObjectId
from pymongo import UpdateOne

from realtime.store.connection import MongoConnection

Kind = Literal["session", "note", "promoted", "demoted"]
Subject = tuple[Kind, str | int]
"""The affected session or note, by its id. ``session``: the session ended. ``promoted``, ``demoted``: its user became
an administrator, or is no longer one. ``note``: the access rights of the note changed."""
RETENTION_SECONDS = 120
"""The retention of a revocation, far longer than the interval at which workers read it."""


class RevocationStore:
    """Stores and reads the revocations of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._revocations = connection.database.revocations

    async def prepare(self) -> None:
        """Create the index."""
        await self._revocations.create_index("at", name="expiry", expireAfterSeconds=RETENTION_SECONDS)

    async def add(self, subjects: Iterable[Subject]) -> None:
        """Add revocations, for all workers to read. Raises :class:`OutcomeUnknown`."""
        # Expiry uses the clock of MongoDB, since the clock of this host may be wrong.
        updates = [
            UpdateOne(
                {"_id": ObjectId()}, {"$set": {"kind": kind, "of": id}, "$currentDate": {"at": True}}, upsert=True
            )
            for kind, id in subjects
        ]
        if updates:
            with self._connection.writing():
                await self._revocations.bulk_write(updates, ordered=False)

    async def all(self) -> Mapping[str, Subject]:
        """Return all stored revocations by id, oldest first. Raises :class:`Unavailable`."""
        with self._connection.reading():
            cursor = self._revocations.find().sort([("at", 1), ("_id", 1)])
            return {str(document["_id"]): (document["kind"], document["of"]) async for document in cursor}
