"""The history: every revision of every note.

A write keeps its revision in the note itself, in the same commit, so none is ever missing. From there revisions are
archived, in batches, as documents of their own under ``{note, version}``. A revision holds title, description and tags;
and the content if it changed the content, else ``text_version`` names the revision that does. A long content is stored
as the difference to a keyframe, an earlier revision that is stored whole, so that any is read back with three reads.

A difference is ``{start, text, end}``: ``text`` between what stays at the beginning and at the end of the keyframe. If
distant places changed it is ``{parts}``, which alternates between new text and ``[offset, length]`` of the keyframe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pymongo import ASCENDING, DESCENDING

from realtime.notes.models import Revision, RevisionText
from realtime.store.bson_mapping import LIVE, BsonDocument, revision_of
from realtime.store.connection import MongoConnection, insert_again

SHORT = 512
"""Characters up to which a content is always stored whole."""
REWRITTEN_SHARE = 4
"""A content is stored whole if more than one part in this many is not in the keyframe."""
THINNED = 5000
"""Revisions that are looked at, at once, to thin them out."""
BATCH_BYTES = 8 * 1024 * 1024
BLOCK = 64
"""Characters that a part of a keyframe must have in common with a content to be found in it."""
MAX_PARTS = 256
"""Parts of a difference. It bounds the time that it takes to find them."""
OFFSET_BYTES = 8
THREAD_CHARACTERS = 64 * 1024
"""Characters of revisions from which on differences are computed in a thread."""


class StoredContent(NamedTuple):
    """A content that was added to the history, as it is stored.

    Attributes:
        note: The id of its note.
        authors: The names of the users who wrote it; empty if they are not known.
        size: Its size in bytes, which is that of the difference if only that is stored.
    """

    note: int
    authors: Sequence[str]
    size: int


class History:
    """The revisions of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._rows = connection.database.history
        self.on_stored: Callable[[StoredContent], None] = lambda _: None
        """Called with each content that this process adds, except the first of a note."""

    async def prepare(self) -> None:
        """Makes the indexes."""
        unthinned = {"unthinned": True}
        await self._rows.create_index([("date", ASCENDING)], name="unthinned", partialFilterExpression=unthinned)
        marked = {"token": {"$exists": True}}
        await self._rows.create_index([("token", ASCENDING)], name="tokens", partialFilterExpression=marked)

    async def version_of(self, id: int, token: str) -> int | None:
        """The version that the operation with this token made of a note, if any. Raises :class:`Unavailable`."""
        return await self._version(id, "token", token, {"_id.note": id})

    async def marked(self, id: int, mark: bytes) -> int | None:
        """The version of a note whose revision has this mark, if any. Raises :class:`Unavailable`."""
        return await self._version(id, "mark", mark, _versions(id))

    async def _version(self, id: int, name: str, value: str | bytes, of_note: BsonDocument) -> int | None:
        with self._connection.reading():
            note = await self._notes.find_one({"_id": id}, {"recent.version": True, f"recent.{name}": True})
            for entry in (note or {}).get("recent", ()):
                if entry.get(name) == value:
                    return int(entry["version"])
            row = await self._rows.find_one({name: value, **of_note}, {"_id": True})
        return None if row is None else int(row["_id"]["version"])

    async def page(self, id: int, before: int, limit: int) -> tuple[list[Revision], bool] | None:
        """Revisions of a live note below a version, the newest first, and whether there are more.

        ``None`` if there is no such note. Raises :class:`Unavailable`.
        """
        with self._connection.reading():
            # The note first: what is archived meanwhile is then seen twice, and not missed.
            note = await self._notes.find_one(
                {"_id": id, **LIVE}, {"content": False, "words": False, "operations": False, "recent.content": False}
            )
            if note is None:
                return None
            rows = self._rows.find(
                {"_id": {"$gte": {"note": id, "version": 0}, "$lt": {"note": id, "version": before}}},
                {"content": False},
            )
            archived = await rows.sort("_id", DESCENDING).limit(limit + 1).to_list(limit + 1)
        revisions = {revision.version: revision for revision in map(revision_of, [*archived, *note["recent"]])}
        newest = sorted((version for version in revisions if version < before), reverse=True)
        return [revisions[version] for version in newest[:limit]], len(newest) > limit

    async def read(self, id: int, version: int) -> RevisionText | None:
        """A version of a note, whole. ``None`` if its history does not have it. Raises :class:`Unavailable`."""
        with self._connection.reading():
            note = await self._notes.find_one({"_id": id}, {"recent": True})
            recent = {entry["version"]: entry for entry in (note or {}).get("recent", ())}
            row = recent.get(version) or await self._row(id, version)
            if row is None:
                return None
            text = row["text_version"]
            holder = row if text == version else recent.get(text) or await self._row(id, text)
            if holder is None:
                return None
            content = await self._content(id, holder)
        if content is None:
            return None
        return RevisionText.model_construct(**dict(revision_of(row)), content=content)

    async def _row(self, id: int, version: int) -> BsonDocument | None:
        row: BsonDocument | None = await self._rows.find_one({"_id": {"note": id, "version": version}})
        return row

    async def _content(self, id: int, row: Mapping[str, Any]) -> str | None:
        stored: str | Mapping[str, Any] = row["content"]
        if isinstance(stored, str):
            return stored
        keyframe = await self._row(id, row["base"])
        if keyframe is None:  # thinned out or purged since the row was read
            return None
        return _applied(keyframe["content"], stored)

    async def forget(self, ids: Sequence[int]) -> None:
        """Deletes all that is archived of these notes. Raises :class:`Unavailable`."""
        with self._connection.reading(self._connection.write_timeout):
            for id in ids:
                await self._rows.delete_many(_versions(id))

    async def archive(self, notes: Sequence[BsonDocument]) -> dict[int, int]:
        """Keeps the revisions that these documents of notes hold, and returns the notes' new keyframes."""
        texts = await self._keyframes(notes)
        keyframes: dict[int, int] = {}
        rows: list[BsonDocument] = []
        size = 0
        for note in notes:
            length = sum(len(entry.get("content", "")) for entry in note["recent"])
            text = texts.get(note["_id"])
            made, keyframe = (
                await asyncio.to_thread(_rows, note, text) if length > THREAD_CHARACTERS else _rows(note, text)
            )
            if keyframe is not None:
                keyframes[note["_id"]] = keyframe
            rows += made
            size += length
            if size > BATCH_BYTES:
                await self._insert(rows)
                rows, size = [], 0
        if rows:
            await self._insert(rows)
        return keyframes

    async def _insert(self, rows: Sequence[BsonDocument]) -> None:
        for row in await insert_again(self._rows, rows):
            # The first content is deleted with its note, and counts for the owner until then.
            if "content" in row and row["_id"]["version"] > 1:
                authors = dict.fromkeys([row["author"], *row.get("authors", ())])
                names = [name for name in authors if name is not None]
                self.on_stored(StoredContent(row["_id"]["note"], names, _size(row["content"])))

    async def _keyframes(self, notes: Iterable[BsonDocument]) -> dict[int, str]:
        """The texts of the keyframes of those notes that have a long text to be archived."""
        keys = [
            {"note": note["_id"], "version": note["keyframe"]}
            for note in notes
            if "keyframe" in note and any(len(entry.get("content", "")) > SHORT for entry in note["recent"])
        ]
        if not keys:
            return {}
        rows = await self._rows.find({"_id": {"$in": keys}}, {"content": True}).to_list(None)
        return {row["_id"]["note"]: row["content"] for row in rows if isinstance(row["content"], str)}

    async def unthinned(self, before: datetime) -> int | None:
        """A note with revisions from before a date that are not thinned out yet. Raises :class:`Unavailable`."""
        with self._connection.reading():
            row = await self._rows.find_one({"unthinned": True, "date": {"$lt": before}}, {"_id": True})
        return None if row is None else row["_id"]["note"]

    async def thin(self, id: int, before: datetime) -> int:
        """Of a note's revisions from before a date keeps the last of each day (in UTC), and deletes the others.

        Kept are also those that hold what a kept one needs. Returns how many were deleted. Raises :class:`Unavailable`.
        """
        with self._connection.reading():
            note = await self._notes.find_one({"_id": id}, {"text_version": True, "keyframe": True}) or {}
        # From the newest to the oldest: what a revision needs is older than it.
        needed = {note.get("text_version"), note.get("keyframe")}
        fields = {"date": True, "text_version": True, "base": True}
        below: BsonDocument = {"note": id + 1, "version": 0}
        day = None
        dropped = 0
        while True:
            with self._connection.reading(self._connection.write_timeout):
                span = {"_id": {"$gte": {"note": id, "version": 0}, "$lt": below}}
                rows = await self._rows.find(span, fields).sort("_id", DESCENDING).limit(THINNED).to_list(THINNED)
                if not rows:
                    break
                below = rows[-1]["_id"]
                drop = []
                for row in rows:
                    old = row["date"] < before
                    if old and row["date"].date() == day and row["_id"]["version"] not in needed:
                        drop.append(row["_id"])
                        continue
                    day = row["date"].date() if old else None
                    needed |= {row["text_version"], row.get("base")}
                await self._rows.delete_many({"_id": {"$in": drop}})
                dropped += len(drop)
        with self._connection.reading(self._connection.write_timeout):
            thinned = {**_versions(id), "date": {"$lt": before}, "unthinned": True}
            await self._rows.update_many(thinned, {"$unset": {"unthinned": ""}})
        return dropped


