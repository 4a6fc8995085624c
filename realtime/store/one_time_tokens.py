"""Tokens that can be used once: WebSocket tickets and invites. Only digests of the secrets are stored, as ids."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from realtime.store.bson_mapping import BsonDocument, now
from realtime.store.connection import MongoConnection

Kind = Literal["ticket", "invite"]


class OneTimeTokens:
    """Stores the one-time tokens of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._tokens = connection.database.passes

    async def prepare(self) -> None:
        """Create the index."""
        await self._tokens.create_index("expires_date", name="expiry", expireAfterSeconds=0)

    async def add(self, kind: Kind, id: str, expires: datetime, contents: BsonDocument) -> None:
        """Add a token.

        Args:
            kind: The kind of the token.
            id: The digest of its secret.
            expires: Its expiry date.
            contents: The data that :meth:`pop` returns.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
        """
        with self._connection.writing():
            await self._tokens.insert_one({"_id": id, "kind": kind, "expires_date": expires, "what": contents})

    async def all(self, kind: Kind) -> Sequence[tuple[str, datetime, dict[str, Any]]]:
        """Return the id, expiry date and contents of each valid token of a kind, the last to expire first.

        Raises :class:`Unavailable`.
        """
        valid = {"kind": kind, "expires_date": {"$gt": now()}}
        with self._connection.reading():
            documents = await self._tokens.find(valid).sort("expires_date", -1).to_list(None)
        return [(document["_id"], document["expires_date"], document["what"]) for document in documents]

    async def drop_invites(self, by: str) -> None:
        """Delete the invites that a user created. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._tokens.delete_many({"kind": "invite", "what.by": by})

    async def pop(self, kind: Kind, id: str) -> tuple[datetime, dict[str, Any]] | None:
        """Delete a token, and return its expiry date and contents, or ``None`` if it is not valid.

        Only one of several concurrent calls gets the token. Raises :class:`OutcomeUnknown`.
        """
        with self._connection.writing():
            document = await self._tokens.find_one_and_delete({"_id": id, "kind": kind, "expires_date": {"$gt": now()}})
        return None if document is None else (document["expires_date"], document["what"])
