"""User accounts. The name is the id: it never changes and is never reused.

The document of a deleted account is kept, without personal data, so that the name stays reserved.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pymongo import ASCENDING, ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from realtime.auth.users import DeletedAccount, FailedSignInCount, UserAccount
from realtime.errors import LastAdmin, NameTaken
from realtime.store.bson_mapping import BsonDocument, now
from realtime.store.connection import MongoConnection

NOT_DELETED: BsonDocument = {"deleted": {"$exists": False}}
"""The condition for accounts that are not deleted."""


def user_of(document: BsonDocument) -> UserAccount:
    """Return the user in a document."""
    return UserAccount(
        document["_id"],
        document["hash"],
        document["admin"],
        document["disabled"],
        document["created_date"],
        document["eras"],
    )


def _document(name: str, hash: str, *, admin: bool) -> BsonDocument:
    return {
        "_id": name,
        "hash": hash,
        "admin": admin,
        "disabled": False,
        "created_date": now(),
        "eras": {"session": 0, "token": 0},
    }


def _reported(document: BsonDocument | None) -> FailedSignInCount | None:
    reported = None if document is None else document.get("reported")
    return None if reported is None else FailedSignInCount(reported["count"], reported["last_date"])


class UserStore:
    """Stores the user accounts of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._users = connection.database.people
        self._counters = connection.database.counters

    async def prepare(self) -> None:
        """Create the indexes: a unique one for the first user, and one for deleted accounts that are unsettled."""
        await self._users.create_index(
            [("first", ASCENDING)], name="first", unique=True, partialFilterExpression={"first": True}
        )
        # Created in advance, since concurrent transactions that insert the same document fail.
        await self._counters.update_one({"_id": "admins"}, {"$setOnInsert": {"changes": 0}}, upsert=True)
        await self._users.create_index(
            [("unsettled", ASCENDING)], name="unsettled", partialFilterExpression={"unsettled": True}
        )

    async def any(self) -> bool:
        """Return whether there is an account, even a deleted one. Raises :class:`Unavailable`."""
        with self._connection.reading():
            return await self._users.find_one({}, {"_id": True}) is not None

    async def add(self, name: str, hash: str, *, admin: bool) -> UserAccount:
        """Add a user. The first user of the database becomes an administrator.

        Raises :class:`NameTaken` or :class:`OutcomeUnknown`.
        """
        await self._connection.until_prepared()
        document = _document(name, hash, admin=admin)
        attempts = [document]
        if not await self.any():
            attempts.insert(0, {**document, "admin": True, "first": True})
        with self._connection.writing():
            for attempt in attempts:
                try:
                    await self._users.insert_one(attempt)
                except DuplicateKeyError as error:
                    if "first" not in (error.details or {}).get("keyPattern", {}):
                        raise NameTaken from None
                else:
                    return user_of(attempt)
        raise NameTaken

    async def add_first(self, name: str, hash: str) -> UserAccount | None:
        """Add the first user, an administrator, or return ``None`` if there already is a first user.

        Raises :class:`OutcomeUnknown`.
        """
        await self._connection.until_prepared()
        document = {**_document(name, hash, admin=True), "first": True}
        with self._connection.writing():
            try:
                await self._users.insert_one(document)
            except DuplicateKeyError:
                return None
        return user_of(document)

    async def get(self, name: str) -> UserAccount | None:
        """Return a user that is not deleted. Raises :class:`Unavailable`."""
        with self._connection.reading():
            document = await self._users.find_one({"_id": name, **NOT_DELETED})
        return None if document is None else user_of(document)

    async def existing_names(self, names: Collection[str]) -> set[str]:
        """Return the names among these that have an account. Raises :class:`Unavailable`."""
        condition = {"_id": {"$in": list(names)}, **NOT_DELETED}
        with self._connection.reading():
            return {document["_id"] async for document in self._users.find(condition, {"_id": True})}

    async def all(self) -> Sequence[UserAccount]:
        """Return all users, sorted by name. Raises :class:`Unavailable`."""
        with self._connection.reading():
            return [user_of(document) async for document in self._users.find(NOT_DELETED).sort("_id")]

    async def rehash(self, name: str, before: str, hash: str) -> None:
        """Replace the hash ``before`` with a new hash of the same password. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._users.update_one({"_id": name, "hash": before}, {"$set": {"hash": hash}})

    async def add_failed_sign_ins(self, failed: Mapping[str, FailedSignInCount]) -> None:
        """Add failed sign-ins to those since the user's last visit, by name. Raises :class:`OutcomeUnknown`."""
        updates = [
            UpdateOne(
                {"_id": name},
                {"$inc": {"failed.count": added.count}, "$max": {"failed.last_date": added.last_date}},
            )
            for name, added in failed.items()
        ]
        with self._connection.writing():
            await self._users.bulk_write(updates, ordered=False)

    async def begin_visit(self, name: str) -> FailedSignInCount | None:
        """Start a new count of failed sign-ins, and return the previous one, which is kept to be reported.

        Raises :class:`OutcomeUnknown`.
        """
        # $set with a missing field removes the target field.
        stages: list[BsonDocument] = [{"$set": {"reported": "$failed"}}, {"$unset": "failed"}]
        with self._connection.writing():
            document = await self._users.find_one_and_update(
                {"_id": name}, stages, return_document=ReturnDocument.AFTER
            )
        return _reported(document)

    async def failed_sign_ins(self, name: str) -> FailedSignInCount | None:
        """Return the failed sign-ins to report to a user. Raises :class:`Unavailable`."""
        with self._connection.reading():
            return _reported(await self._users.find_one({"_id": name}, {"reported": True}))

    async def acknowledge_failed_sign_ins(self, name: str) -> None:
        """Forget the failed sign-ins that were reported. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._users.update_one({"_id": name}, {"$unset": {"reported": True}})

    async def change_password(self, name: str, before: str | None, hash: str, *, tokens: bool) -> bool:
        """Set the password of a user, and end all sign-ins by incrementing their generation.

        Args:
            name: The name of the user.
            before: The expected hash of the current password; ``None`` to skip the check.
            hash: The hash of the new password.
            tokens: Whether to also end the API tokens.

        Returns:
            Whether there was such a user.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
        """
        condition = {"_id": name, **NOT_DELETED} if before is None else {"_id": name, "hash": before}
        generations = {"eras.session": 1, **({"eras.token": 1} if tokens else {})}
        with self._connection.writing():
            result = await self._users.update_one(condition, {"$set": {"hash": hash}, "$inc": generations})
        return bool(result.matched_count)

    async def set_disabled(self, name: str, disabled: bool, *, keep_admin: bool) -> UserAccount | None:
        """Disable a user, which ends all sign-ins and API tokens, or enable one.

        Raises :class:`OutcomeUnknown`, or with ``keep_admin``, :class:`LastAdmin` instead of disabling the last
        administrator.
        """
        change: BsonDocument = {"$set": {"disabled": disabled}}
        if disabled:
            change["$inc"] = {"eras.session": 1, "eras.token": 1}
        return await self._change(name, change, keep_admin=keep_admin and disabled)

    async def set_admin(self, name: str, admin: bool) -> UserAccount | None:
        """Grant or remove administrator rights.

        Raises :class:`OutcomeUnknown`, or :class:`LastAdmin` instead of removing the rights of the last administrator.
        """
        return await self._change(name, {"$set": {"admin": admin}}, keep_admin=not admin)

    async def delete(self, name: str, heir: str | None, by: str | None) -> UserAccount | None:
        """Delete an account permanently, except for its name, and mark its notes as unsettled.

        Args:
            name: The name of the user.
            heir: The name of the user who gets the notes, if any.
            by: The name of the administrator who deletes the account, if known.

        Raises:
            LastAdmin: The account is the last administrator.
            OutcomeUnknown: MongoDB did not confirm the write.
        """
        deleted = {"date": now(), "heir": heir, "by": by}
        change: BsonDocument = {
            "$set": {"deleted": deleted, "unsettled": True, "hash": "", "admin": False, "disabled": True},
            "$inc": {"eras.session": 1, "eras.token": 1},
            "$unset": {"failed": True, "reported": True},
        }
        return await self._change(name, change, keep_admin=True)

    async def _change(self, name: str, change: BsonDocument, *, keep_admin: bool) -> UserAccount | None:
        """Change a user and return it. With ``keep_admin``, raise :class:`LastAdmin` for the last administrator."""

        async def work(session: Any) -> UserAccount | None:
            if keep_admin:
                # All such changes write to this document, so that one of two concurrent ones conflicts and is retried.
                await self._counters.update_one({"_id": "admins"}, {"$inc": {"changes": 1}}, session=session)
                admins = {"admin": True, "disabled": False, **NOT_DELETED}
                cursor = self._users.find(admins, {"_id": True}, session=session).limit(2)
                if [document["_id"] async for document in cursor] == [name]:
                    raise LastAdmin(name)
            document = await self._users.find_one_and_update(
                {"_id": name, **NOT_DELETED}, change, return_document=ReturnDocument.AFTER, session=session
            )
            return None if document is None else user_of(document)

        if not keep_admin:
            with self._connection.writing():
                return await work(None)
        return await self._connection.transaction(work)

    async def unsettled(self) -> Sequence[DeletedAccount]:
        """Return the deleted accounts whose notes are still to be settled. Raises :class:`Unavailable`."""
        with self._connection.reading():
            cursor = self._users.find({"unsettled": True}, {"deleted": True}, hint="unsettled")
            return [DeletedAccount(document["_id"], **document["deleted"]) async for document in cursor]

    async def mark_settled(self, name: str) -> None:
        """Record that the notes of a deleted account are settled. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._users.update_one({"_id": name}, {"$unset": {"unsettled": True}})

    async def secret(self) -> str:
        """Return the secret that all workers of this database share; the first call creates it.

        Raises :class:`OutcomeUnknown`.
        """
        with self._connection.writing():
            document = await self._counters.find_one_and_update(
                {"_id": "secret"},
                {"$setOnInsert": {"value": secrets.token_urlsafe(48)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        value: str = document["value"]
        return value
