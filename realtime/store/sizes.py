"""How much each user stores: the size of each note is kept with it, and an index adds the sizes up."""

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
"""The size of a note in bytes, as an expression of MongoDB: what :func:`realtime.notes.models.size_of` returns."""
INDEX = "owned_sizes"
OWNED: BsonDocument = {"access.owner": {"$type": "string"}}
REPAIR_TIMEOUT = 24 * 3600.0


class Sizes:
    """The sizes of the notes of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes

    async def prepare(self) -> None:
        """Make the index, and add the size to notes of earlier versions."""
        key = [("access.owner", ASCENDING), ("size", ASCENDING)]
        # The size of a purged note is zero, that of any other is not.
        index = IndexModel(key, name=INDEX, partialFilterExpression={"size": {"$gt": 0}})
        await self._notes.create_indexes([index])
        await self._notes.update_many({**OWNED, "size": {"$exists": False}}, [{"$set": {"size": SIZE}}])

    async def usage(self, owner: str) -> StorageUsage:
        """Return how much a user stores, from the index alone. Raises :class:`Unavailable`."""
        pipeline: list[Any] = [
            {"$match": {"access.owner": owner, "size": {"$gt": 0}}},
            {"$group": {"_id": None, "notes": {"$sum": 1}, "size": {"$sum": "$size"}}},
        ]
        with self._connection.reading():
            found = await self._notes.aggregate(pipeline, hint=INDEX).to_list(1)
        return StorageUsage(int(found[0]["notes"]), int(found[0]["size"])) if found else StorageUsage(0, 0)

    async def repair(self) -> int:
        """Correct sizes that are missing or wrong, and return how many were.

        A server of an earlier version that runs beside this one writes notes without their size.
        """
        wrong = {**OWNED, "$expr": {"$ne": ["$size", SIZE]}}
        with self._connection.reading(REPAIR_TIMEOUT):
            result = await self._notes.update_many(wrong, [{"$set": {"size": SIZE}}])
        return int(result.modified_count)
