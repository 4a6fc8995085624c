"""The accounts. A name is an id: it never changes, and is never given to somebody else.

Of a deleted account the document stays, with nothing in it but that, so that nobody can take the name.
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

THERE: BsonDocument = {"deleted": {"$exists": False}}
"""Accounts that are not deleted."""


def person_of(document: BsonDocument) -> UserAccount:
    """A user as it is stored."""
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
    """The users of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._people = connection.database.people
        self._counters = connection.database.counters

    async def prepare(self) -> None:
        """Makes the index that lets one user only be the first, and that of deleted accounts to be settled."""
        await self._people.create_index(
            [("first", ASCENDING)], name="first", unique=True, partialFilterExpression={"first": True}
        )
        # Here, since two transactions that insert it would fail.
        await self._counters.update_one({"_id": "admins"}, {"$setOnInsert": {"changes": 0}}, upsert=True)
        await self._people.create_index(
            [("unsettled", ASCENDING)], name="unsettled", partialFilterExpression={"unsettled": True}
        )

    async def any(self) -> bool:
        """Whether anybody has an account. Raises :class:`Unavailable`."""
        with self._connection.reading():
            return await self._people.find_one({}, {"_id": True}) is not None

    async def add(self, name: str, hash: str, *, admin: bool) -> UserAccount:
        """Adds a user; the very first one becomes admin. Raises :class:`NameTaken`, :class:`OutcomeUnknown`."""
        await self._connection.until_prepared()
        document = _document(name, hash, admin=admin)
        attempts = [document]
        if not await self.any():
            attempts.insert(0, {**document, "admin": True, "first": True})
        with self._connection.writing():
            for attempt in attempts:
                try:
                    await self._people.insert_one(attempt)
                except DuplicateKeyError as error:
                    if "first" not in (error.details or {}).get("keyPattern", {}):
                        raise NameTaken from None
                else:
                    return person_of(attempt)
        raise NameTaken

    async def add_first(self, name: str, hash: str) -> UserAccount | None:
        """Add the very first user, an admin, or return ``None`` if somebody else was first.

        Raises :class:`OutcomeUnknown`.
        """
        await self._connection.until_prepared()
        document = {**_document(name, hash, admin=True), "first": True}
        with self._connection.writing():
            try:
                await self._people.insert_one(document)
            except DuplicateKeyError:
                return None
        return person_of(document)

    async def get(self, name: str) -> UserAccount | None:
        """A user. Raises :class:`Unavailable`."""
        with self._connection.reading():
            document = await self._people.find_one({"_id": name, **THERE})
        return None if document is None else person_of(document)

    async def known(self, names: Collection[str]) -> set[str]:
        """Those of these names that somebody has. Raises :class:`Unavailable`."""
        found = {"_id": {"$in": list(names)}, **THERE}
        with self._connection.reading():
            return {one["_id"] async for one in self._people.find(found, {"_id": True})}

    async def all(self) -> Sequence[UserAccount]:
        """All users, by name. Raises :class:`Unavailable`."""
        with self._connection.reading():
            return [person_of(document) async for document in self._people.find(THERE).sort("_id")]

    async def rehash(self, name: str, before: str, hash: str) -> None:
        """Replaces a hash by another one of the same password. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._people.update_one({"_id": name, "hash": before}, {"$set": {"hash": hash}})

    async def add_failed_sign_ins(self, failed: Mapping[str, FailedSignInCount]) -> None:
        """Add failed sign-ins to those since the user's last visit, by name. Raises :class:`OutcomeUnknown`."""
        updates = [
            UpdateOne(
                {"_id": name},
                {"$inc": {"failed.count": one.count}, "$max": {"failed.last_date": one.last_date}},
            )
            for name, one in failed.items()
        ]
        with self._connection.writing():
            await self._people.bulk_write(updates, ordered=False)

    async def begin_visit(self, name: str) -> FailedSignInCount | None:
        """Count failed sign-ins from now on, and return those since the last visit, which are kept to be reported.

        Raises :class:`OutcomeUnknown`.
        """
        # A field that is set to a missing one is removed.
        stages: list[BsonDocument] = [{"$set": {"reported": "$failed"}}, {"$unset": "failed"}]
        with self._connection.writing():
            document = await self._people.find_one_and_update(
                {"_id": name}, stages, return_document=ReturnDocument.AFTER
            )
        return _reported(document)

    async def failed_sign_ins(self, name: str) -> FailedSignInCount | None:
        """Return the failed sign-ins to report to a user. Raises :class:`Unavailable`."""
        with self._connection.reading():
            return _reported(await self._people.find_one({"_id": name}, {"reported": True}))

    async def acknowledge_failed_sign_ins(self, name: str) -> None:
        """Forget the failed sign-ins that were reported. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._people.update_one({"_id": name}, {"$unset": {"reported": True}})

    async def change_password(self, name: str, before: str | None, hash: str, *, tokens: bool) -> bool:
        """Sets a password, of which the hash is ``before`` if that is given, and ends the era of the sessions.

        With ``tokens`` that of the tokens, too. Returns whether there was such a user. Raises :class:`OutcomeUnknown`.
        """
        found = {"_id": name, **THERE} if before is None else {"_id": name, "hash": before}
        ended = {"eras.session": 1, **({"eras.token": 1} if tokens else {})}
        with self._connection.writing():
            changed = await self._people.update_one(found, {"$set": {"hash": hash}, "$inc": ended})
        return bool(changed.matched_count)

    async def set_disabled(self, name: str, disabled: bool, *, keep_admin: bool) -> UserAccount | None:
        """Disable a user, which ends both eras, or enable one.

        With ``keep_admin`` the last administrator is not disabled. Raises :class:`LastAdmin`, :class:`OutcomeUnknown`.
        """
        change: BsonDocument = {"$set": {"disabled": disabled}}
        if disabled:
            change["$inc"] = {"eras.session": 1, "eras.token": 1}
        return await self._change(name, change, keep_admin=keep_admin and disabled)

    async def set_admin(self, name: str, admin: bool) -> UserAccount | None:
        """Make a user an administrator, or no longer one.

        Raises :class:`LastAdmin`, :class:`OutcomeUnknown`.
        """
        return await self._change(name, {"$set": {"admin": admin}}, keep_admin=not admin)

    async def delete(self, name: str, heir: str | None, by: str | None) -> UserAccount | None:
        """Delete an account for good, all but its name. Its notes are still to be settled.

        Raises :class:`LastAdmin`, :class:`OutcomeUnknown`.
        """
        deleted = {"date": now(), "heir": heir, "by": by}
        change: BsonDocument = {
            "$set": {"deleted": deleted, "unsettled": True, "hash": "", "admin": False, "disabled": True},
            "$inc": {"eras.session": 1, "eras.token": 1},
            "$unset": {"failed": True, "reported": True},
        }
        return await self._change(name, change, keep_admin=True)

    async def _change(self, name: str, change: BsonDocument, *, keep_admin: bool) -> UserAccount | None:
        """Change a user, but with ``keep_admin`` not the last administrator."""

        async def work(session: Any) -> UserAccount | None:
            if keep_admin:
                # All such changes write to this document, so that of two at the same time one is repeated.
                await self._counters.update_one({"_id": "admins"}, {"$inc": {"changes": 1}}, session=session)
                admins = {"admin": True, "disabled": False, **THERE}
                found = self._people.find(admins, {"_id": True}, session=session).limit(2)
                if [one["_id"] async for one in found] == [name]:
                    raise LastAdmin(name)
            document = await self._people.find_one_and_update(
                {"_id": name, **THERE}, change, return_document=ReturnDocument.AFTER, session=session
            )
            return None if document is None else person_of(document)

        if not keep_admin:
            with self._connection.writing():
                return await work(None)
        return await self._connection.transaction(work)

    async def unsettled(self) -> Sequence[DeletedAccount]:
        """Return the deleted accounts whose notes are still to be settled. Raises :class:`Unavailable`."""
        with self._connection.reading():
            found = self._people.find({"unsettled": True}, {"deleted": True}, hint="unsettled")
            return [DeletedAccount(one["_id"], **one["deleted"]) async for one in found]

    async def settled(self, name: str) -> None:
        """Record that the notes of a deleted account are settled. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._people.update_one({"_id": name}, {"$unset": {"unsettled": True}})

    async def secret(self) -> str:
        """A secret that all workers on this database share, made the first time. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            document = await self._counters.find_one_and_update(
                {"_id": "secret"},
                {"$setOnInsert": {"value": secrets.token_urlsafe(48)}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        value: str = document["value"]
        return value
