"""Sessions: sign-ins and API tokens. Only digests of the secrets are stored, as ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from realtime.auth.users import Kind, Session, UserAccount
from realtime.store.bson_mapping import BsonDocument, now
from realtime.store.connection import MongoConnection
from realtime.store.users import user_of

RENAMED = {"_id": "id", "era": "token_generation"}
"""Model fields by their names in MongoDB, where these differ."""


def _session_of(document: BsonDocument) -> Session:
    return Session(**{RENAMED.get(name, name): value for name, value in document.items()})


class SessionStore:
    """Stores the sessions of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._sessions = connection.database.sessions

    async def prepare(self) -> None:
        """Create the indexes."""
        await self._sessions.create_index("expires_date", name="expiry", expireAfterSeconds=0)
        await self._sessions.create_index("user", name="user")

    async def add(self, session: Session) -> None:
        """Add a session. Raises :class:`OutcomeUnknown`."""
        document = asdict(session)
        for name, field in RENAMED.items():
            document[name] = document.pop(field)
        with self._connection.writing():
            await self._sessions.insert_one(document)

    async def valid(self, ids: Iterable[str]) -> Sequence[tuple[Session, UserAccount]]:
        """Return the valid sessions among these, each with its user.

        A session is invalid if it expired, if its user is disabled or deleted, or if its token generation is outdated.
        Raises :class:`Unavailable`.
        """
        stages: list[BsonDocument] = [
            {"$match": {"_id": {"$in": list(ids)}, "expires_date": {"$gt": now()}}},
            {"$lookup": {"from": "people", "localField": "user", "foreignField": "_id", "as": "people"}},
        ]
        valid: list[tuple[Session, UserAccount]] = []
        with self._connection.reading():
            async for document in self._sessions.aggregate(stages):
                for user in map(user_of, document.pop("people")):
                    session = _session_of(document)
                    if not user.disabled and session.token_generation >= user.token_generations[session.kind]:
                        valid.append((session, user))
        return valid

    async def mark_used(
        self, ids: Iterable[str], before: datetime, expires: datetime, address: str | None = None
    ) -> None:
        """Record that sessions are in use, and extend those of sign-ins.

        Args:
            ids: The ids of the sessions.
            before: Sessions that were recorded at or after this date are left unchanged.
            expires: The new expiry date, which is limited by the final expiry of the sign-in.
            address: The IP address of the client.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
        """
        outdated = {"_id": {"$in": list(ids)}, "used_date": {"$not": {"$gte": before}}}
        extended = {"$cond": [{"$eq": ["$kind", "session"]}, {"$min": ["$ends_date", expires]}, "$expires_date"]}
        fields: BsonDocument = {"used_date": now(), "expires_date": extended}
        if address is not None:
            fields["address"] = {"$literal": address}
        with self._connection.writing():
            await self._sessions.update_many(outdated, [{"$set": fields}])

    async def list_of(self, user: str, kind: Kind) -> Sequence[Session]:
        """Return the unexpired sessions of a user of one kind, newest first. Raises :class:`Unavailable`."""
        unexpired = {"user": user, "kind": kind, "expires_date": {"$gt": now()}}
        with self._connection.reading():
            cursor = self._sessions.find(unexpired).sort("created_date", -1)
            return [_session_of(document) async for document in cursor]

    async def confirm(self, id: str) -> None:
        """Record that the user just confirmed the password in a session. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._sessions.update_one({"_id": id}, {"$set": {"proven_date": now()}})

    async def set_token_generation(self, id: str, era: int) -> None:
        """Set the token generation of a session, so that it remains valid. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._sessions.update_one({"_id": id}, {"$set": {"era": era}})

    async def end(
        self, user: str, kind: Kind | None = None, id: str | None = None, but: str | None = None
    ) -> Sequence[str]:
        """Delete sessions of a user, and return their ids.

        Args:
            user: The name of the user.
            kind: Delete only sessions of this kind.
            id: Delete only this session.
            but: Keep this session; ignored with ``id``.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
        """
        condition: BsonDocument = {"user": user}
        if kind is not None:
            condition["kind"] = kind
        if id is not None:
            condition["_id"] = id
        elif but is not None:
            condition["_id"] = {"$ne": but}
        with self._connection.writing():
            ids: list[str] = [document["_id"] async for document in self._sessions.find(condition, {"_id": True})]
            await self._sessions.delete_many({"_id": {"$in": ids}})
        return ids
