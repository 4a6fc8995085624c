"""Storage usage by user. Each note's document has its size, and an index covers the sum of the sizes of an owner."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, IndexModel

from realtime.notes.models import StorageUsage
from realtime.store.bson_mapping import BsonDocument
from realtime.store.connection import MongoConnection

SIZE: BsonDocument = {
    "$add": [
        {"$strLenBytes": "$title"},
        {"$strLenBytes": "$description"},
        {"$strLenBytes": "$content"},
        {"$sum": {"$map": {"input": "$tags", "in": {"$strLenBytes": "$$this"}}}},
    ]
}
"""The size of a note in bytes as a MongoDB expression; equal to :func:`realtime.notes.models.size_of`."""
INDEX = "owned_sizes"
OWNED: BsonDocument = {"access.owner": {"$type": "string"}}
REPAIR_TIMEOUT_SECONDS = 24 * 3600.0


class Sizes:
    """Maintains and sums up the sizes of the notes of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes

    async def prepare(self) -> None:
        """Create the index, and add the size to notes of earlier versions."""
        key = [("access.owner", ASCENDING), ("size", ASCENDING)]
        # Only purged notes have the size 0.
        index = IndexModel(key, name=INDEX, partialFilterExpression={"size": {"$gt": 0}})
        await self._notes.create_indexes([index])
        await self._notes.update_many({**OWNED, "size": {"$exists": False}}, [{"$set": {"size": SIZE}}])

    async def usage(self, owner: str) -> StorageUsage:
        """Return the storage usage of a user. The query is covered by the index. Raises :class:`Unavailable`."""
        pipeline: list[Any] = [
            {"$match": {"access.owner": owner, "size": {"$gt": 0}}},
            {"$group": {"_id": None, "notes": {"$sum": 1}, "size": {"$sum": "$size"}}},
        ]
        with self._connection.reading():
            sums = await self._notes.aggregate(pipeline, hint=INDEX).to_list(1)
        return StorageUsage(int(sums[0]["notes"]), int(sums[0]["size"])) if sums else StorageUsage(0, 0)

    async def repair(self) -> int:
        """Correct sizes that are missing or wrong, and return their number.

        A server of an earlier version that runs at the same time writes notes without their size.
        """
        wrong = {**OWNED, "$expr": {"$ne": ["$size", SIZE]}}
        with self._connection.reading(REPAIR_TIMEOUT_SECONDS):
            result = await self._notes.update_many(wrong, [{"$set": {"size": SIZE}}])
        return int(result.modified_count)
