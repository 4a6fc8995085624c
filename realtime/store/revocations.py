"""Rights that ended: what every worker reads again and again, and acts upon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from bson import ObjectId
from pymongo import UpdateOne

from realtime.store.connection import MongoConnection

Kind = Literal["session", "note", "promoted", "demoted"]
Subject = tuple[Kind, str | int]
"""The rights that changed: those of a session, by its id, which ended or whose user is or is no longer an
administrator; or some of those to a note."""
KEPT = 120
"""Seconds for which a revocation is kept, far longer than a worker may take to read it."""


class RevocationStore:
    """The revocations of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._revocations = connection.database.revocations

    async def prepare(self) -> None:
        """Makes the index."""
        await self._revocations.create_index("at", name="expiry", expireAfterSeconds=KEPT)

    async def add(self, subjects: Iterable[Subject]) -> None:
        """Tells every worker that rights ended. Raises :class:`OutcomeUnknown`."""
        # MongoDB's own clock says until when they are kept: that of this host may be any time.
        news = [
            UpdateOne(
                {"_id": ObjectId()}, {"$set": {"kind": kind, "of": of}, "$currentDate": {"at": True}}, upsert=True
            )
            for kind, of in subjects
        ]
        if news:
            with self._connection.writing():
                await self._revocations.bulk_write(news, ordered=False)

    async def all(self) -> Mapping[str, Subject]:
        """All that are kept, by id, in the order of their times. Raises :class:`Unavailable`."""
        with self._connection.reading():
            found = self._revocations.find().sort([("at", 1), ("_id", 1)])
            return {str(one["_id"]): (one["kind"], one["of"]) async for one in found}
