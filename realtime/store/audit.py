"""Who did what to accounts and notes, and who tried to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from bson import ObjectId
from pymongo import ASCENDING, DESCENDING, IndexModel

from realtime.auth.users import AuditAction, AuditEntry
from realtime.store.bson_mapping import BsonDocument, now
from realtime.store.connection import MongoConnection

KEPT_DAYS = 90


class Audit:
    """The entries of one database, each kept for :data:`KEPT_DAYS`."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._entries = connection.database.audit

    async def prepare(self) -> None:
        """Makes the indexes."""
        by = [IndexModel([(field, ASCENDING), ("_id", DESCENDING)], name=f"by {field}") for field in ("who", "action")]
        expiry = IndexModel([("date", ASCENDING)], name="expiry", expireAfterSeconds=KEPT_DAYS * 24 * 3600)
        await self._entries.create_indexes([expiry, *by])

    async def add(
        self,
        action: AuditAction,
        who: str | None,
        *,
        target: str | None = None,
        address: str | None = None,
        ok: bool = True,
    ) -> None:
        """Keeps an entry. Raises :class:`OutcomeUnknown`."""
        entry = {"date": now(), "who": who, "action": action, "target": target, "address": address, "ok": ok}
        with self._connection.writing():
            await self._entries.insert_one(entry)

    async def add_many(self, entries: Sequence[AuditEntry]) -> None:
        """Keeps entries; their ids are made here. Raises :class:`OutcomeUnknown`."""
        documents = [asdict(entry) for entry in entries]
        for document in documents:
            del document["id"]
        with self._connection.writing():
            await self._entries.insert_many(documents, ordered=False)

    async def page(
        self, limit: int, *, after: str | None = None, who: str | None = None, action: AuditAction | None = None
    ) -> Sequence[AuditEntry]:
        """Entries, the newest first, from before the one with an id on. Raises :class:`Unavailable`."""
        found: BsonDocument = {name: value for name, value in (("who", who), ("action", action)) if value is not None}
        if after is not None:
            found["_id"] = {"$lt": ObjectId(after)}
        with self._connection.reading():
            documents = await self._entries.find(found).sort("_id", DESCENDING).to_list(limit)
        return [AuditEntry(id=str(document.pop("_id")), **document) for document in documents]
