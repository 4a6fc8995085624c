"""The writes of notes, each an atomic update of one document that also keeps the revision; and single reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from realtime.auth.permissions import Access, Key, NoteAccess, key_of
from realtime.core.turns import Turns
from realtime.errors import IdsTaken, OutcomeUnknown, Unavailable
from realtime.notes.models import Action, NoteChange, size_of
from realtime.notes.preconditions import KEPT_OPERATIONS, AllBut, Versions
from realtime.notes.snippets import folded
from realtime.store.batcher import Batcher
from realtime.store.bson_mapping import (
    LIVE,
    NOTE,
    RECORD,
    STATE,
    TRASHED,
    BsonDocument,
    NoteState,
    Record,
    access_of,
    change_of,
    now,
    open_to,
    record_of,
    shared,
    state_of,
)
from realtime.store.connection import MongoConnection
from realtime.store.note_updates import NoteUpdate, NoteUpdates
from realtime.store.searched_text import searched_part
from realtime.store.sizes import SIZE
from realtime.store.texts import Row, edit_of

if TYPE_CHECKING:
    from realtime.store.history import History

log = logging.getLogger(__name__)

T = TypeVar("T")

Dates = tuple[datetime | None, datetime | None]


class NoteStore:
    """The notes of one database. Every write is acknowledged at ``w: majority, j: true`` or fails."""

    def __init__(self, connection: MongoConnection, history: History) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._counters = connection.database.counters
        self._turns = Turns()
        self._updates = NoteUpdates(connection, history)
        self._ids: Batcher[object, int] = Batcher(
            self._some_ids, id, share=False, timeout=connection.write_timeout, error=OutcomeUnknown
        )
        reads: dict[str, Any] = {"share": True, "timeout": connection.read_timeout, "error": Unavailable}
        self._reads = Batcher(self._find, int, **reads)
        self._states = Batcher(self._find_states, int, **reads)

    async def reserve(self, count: int) -> int:
        """Takes the next ids, and returns the first of them. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            counter = await self._counters.find_one_and_update(
                {"_id": "notes"}, {"$inc": {"value": count}}, upsert=True, return_document=ReturnDocument.AFTER
            )
        last: int = counter["value"]
        return last - count + 1

    async def _some_ids(self, wanted: Sequence[object]) -> list[int | Exception]:
        first = await self.reserve(len(wanted))
        return list(range(first, first + len(wanted)))

    async def reserve_up_to(self, id: int) -> None:
        """Lets the next ids be above this one. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._counters.update_one({"_id": "notes"}, {"$max": {"value": id}}, upsert=True)

    async def taken(self, ids: Collection[int]) -> set[int]:
        """Which of these ids are or were those of a note. Raises :class:`Unavailable`."""
        with self._connection.reading():
            documents = await self._notes.find({"_id": {"$in": list(ids)}}, {"_id": True}).to_list(None)
        return {document["_id"] for document in documents}

    async def create(
        self,
        fields: Mapping[str, Any],
        token: str | None,
        action: Action = "create",
        author: str | None = None,
        *,
        dates: Dates = (None, None),
    ) -> NoteChange | None:
        """Inserts a note under the next id, its author's own.

        ``None`` if an operation with this token made one already. Raises :class:`OutcomeUnknown`.
        """
        while True:
            id = await self._ids.put(object())
            try:
                return await self.insert(id, fields, token, action, author, dates=dates)
            except IdsTaken:
                log.warning("the next id is taken, trying the one after", extra={"id": id})

    async def insert(
        self,
        id: int,
        fields: Mapping[str, Any],
        token: str | None,
        action: Action,
        author: str | None = None,
        *,
        dates: Dates = (None, None),
    ) -> NoteChange | None:
        """Inserts a note under an id; otherwise as :meth:`create`. Raises :class:`IdsTaken`.

        ``dates`` are when it was created and updated elsewhere. Its first revision has the time of the insert.
        """
        if token is not None:
            # Only the unique index keeps a repeated creation from making a second note.
            await self._connection.until_prepared(OutcomeUnknown)
        words, wordy = await searched_part(fields["content"])
        moment = now()
        created, updated = dates
        document: BsonDocument = {
            "_id": id,
            **fields,
            "title_key": folded(fields["title"]),
            "version": 1,
            "created_date": created or updated or moment,
            "updated_date": max(updated or moment, created or updated or moment),
            "deleted": False,
            "dirty": True,
            "size": size_of(fields),
            "operations": [] if token is None else [token],
            "recent": [
                {
                    "version": 1,
                    "date": moment,
                    "author": author,
                    "action": action,
                    "changed": [],
                    "text_version": 1,
                    **fields,
                    **({} if token is None else {"token": token}),
                }
            ],
            "text_version": 1,
            "words": words,
            "words_version": 1,
        }
        if token is not None:
            document["origin"] = token
        if author is not None:
            document |= shared(Access(author))
        async with self._turn(wordy, author or id):
            with self._connection.writing():
                try:
                    await self._notes.insert_one(document)
                except DuplicateKeyError as error:
                    if "origin" in (error.details or {}).get("keyPattern", {}):
                        return None
                    raise IdsTaken([id]) from None
        return change_of(document)

    async def update(
        self,
        id: int,
        fields: Mapping[str, Any],
        versions: Versions,
        token: str | None,
        action: Action = "update",
        *,
        lineage: str | None = None,
        edit: Row | None = None,
        **entry: Any,
    ) -> NoteChange | None:
        """Sets fields of a live note, one version on. What else its revision is to tell goes into ``entry``.

        A content is written only if the note's shared text is this ``lineage`` (``None``: it has none); ``edit`` does
        to that text what the write does to the content.

        ``None``, with nothing written, if there is none, it is at none of these versions, or this token was applied.
        Raises :class:`OutcomeUnknown`, :class:`TooManyPendingRevisions`.
        """
        condition = {**LIVE, "lineage": lineage} if "content" in fields else LIVE
        state: BsonDocument = {"updated_date": now()}
        if edit is not None:
            state["edited"] = edit.id
            state["edits"] = {"$concatArrays": [{"$ifNull": ["$edits", []]}, {"$literal": [edit_of(edit)]}]}
        return await self._advance(id, condition, fields, state, versions, token, action, together=True, **entry)

    async def owned(self, owner: str, limit: int) -> Mapping[int, Access]:
        """Return live notes of one owner, and who may do what with each. Raises :class:`Unavailable`."""
        found = {**LIVE, "readers": key_of(owner), "access.owner": owner}
        with self._connection.reading():
            cursor = self._notes.find(found, {"access": True}, hint="opened_by_id", limit=limit)
            return {document["_id"]: access_of(document) async for document in cursor}

    async def share(
        self, id: int, access: Access, version: int, token: str | None, author: str | None
    ) -> NoteChange | None:
        """Says who may do what with a live note that is at a version, one version on; otherwise as :meth:`update`."""
        state = {name: {"$literal": value} for name, value in shared(access).items()}
        return await self._advance(id, LIVE, {}, state, {version}, token, "share", author=author, date=now())

    async def delete(
        self, id: int, versions: Versions, token: str | None, author: str | None = None
    ) -> NoteChange | None:
        """Moves a live note into the trash, one version on; otherwise as :meth:`update`."""
        state = {"deleted": True, "deleted_date": now()}
        return await self._advance(id, LIVE, {}, state, versions, token, "delete", author=author)

    async def undelete(
        self, id: int, versions: Versions, token: str | None, author: str | None = None
    ) -> NoteChange | None:
        """Takes a note out of the trash, one version on; otherwise as :meth:`update`."""
        state = {"deleted": False, "deleted_date": "$$REMOVE", "updated_date": now()}
        return await self._advance(id, TRASHED, {}, state, versions, token, "undelete", author=author)

    async def purge(self, id: int, versions: Versions, token: str | None) -> NoteChange | None:
        """Empties a note in the trash for good, one version on: of it, only its id and version stay.

        The id is never another note's: clients remember versions by id. Otherwise as :meth:`update`; what is archived
        of the note goes when it is archived the next time.
        """
        gone = ("deleted_date", "keyframe", "lineage", "edits", "edited")
        state = {**dict.fromkeys(gone, "$$REMOVE"), "purged": True}
        empty = {"title": "", "description": "", "content": "", "tags": []}
        return await self._advance(id, TRASHED, empty, state, versions, token, None)

    async def _advance(
        self,
        id: int,
        condition: BsonDocument,
        fields: Mapping[str, Any],
        state: BsonDocument,
        versions: Versions,
        token: str | None,
        action: Action | None,
        *,
        together: bool = False,
        **entry: Any,
    ) -> NoteChange | None:
        if isinstance(versions, range):
            condition = {**condition, "version": {"$gte": versions.start, "$lt": versions.stop}}
        elif isinstance(versions, AllBut):
            condition = {**condition, "version": {"$nin": list(versions.versions)}}
        elif versions is not None:
            condition = {**condition, "version": {"$in": list(versions)}}
        if token is not None:
            condition = {**condition, "operations": {"$ne": token}}
        mark = ObjectId().binary
        pipeline = _advanced(fields, state, token, mark, action, entry)
        wordy = False
        if "content" in fields:
            words, wordy = await searched_part(fields["content"])
            whole = len(words) == len(fields["content"])
            pipeline.append({"$set": {"words": "$content" if whole else {"$literal": words}}})
            pipeline.append({"$set": {"words_version": "$text_version"}})
        update = NoteUpdate(id, condition, pipeline, mark)
        async with self._turn(wordy, entry.get("author") or id):
            document = await (self._updates.put(update) if together and not wordy else self._updates.alone(update))
        return None if document is None else change_of(document)

    @asynccontextmanager
    async def _turn(self, wordy: bool, writer: Hashable) -> AsyncGenerator[None]:
        """Wait for a turn to write a content with many different words: one at a time, and writers in turn.

        After each one, MongoDB belongs to the other writes for as long. Raises :class:`Unavailable`.
        """
        async with AsyncExitStack() as stack:
            if wordy:
                try:
                    async with asyncio.timeout(self._connection.write_timeout):
                        await stack.enter_async_context(self._turns.turn(writer))
                except TimeoutError:
                    raise Unavailable from None
            yield

    async def state(self, id: int) -> NoteState | None:
        """What is asked of a note most, its text left aside, if there is or was one. Raises :class:`Unavailable`.

        By its id MongoDB finds it faster than an index that holds all of it is read.
        """
        return await self._states.put(id)

    async def _find_states(self, ids: Sequence[int]) -> list[NoteState | Exception | None]:
        with self._connection.reading():
            documents = await self._notes.find({"_id": {"$in": list(ids)}}, STATE).to_list(None)
        return _each(ids, documents, state_of)

    async def standing(self, id: int) -> NoteAccess | None:
        """Who may do what with a note, if there is or was one. Raises :class:`Unavailable`."""
        state = await self.state(id)
        return None if state is None else state.standing

    async def opened_by(self, key: Key) -> int | None:
        """A live note that a key opens. Raises :class:`Unavailable`."""
        with self._connection.reading():
            document = await self._notes.find_one({**LIVE, **open_to(frozenset({key}))}, {"_id": True})
        return None if document is None else int(document["_id"])

    async def find(self, id: int) -> Record | None:
        """The note, deleted or not. Raises :class:`Unavailable`."""
        return await self._reads.put(id)

    async def _find(self, ids: Sequence[int]) -> list[Record | Exception | None]:
        return _each(ids, await self._records({"_id": {"$in": list(ids)}}), record_of)

    async def find_origin(self, token: str) -> Record | None:
        """The note that the operation with this token created. Raises :class:`Unavailable`."""
        return next(map(record_of, await self._records({"origin": token})), None)

    async def _records(self, condition: BsonDocument) -> list[BsonDocument]:
        with self._connection.reading():
            found: list[BsonDocument] = await self._notes.find(condition, RECORD).to_list(None)
        return found

    async def dirty(self, limit: int) -> dict[int, int]:
        """Notes whose last change may not be published: id and version. Raises :class:`Unavailable`."""
        with self._connection.reading():
            documents = await self._notes.find({"dirty": True}, {"version": True}).limit(limit).to_list(limit)
        return {document["_id"]: document["version"] for document in documents}

    async def changes(self, ids: Collection[int]) -> list[NoteChange]:
        """The last change of each of these notes. Raises :class:`Unavailable`."""
        with self._connection.reading():
            documents = await self._notes.find({"_id": {"$in": list(ids)}}, NOTE).to_list(None)
        changes = []
        for document in documents:
            try:
                changes.append(change_of(document))
            except KeyError:
                log.exception("this document is no note", extra={"id": document["_id"]})
        return changes


def _each(
    ids: Sequence[int], documents: Iterable[BsonDocument], read: Callable[[BsonDocument], T]
) -> list[T | Exception | None]:
    """What is read of the documents with these ids."""
    found: dict[int, T | Exception] = {}
    for document in documents:
        try:
            found[document["_id"]] = read(document)
        except KeyError as error:  # this one is no note, and the others are
            found[document["_id"]] = error
    return [found.get(id) for id in ids]


def _advanced(
    fields: Mapping[str, Any],
    state: BsonDocument,
    token: str | None,
    mark: bytes,
    action: Action | None,
    entry: Mapping[str, Any],
) -> list[BsonDocument]:
    """The update to the next version, its revision included; without an action it forgets all revisions.

    It is a pipeline, so that one atomic command knows the version, and what really changed.
    """
    version = {"$add": ["$version", 1]}
    new = {name: f"$incoming.{name}" for name in fields}
    changed = {name: {"$ne": [f"${name}", value]} for name, value in new.items()}
    text_version: Any = "$text_version"
    if "content" in new:
        text_version = {"$cond": [changed["content"], version, "$text_version"]}
    revision = {
        "version": version,
        "date": {"$literal": entry.get("date") or state.get("updated_date") or state.get("deleted_date")},
        "author": None,
        "action": action,
        **{name: {"$literal": value} for name, value in entry.items()},
        "changed": {"$concatArrays": [[], *({"$cond": [test, [name], []]} for name, test in changed.items())]},
        "title": new.get("title", "$title"),
        "description": new.get("description", "$description"),
        "tags": new.get("tags", "$tags"),
        "text_version": text_version,
        "mark": mark,
    }
    if token is not None:
        revision["token"] = token
    if "content" in new:
        revision["content"] = {"$cond": [changed["content"], new["content"], "$$REMOVE"]}
    values = dict(fields)
    if "title" in fields:
        values["title_key"] = folded(fields["title"])
    update = {
        **{name: f"$incoming.{name}" for name in values},
        **state,
        "version": version,
        "dirty": True,
        "text_version": text_version,
        "recent": [] if action is None else {"$concatArrays": ["$recent", [revision]]},
    }
    if token is not None:
        update["operations"] = {"$slice": [{"$concatArrays": ["$operations", [token]]}, -KEPT_OPERATIONS]}
    # The values go in once, and as values: a text that starts with a dollar is no expression.
    pipeline: list[BsonDocument] = [
        {"$set": {"incoming": {"$literal": values}}},
        {"$set": update},
        {"$unset": "incoming"},
    ]
    return [*pipeline, {"$set": {"size": SIZE}}] if fields else pipeline