def _versions(id: int) -> BsonDocument:
    return {"_id": {"$gte": {"note": id, "version": 0}, "$lt": {"note": id + 1, "version": 0}}}


def _rows(note: BsonDocument, text: str | None) -> tuple[list[BsonDocument], int | None]:
    """The archived form of a note's revisions, and its keyframe after them; ``text`` is that of the one before."""
    rows = []
    keyframe = note.get("keyframe")
    for entry in note["recent"]:
        row = {**entry, "_id": {"note": note["_id"], "version": entry["version"]}, "unthinned": True}
        del row["version"]
        if "content" in row:
            difference = None if text is None else _difference(text, row["content"])
            if difference is None:
                keyframe, text = entry["version"], row["content"]
            else:
                row |= {"base": keyframe, "content": difference}
        rows.append(row)
    return rows, keyframe


def _difference(base: str, text: str) -> BsonDocument | None:
    """Return what turns ``base`` into ``text``, or ``None`` if that is not much smaller than ``text``."""
    if len(text) <= SHORT:
        return None
    start = common_prefix(base, text)
    end = common_prefix(base[start:][::-1], text[start:][::-1])
    middle = text[start : len(text) - end]
    if len(middle) <= len(text) // REWRITTEN_SHARE:
        return {"start": start, "text": middle, "end": end}
    parts = _parts(base, middle, len(text) // REWRITTEN_SHARE)
    return None if parts is None else {"parts": [[0, start], *parts, [len(base) - end, end]]}


def _parts(base: str, text: str, limit: int) -> list[str | list[int]] | None:
    """Return the parts of a text: new ones, and ``[offset, length]`` of those that are in ``base``.

    ``None`` if there would be more than ``limit`` new characters, or too many parts. The work is bounded by both.
    """
    blocks: dict[str, int] = {}
    for offset in range(0, len(base) - BLOCK + 1, BLOCK):
        blocks.setdefault(base[offset : offset + BLOCK], offset)
    parts: list[str | list[int]] = []
    position = copied = new = 0
    while position < len(text):
        offset = blocks.get(text[position : position + BLOCK], -1)
        if offset < 0:
            position += 1
            if new + position - copied > limit + BLOCK:
                return None
            continue
        length = common_prefix(base[offset:], text[position:])
        while position > copied and offset and base[offset - 1] == text[position - 1]:
            position, offset, length = position - 1, offset - 1, length + 1
        if position > copied:
            parts.append(text[copied:position])
            new += position - copied
        parts.append([offset, length])
        position = copied = position + length
        if len(parts) > MAX_PARTS:
            return None
    if copied < len(text):
        parts.append(text[copied:])
        new += len(text) - copied
    return parts if new <= limit else None


def _applied(base: str, difference: Mapping[str, Any]) -> str:
    if "parts" in difference:
        parts = difference["parts"]
        return "".join(one if isinstance(one, str) else base[one[0] : one[0] + one[1]] for one in parts)
    text: str = difference["text"]
    return base[: difference["start"]] + text + base[len(base) - difference["end"] :]


def _size(content: str | Mapping[str, Any]) -> int:
    """Return the size in bytes of a content as it is stored."""
    if isinstance(content, str):
        return len(content.encode())
    if "text" in content:
        return len(content["text"].encode())
    return sum(len(one.encode()) if isinstance(one, str) else 2 * OFFSET_BYTES for one in content["parts"])


def common_prefix(a: str, b: str) -> int:
    """Return the number of characters at the beginning that two texts have in common."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
