"""What is good for one time: tickets into a room, and invites. Their secrets are not here, only digests of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from realtime.store.bson_mapping import BsonDocument, now
from realtime.store.connection import MongoConnection

Kind = Literal["ticket", "invite"]


class OneTimeTokens:
    """The passes of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._passes = connection.database.passes

    async def prepare(self) -> None:
        """Makes the index."""
        await self._passes.create_index("expires_date", name="expiry", expireAfterSeconds=0)

    async def add(self, kind: Kind, id: str, expires: datetime, what: BsonDocument) -> None:
        """Stores one, and what it is good for. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._passes.insert_one({"_id": id, "kind": kind, "expires_date": expires, "what": what})

    async def all(self, kind: Kind) -> Sequence[tuple[str, datetime, dict[str, Any]]]:
        """Return all of a kind that can still be used, the latest first: id, expiry, and what each is good for.

        Raises :class:`Unavailable`.
        """
        found = {"kind": kind, "expires_date": {"$gt": now()}}
        with self._connection.reading():
            documents = await self._passes.find(found).sort("expires_date", -1).to_list(None)
        return [(one["_id"], one["expires_date"], one["what"]) for one in documents]

    async def drop_invites(self, by: str) -> None:
        """Delete the invites that a user created. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._passes.delete_many({"kind": "invite", "what.by": by})

    async def take(self, kind: Kind, id: str) -> tuple[datetime, dict[str, Any]] | None:
        """Takes one away: when it would have expired, and what it is good for. Of many that try, one gets it.

        Raises :class:`OutcomeUnknown`.
        """
        with self._connection.writing():
            document = await self._passes.find_one_and_delete({"_id": id, "kind": kind, "expires_date": {"$gt": now()}})
        return None if document is None else (document["expires_date"], document["what"])
