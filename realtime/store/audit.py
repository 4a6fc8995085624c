"""The audit log: actions on accounts and notes, including failed attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from bson import ObjectId
from pymongo import ASCENDING, DESCENDING, IndexModel

from realtime.auth.users import AuditAction, AuditEntry
from realtime.store.bson_mapping import BsonDocument, now
from realtime.store.connection import MongoConnection

RETENTION_DAYS = 90


class Audit:
    """Stores and reads the audit log of one database. Entries are deleted after :data:`RETENTION_DAYS`."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._entries = connection.database.audit

    async def prepare(self) -> None:
        """Create the indexes."""
        filters = [
            IndexModel([(field, ASCENDING), ("_id", DESCENDING)], name=f"by {field}") for field in ("who", "action")
        ]
        expiry = IndexModel([("date", ASCENDING)], name="expiry", expireAfterSeconds=RETENTION_DAYS * 24 * 3600)
        await self._entries.create_indexes([expiry, *filters])

    async def add(
        self,
        action: AuditAction,
        who: str | None,
        *,
        target: str | None = None,
        address: str | None = None,
        ok: bool = True,
    ) -> None:
        """Add an entry with the current time.

        Args:
            action: The action.
            who: The name of the user who performed it, if known.
            target: The user, note or session that it affects.
            address: The IP address of the client.
            ok: Whether it succeeded.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
        """
        entry = {"date": now(), "who": who, "action": action, "target": target, "address": address, "ok": ok}
        with self._connection.writing():
            await self._entries.insert_one(entry)

    async def add_many(self, entries: Sequence[AuditEntry]) -> None:
        """Add entries under new ids. Raises :class:`OutcomeUnknown`."""
        documents = [asdict(entry) for entry in entries]
        for document in documents:
            del document["id"]
        with self._connection.writing():
            await self._entries.insert_many(documents, ordered=False)

    async def page(
        self, limit: int, *, after: str | None = None, who: str | None = None, action: AuditAction | None = None
    ) -> Sequence[AuditEntry]:
        """Return up to ``limit`` entries that are older than the entry ``after``, newest first.

        Raises :class:`Unavailable`.
        """
        condition: BsonDocument = {
            name: value for name, value in (("who", who), ("action", action)) if value is not None
        }
        if after is not None:
            condition["_id"] = {"$lt": ObjectId(after)}
        with self._connection.reading():
            documents = await self._entries.find(condition).sort("_id", DESCENDING).to_list(limit)
        return [AuditEntry(id=str(document.pop("_id")), **document) for document in documents]
