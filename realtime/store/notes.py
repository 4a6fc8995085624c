"""Writes to notes, and reads of single notes. A write is one atomic update that also stores the revision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from bson import ObjectId
from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import BulkWriteError

from realtime.auth.permissions import Access, Key, NoteAccess, key_of
from realtime.core.turns import PAUSE_FACTOR, Turns
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
    access_fields,
    access_of,
    change_of,
    now,
    open_to,
    record_of,
    state_of,
)
from realtime.store.connection import DUPLICATE_KEY, MongoConnection
from realtime.store.note_updates import NoteUpdate, NoteUpdates
from realtime.store.searched_text import searched_part
from realtime.store.sizes import SIZE
from realtime.store.texts import Row, edit_of

if TYPE_CHECKING:
    from realtime.store.history import History

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCHED_BYTES = 64 * 1024
"""Size of a new note up to which it is inserted together with others."""

Dates = tuple[datetime | None, datetime | None]
"""The dates of the creation and of the last update, where they are known."""


@dataclass(frozen=True, slots=True)
class RevisionInfo:
    """The information that a revision in the history records about a write.

    Attributes:
        action: The action.
        author: The name of the user who made the change, if known.
        details: Further fields, such as ``authors`` of typed text or the number of the ``restored`` version.
    """

    action: Action = "update"
    author: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SharedTextChange:
    """The effect of a new content on the shared text of its note.

    Attributes:
        lineage: The name of the shared text that the note must still have; ``None`` if it must have none.
        edit: The update of the shared text that corresponds to the new content, if it is not in the text already.
    """

    lineage: str | None = None
    edit: Row | None = None


@dataclass(frozen=True, slots=True)
class _Update:
    """An update of a note to its next version.

    Attributes:
        condition: The condition that the note must meet.
        fields: The new values.
        state: Other fields of the document, as expressions.
        token: The token of the idempotent request, if it is one.
        revision: The information that the revision records; ``None`` drops all revisions.
    """

    condition: BsonDocument
    fields: Mapping[str, Any]
    state: BsonDocument
    token: str | None
    revision: RevisionInfo | None


NO_SHARED_TEXT = SharedTextChange()
UPDATED = RevisionInfo()


class InsertBatcher(Batcher[BsonDocument, str | None]):
    """Batches inserts of notes."""

    def key_of(self, document: BsonDocument) -> int:
        """Return the id of the note."""
        id: int = document["_id"]
        return id


class NoteStore:
    """Reads and writes the notes of one database. Writes are acknowledged at ``w: majority, j: true``, or fail."""

    def __init__(self, connection: MongoConnection, history: History) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._counters = connection.database.counters
        self._turns = Turns(max_pause_factor=PAUSE_FACTOR)
        self._updates = NoteUpdates(connection, history)
        self._ids: Batcher[object, int] = Batcher(
            self._reserve_ids, share=False, timeout=connection.write_timeout, error=OutcomeUnknown
        )
        self._inserts: Batcher[BsonDocument, str | None] = InsertBatcher(
            self._insert, share=False, timeout=connection.write_timeout, error=OutcomeUnknown
        )
        options: dict[str, Any] = {"share": True, "timeout": connection.read_timeout, "error": Unavailable}
        self._records = Batcher(self._read_records, **options)
        self._states = Batcher(self._read_states, **options)

    async def reserve(self, count: int) -> int:
        """Reserve the next ``count`` ids, and return the first of them. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            counter = await self._counters.find_one_and_update(
                {"_id": "notes"}, {"$inc": {"value": count}}, upsert=True, return_document=ReturnDocument.AFTER
            )
        last: int = counter["value"]
        return last - count + 1

    async def _reserve_ids(self, requests: Sequence[object]) -> list[int | Exception]:
        first = await self.reserve(len(requests))
        return list(range(first, first + len(requests)))

    async def reserve_up_to(self, id: int) -> None:
        """Reserve all ids up to and including this one. Raises :class:`OutcomeUnknown`."""
        with self._connection.writing():
            await self._counters.update_one({"_id": "notes"}, {"$max": {"value": id}}, upsert=True)

    async def existing_ids(self, ids: Collection[int]) -> set[int]:
        """Return the ids among these that a note has or had. Raises :class:`Unavailable`."""
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
        """Insert a note with the next id.

        Args:
            fields: The title, description, content and tags.
            token: The token of an idempotent request, which can create only one note.
            action: The action that the first revision records.
            author: The name of the user who creates the note and becomes its owner.
            dates: The dates of the creation and of the last update, if the note is imported. The first
                revision still has the time of the insert.

        Returns:
            The change, or ``None`` if a request with this token has already created a note.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
            Unavailable: The content has many different words, and other such writes took too long. Nothing was written.
        """
        while True:
            id = await self._ids.put(object())
            try:
                return await self.insert(id, fields, token, action, author, dates=dates)
            except IdsTaken:  # for example after the restore of a backup without the counter
                last = await self._last_id()
                log.warning("the counter of note ids was behind, and was corrected", extra={"id": id, "last_id": last})
                await self.reserve_up_to(last)

    async def _last_id(self) -> int:
        """Return the highest id that a note has or had. Raises :class:`Unavailable`."""
        with self._connection.reading():
            last = await self._notes.find_one({}, {"_id": True}, sort=[("_id", DESCENDING)])
        return 0 if last is None else last["_id"]

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
        """Insert a note with this id; otherwise like :meth:`create`. Raises :class:`IdsTaken` if the id is in use."""
        if token is not None:
            # Only the unique index prevents a repeated request from creating a second note.
            await self._connection.until_prepared(OutcomeUnknown)
        words, has_many_words = await searched_part(fields["content"])
        inserted = now()
        created, updated = dates
        document: BsonDocument = {
            "_id": id,
            **fields,
            "title_key": folded(fields["title"]),
            "version": 1,
            "created_date": created or updated or inserted,
            "updated_date": max(updated or inserted, created or updated or inserted),
            "deleted": False,
            "dirty": True,
            "size": size_of(fields),
            "operations": [] if token is None else [token],
            "recent": [
                {
                    "version": 1,
                    "date": inserted,
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
            document |= access_fields(Access(author))
        async with self._write_turn(author or id, needed=has_many_words):
            is_small = document["size"] < MAX_BATCHED_BYTES and not has_many_words
            duplicate = await (self._inserts.put(document) if is_small else self._insert_alone(document))
        if duplicate is None:
            return change_of(document)
        if duplicate == "origin":
            return None
        raise IdsTaken([id])

    async def _insert_alone(self, document: BsonDocument) -> str | None:
        (result,) = await self._insert([document])
        if isinstance(result, Exception):
            raise result
        return result

    async def _insert(self, documents: Sequence[BsonDocument]) -> list[str | Exception | None]:
        """Insert notes in one command, and return for each the key that another note has already, or ``None``."""
        results: list[str | Exception | None] = [None] * len(documents)
        with self._connection.writing():
            try:
                await self._connection.async_database.notes.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if error.details["writeConcernErrors"]:
                    raise
                for item in error.details["writeErrors"]:
                    is_duplicate = item["code"] == DUPLICATE_KEY
                    results[item["index"]] = (
                        next(iter(item.get("keyPattern", {"_id": 1}))) if is_duplicate else OutcomeUnknown()
                    )
        return results

    async def update(
        self,
        id: int,
        fields: Mapping[str, Any],
        versions: Versions,
        token: str | None,
        revision: RevisionInfo = UPDATED,
        text: SharedTextChange = NO_SHARED_TEXT,
    ) -> NoteChange | None:
        """Set fields of a live note, and increment its version.

        Args:
            id: The id of the note.
            fields: The new values.
            versions: The versions that the note may be at.
            token: The token of an idempotent request, which is applied only once.
            revision: The information that the history records about the write.
            text: The effect of a new content on the note's shared text. Without a content it is ignored.

        Returns:
            The change; or ``None``, with nothing written, if there is no such note, it is at another version, its
            shared text differs, or the token was already applied.

        Raises:
            OutcomeUnknown: MongoDB did not confirm the write.
            TooManyPendingRevisions: The note's document has no space for the revision until others are archived.
            Unavailable: The content has many different words, and other such writes took too long. Nothing was written.
        """
        condition = {**LIVE, "lineage": text.lineage} if "content" in fields else LIVE
        state: BsonDocument = {"updated_date": now()}
        if text.edit is not None:
            state["edited"] = text.edit.id
            state["edits"] = {"$concatArrays": [{"$ifNull": ["$edits", []]}, {"$literal": [edit_of(text.edit)]}]}
        update = _Update(condition | _at_versions(versions), fields, state, token, revision)
        return await self._advance(id, update, batched=True)

    async def owned_by(self, owner: str, limit: int) -> Mapping[int, Access]:
        """Return the access rights of up to ``limit`` live notes of a user, by id. Raises :class:`Unavailable`."""
        owned = {**LIVE, "readers": key_of(owner), "access.owner": owner}
        with self._connection.reading():
            cursor = self._notes.find(owned, {"access": True}, hint="opened_by_id", limit=limit)
            return {document["_id"]: access_of(document) async for document in cursor}

    async def share(
        self, id: int, access: Access, version: int, token: str | None, author: str | None
    ) -> NoteChange | None:
        """Replace the access rights of a live note at this version; otherwise like :meth:`update`."""
        state = {name: {"$literal": value} for name, value in access_fields(access).items()}
        revision = RevisionInfo("share", author, {"date": now()})
        return await self._advance(id, _Update(LIVE | _at_versions({version}), {}, state, token, revision))

    async def delete(
        self, id: int, versions: Versions, token: str | None, author: str | None = None
    ) -> NoteChange | None:
        """Move a live note to the trash; otherwise like :meth:`update`."""
        state = {"deleted": True, "deleted_date": now()}
        revision = RevisionInfo("delete", author)
        return await self._advance(id, _Update(LIVE | _at_versions(versions), {}, state, token, revision))

    async def undelete(
        self, id: int, versions: Versions, token: str | None, author: str | None = None
    ) -> NoteChange | None:
        """Restore a note from the trash; otherwise like :meth:`update`."""
        state = {"deleted": False, "deleted_date": "$$REMOVE", "updated_date": now()}
        revision = RevisionInfo("undelete", author)
        return await self._advance(id, _Update(TRASHED | _at_versions(versions), {}, state, token, revision))

    async def purge(self, id: int, versions: Versions, token: str | None) -> NoteChange | None:
        """Permanently delete a note in the trash, except for its id and version; otherwise like :meth:`update`.

        The id is not reused, since clients store versions by id. The archiver deletes the archived revisions.
        """
        removed = ("deleted_date", "keyframe", "lineage", "edits", "edited")
        state = {**dict.fromkeys(removed, "$$REMOVE"), "purged": True}
        empty = {"title": "", "description": "", "content": "", "tags": []}
        return await self._advance(id, _Update(TRASHED | _at_versions(versions), empty, state, token, None))

    async def _advance(self, id: int, update: _Update, *, batched: bool = False) -> NoteChange | None:
        """Update a note that meets a condition, and increment its version; otherwise like :meth:`update`.

        With ``batched`` the update may share a command with others, which requires that it leaves a live note with a
        revision.
        """
        condition = update.condition
        if update.token is not None:
            condition = condition | {"operations": {"$ne": update.token}}
        mark = ObjectId().binary
        pipeline = _update_pipeline(update, mark)
        has_many_words = False
        content = update.fields.get("content")
        if content is not None:
            words, has_many_words = await searched_part(content)
            whole = len(words) == len(content)
            pipeline.append({"$set": {"words": "$content" if whole else {"$literal": words}}})
            pipeline.append({"$set": {"words_version": "$text_version"}})
        author = None if update.revision is None else update.revision.author
        apply = self._updates.apply if batched and not has_many_words else self._updates.apply_alone
        async with self._write_turn(author or id, needed=has_many_words):
            document = await apply(NoteUpdate(id, condition, pipeline, mark))
        return None if document is None else change_of(document)

    @asynccontextmanager
    async def _write_turn(self, writer: Hashable, *, needed: bool) -> AsyncGenerator[None]:
        """Limit writes with many different words to one at a time, in turns between writers.

        After each of them there is a pause for other writes, three times as long. Raises :class:`Unavailable`.
        """
        async with AsyncExitStack() as stack:
            if needed:
                try:
                    async with asyncio.timeout(self._connection.write_timeout):
                        await stack.enter_async_context(self._turns.turn(writer))
                except TimeoutError:
                    raise Unavailable from None
            yield

    async def state(self, id: int) -> NoteState | None:
        """Return the access rights and the version of a note, deleted or not. Raises :class:`Unavailable`."""
        # Fetching the document by id is faster than a covered query on a larger index.
        return await self._states.put(id)

    async def _read_states(self, ids: Sequence[int]) -> list[NoteState | Exception | None]:
        with self._connection.reading():
            documents = await self._notes.find({"_id": {"$in": list(ids)}}, STATE).to_list(None)
        return _by_id(ids, documents, state_of)

    async def note_access(self, id: int) -> NoteAccess | None:
        """Return the access rights of a note, deleted or not. Raises :class:`Unavailable`."""
        state = await self.state(id)
        return None if state is None else state.note_access

    async def find_by_key(self, key: Key) -> int | None:
        """Return the id of a live note that this key gives access to, if any. Raises :class:`Unavailable`."""
        with self._connection.reading():
            document = await self._notes.find_one({**LIVE, **open_to(frozenset({key}))}, {"_id": True})
        return None if document is None else int(document["_id"])

    async def find(self, id: int) -> Record | None:
        """Return a note, deleted or not. Raises :class:`Unavailable`."""
        return await self._records.put(id)

    async def _read_records(self, ids: Sequence[int]) -> list[Record | Exception | None]:
        return _by_id(ids, await self._find_documents({"_id": {"$in": list(ids)}}), record_of)

    async def find_origin(self, token: str) -> Record | None:
        """Return the note that the request with this token created, if any. Raises :class:`Unavailable`."""
        return next(map(record_of, await self._find_documents({"origin": token})), None)

    async def _find_documents(self, condition: BsonDocument) -> list[BsonDocument]:
        with self._connection.reading():
            documents: list[BsonDocument] = await self._notes.find(condition, RECORD).to_list(None)
        return documents

    async def dirty(self, limit: int) -> dict[int, int]:
        """Return the versions, by id, of notes whose last change may not be published yet.

        Raises :class:`Unavailable`.
        """
        with self._connection.reading():
            documents = await self._notes.find({"dirty": True}, {"version": True}).limit(limit).to_list(limit)
        return {document["_id"]: document["version"] for document in documents}

    async def changes(self, ids: Collection[int]) -> list[NoteChange]:
        """Return the last change of each of these notes. Raises :class:`Unavailable`."""
        with self._connection.reading():
            documents = await self._notes.find({"_id": {"$in": list(ids)}}, NOTE).to_list(None)
        changes = []
        for document in documents:
            try:
                changes.append(change_of(document))
            except KeyError:
                log.exception("skipping an invalid note document", extra={"id": document["_id"]})
        return changes


def _by_id(
    ids: Sequence[int], documents: Iterable[BsonDocument], convert: Callable[[BsonDocument], T]
) -> list[T | Exception | None]:
    """Return the converted documents in the order of the ids, with ``None`` for missing ones."""
    results: dict[int, T | Exception] = {}
    for document in documents:
        try:
            results[document["_id"]] = convert(document)
        except KeyError as error:  # an invalid document must not fail the reads of the others
            results[document["_id"]] = error
    return [results.get(id) for id in ids]


def _at_versions(versions: Versions) -> BsonDocument:
    """Return the condition for notes at these versions."""
    if versions is None:
        return {}
    if isinstance(versions, range):
        return {"version": {"$gte": versions.start, "$lt": versions.stop}}
    if isinstance(versions, AllBut):
        return {"version": {"$nin": list(versions.versions)}}
    return {"version": {"$in": list(versions)}}


def _update_pipeline(update: _Update, mark: bytes) -> list[BsonDocument]:
    """Return the update of a note to its next version, including the revision.

    It is an aggregation pipeline, so that one atomic command can use the current version and compare the fields.
    """
    version = {"$add": ["$version", 1]}
    new = {name: f"$incoming.{name}" for name in update.fields}
    changed = {name: {"$ne": [f"${name}", value]} for name, value in new.items()}
    text_version: Any = "$text_version"
    if "content" in new:
        text_version = {"$cond": [changed["content"], version, "$text_version"]}
    values = dict(update.fields)
    if "title" in update.fields:
        values["title_key"] = folded(update.fields["title"])
    document = {
        **{name: f"$incoming.{name}" for name in values},
        **update.state,
        "version": version,
        "dirty": True,
        "text_version": text_version,
        "recent": [],
    }
    if update.revision is not None:
        revision = _revision(update, update.revision, new, changed) | {"text_version": text_version, "mark": mark}
        document["recent"] = {"$concatArrays": ["$recent", [revision]]}
    if update.token is not None:
        document["operations"] = {"$slice": [{"$concatArrays": ["$operations", [update.token]]}, -KEPT_OPERATIONS]}
    # The values are included once, and as literals: a text that starts with a dollar sign is not an expression.
    pipeline: list[BsonDocument] = [
        {"$set": {"incoming": {"$literal": values}}},
        {"$set": document},
        {"$unset": "incoming"},
    ]
    return [*pipeline, {"$set": {"size": SIZE}}] if update.fields else pipeline


def _revision(
    update: _Update, info: RevisionInfo, new: Mapping[str, str], changed: Mapping[str, BsonDocument]
) -> BsonDocument:
    """Return the expression of the revision that an update adds to the note.

    Args:
        update: The update.
        info: The information that the revision records.
        new: The expressions of the new values.
        changed: For each new value, the expression for whether it differs from the old one.
    """
    details = {"author": info.author, **info.details}
    date = update.state.get("updated_date") or update.state.get("deleted_date")
    revision = {
        "version": {"$add": ["$version", 1]},
        "date": {"$literal": date},
        "action": info.action,
        **{name: {"$literal": value} for name, value in details.items()},
        "changed": {"$concatArrays": [[], *({"$cond": [test, [name], []]} for name, test in changed.items())]},
        "title": new.get("title", "$title"),
        "description": new.get("description", "$description"),
        "tags": new.get("tags", "$tags"),
    }
    if update.token is not None:
        revision["token"] = update.token
    if "content" in new:
        revision["content"] = {"$cond": [changed["content"], new["content"], "$$REMOVE"]}
    return revision
