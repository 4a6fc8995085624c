"""Sign-ins and API tokens: what somebody's rights come from. Their secrets are not here, only digests of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from realtime.auth.users import Kind, Session, UserAccount
from realtime.store.bson_mapping import BsonDocument, now
from realtime.store.connection import MongoConnection
from realtime.store.users import person_of

RENAMED = {"_id": "id", "era": "token_generation"}
"""The fields that have another name in MongoDB."""


def _session_of(document: BsonDocument) -> Session:
    return Session(**{RENAMED.get(name, name): value for name, value in document.items()})


class SessionStore:
    """The sign-ins and tokens of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._sessions = connection.database.sessions

    async def prepare(self) -> None:
        """Makes the indexes."""
        await self._sessions.create_index("expires_date", name="expiry", expireAfterSeconds=0)
        await self._sessions.create_index("user", name="user")

    async def add(self, session: Session) -> None:
        """Stores one. Raises :class:`OutcomeUnknown`."""
        document = asdict(session)
        for name, field in RENAMED.items():
            document[name] = document.pop(field)
        with self._connection.writing():
            await self._sessions.insert_one(document)

    async def valid(self, ids: Iterable[str]) -> Sequence[tuple[Session, UserAccount]]:
        """Those of them that hold now, with whose they are. Raises :class:`Unavailable`."""
        stages: list[BsonDocument] = [
            {"$match": {"_id": {"$in": list(ids)}, "expires_date": {"$gt": now()}}},
            {"$lookup": {"from": "people", "localField": "user", "foreignField": "_id", "as": "people"}},
        ]
        held: list[tuple[Session, UserAccount]] = []
        with self._connection.reading():
            async for document in self._sessions.aggregate(stages):
                for person in map(person_of, document.pop("people")):
                    session = _session_of(document)
                    if not person.disabled and session.token_generation >= person.token_generations[session.kind]:
                        held.append((session, person))
        return held

    async def used(self, ids: Iterable[str], before: datetime, expires: datetime, address: str | None = None) -> None:
        """Notes that sessions are in use, and puts off their end, unless that was done since ``before``.

        Raises :class:`OutcomeUnknown`.
        """
        found = {"_id": {"$in": list(ids)}, "used_date": {"$not": {"$gte": before}}}
        later = {"$cond": [{"$eq": ["$kind", "session"]}, {"$min": ["$ends_date", expires]}, "$expires_date"]}
        fields: BsonDocument = {"used_date": now(), "expires_date": later}
        if address is not None:
            fields["address"] = {"$literal": address}
        with self._connection.writing():
            await self._sessions.update_many(found, [{"$set": fields}])

    async def of(self, user: str, kind: Kind) -> Sequence[Session]:
        """Somebody's sessions or tokens, the newest first. Raises :class:`Unavailable`."""
        found = {"user": user, "kind": kind, "expires_date": {"$gt": now()}}
        with self._connection.reading():
            return [_session_of(one) async for one in self._sessions.find(found).sort("created_date", -1)]

    async def confirm(self, id: str) -> None:
        """Record that the user proved the password in a session just now. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._sessions.update_one({"_id": id}, {"$set": {"proven_date": now()}})

    async def enter_era(self, id: str, era: int) -> None:
        """Takes a session along into an era. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._sessions.update_one({"_id": id}, {"$set": {"era": era}})

    async def end(
        self, user: str, kind: Kind | None = None, id: str | None = None, but: str | None = None
    ) -> Sequence[str]:
        """Ends somebody's sessions: of a kind, the one with an id, or all but one. Returns the ids of those that ended.

        Raises :class:`OutcomeUnknown`.
        """
        found: BsonDocument = {"user": user}
        if kind is not None:
            found["kind"] = kind
        if id is not None:
            found["_id"] = id
        elif but is not None:
            found["_id"] = {"$ne": but}
        with self._connection.writing():
            ids: list[str] = [one["_id"] async for one in self._sessions.find(found, {"_id": True})]
            await self._sessions.delete_many({"_id": {"$in": ids}})
        return ids
