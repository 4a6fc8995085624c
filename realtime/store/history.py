"""The revision history of notes.

A write stores its revision in the note's document, in the same atomic update, so that no revision can be lost. The
archiver then moves revisions in batches into the collection ``history``, under the id ``{note, version}``. A revision
has the title, the description and the tags. It has the content if it changed the content; otherwise ``text_version`` is
the version of the revision that has it. A long content is stored as the difference to a keyframe, an earlier revision
with its whole content, so that any version takes at most three reads.

A difference is ``{start, text, end}``: ``text`` replaces all but the first ``start`` and the last ``end`` characters of
the keyframe. If distant parts changed, it is ``{parts}``: a list of new text and of ``[offset, length]`` in the
keyframe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pymongo import ASCENDING, DESCENDING

from realtime.notes.models import Revision, RevisionText
from realtime.store.bson_mapping import LIVE, BsonDocument, revision_of
from realtime.store.connection import MongoConnection, insert_missing

SHORT_CONTENT_CHARACTERS = 512
"""Contents up to this number of characters are always stored whole."""
REWRITTEN_SHARE = 4
"""A content is stored whole if more than 1/4 of it is not in the keyframe."""
THINNING_BATCH_REVISIONS = 5000
"""Revisions that thinning reads at a time."""
BATCH_BYTES = 8 * 1024 * 1024
BLOCK_CHARACTERS = 64
"""The minimum length of a part of a keyframe that a difference can refer to."""
MAX_PARTS = 256
"""The maximum number of parts of a difference. It limits the time to compute one."""
OFFSET_BYTES = 8
THREAD_CHARACTERS = 64 * 1024
"""Above this number of characters, the differences of a note's revisions are computed in a thread."""


class StoredContent(NamedTuple):
    """A content that was added to the history.

    Attributes:
        note: The id of its note.
        authors: The names of the users who wrote it; empty if they are not known.
        size: Its stored size in bytes, which is that of the difference if only the difference is stored.
    """

    note: int
    authors: Sequence[str]
    size: int


class History:
    """Reads, archives and thins out the revisions of one database."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._notes = connection.database.notes
        self._rows = connection.database.history
        self.on_stored: Callable[[StoredContent], None] = lambda _: None
        """Called with each content that this process adds to the history, except the first content of a note."""

    async def prepare(self) -> None:
        """Create the indexes."""
        unthinned = {"unthinned": True}
        await self._rows.create_index([("date", ASCENDING)], name="unthinned", partialFilterExpression=unthinned)
        marked = {"token": {"$exists": True}}
        await self._rows.create_index([("token", ASCENDING)], name="tokens", partialFilterExpression=marked)

    async def version_of(self, id: int, token: str) -> int | None:
        """Return the version of a note that the write with this token created, if any.

        Raises :class:`Unavailable`.
        """
        return await self._version(id, "token", token, {"_id.note": id})

    async def version_marked(self, id: int, mark: bytes) -> int | None:
        """Return the version of a note whose revision has this mark, if any. Raises :class:`Unavailable`."""
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
        """Return a page of the revisions of a live note, newest first.

        Args:
            id: The id of the note.
            before: Only revisions with lower versions are returned.
            limit: The maximum number of revisions.

        Returns:
            The revisions, and whether there are more; or ``None`` if there is no such note.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        with self._connection.reading():
            # Read the note first: revisions archived between the reads are then seen twice rather than missed.
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
        """Return a version of a note with its content, or ``None`` if the history does not have it.

        Raises :class:`Unavailable`.
        """
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
        return _apply(keyframe["content"], stored)

    async def forget(self, ids: Sequence[int]) -> None:
        """Delete the archived revisions of these notes. Raises :class:`Unavailable`."""
        with self._connection.reading(self._connection.write_timeout):
            for id in ids:
                await self._rows.delete_many(_versions(id))

    async def archive(self, notes: Sequence[BsonDocument]) -> dict[int, int]:
        """Archive the revisions in these documents of notes, and return the new keyframe versions by note id."""
        texts = await self._keyframes(notes)
        keyframes: dict[int, int] = {}
        rows: list[BsonDocument] = []
        size = 0
        for note in notes:
            length = sum(len(entry.get("content", "")) for entry in note["recent"])
            text = texts.get(note["_id"])
            note_rows, keyframe = (
                await asyncio.to_thread(_rows, note, text) if length > THREAD_CHARACTERS else _rows(note, text)
            )
            if keyframe is not None:
                keyframes[note["_id"]] = keyframe
            rows += note_rows
            size += length
            if size > BATCH_BYTES:
                await self._insert(rows)
                rows, size = [], 0
        if rows:
            await self._insert(rows)
        return keyframes

    async def _insert(self, rows: Sequence[BsonDocument]) -> None:
        for row in await insert_missing(self._rows, rows):
            # The first content counts toward the note itself: it stays until the note is deleted.
            if "content" in row and row["_id"]["version"] > 1:
                authors = dict.fromkeys([row["author"], *row.get("authors", ())])
                names = [name for name in authors if name is not None]
                self.on_stored(StoredContent(row["_id"]["note"], names, _size(row["content"])))

    async def _keyframes(self, notes: Iterable[BsonDocument]) -> dict[int, str]:
        """Return the keyframe contents, by note id, of the notes with a long content to archive."""
        keys = [
            {"note": note["_id"], "version": note["keyframe"]}
            for note in notes
            if "keyframe" in note
            and any(len(entry.get("content", "")) > SHORT_CONTENT_CHARACTERS for entry in note["recent"])
        ]
        if not keys:
            return {}
        rows = await self._rows.find({"_id": {"$in": keys}}, {"content": True}).to_list(None)
        return {row["_id"]["note"]: row["content"] for row in rows if isinstance(row["content"], str)}

    async def unthinned(self, before: datetime) -> int | None:
        """Return the id of a note with revisions before a date that are not thinned out yet, if any.

        Raises :class:`Unavailable`.
        """
        with self._connection.reading():
            row = await self._rows.find_one({"unthinned": True, "date": {"$lt": before}}, {"_id": True})
        return None if row is None else row["_id"]["note"]

    async def thin(self, id: int, before: datetime) -> int:
        """Thin out the revisions of a note before a date to the last one of each day (in UTC).

        Revisions that the remaining ones need for their content are kept, too.

        Returns:
            The number of deleted revisions.

        Raises:
            Unavailable: MongoDB did not answer in time.
        """
        with self._connection.reading():
            note = await self._notes.find_one({"_id": id}, {"text_version": True, "keyframe": True}) or {}
        # From the newest to the oldest, since a revision needs only older ones.
        needed = {note.get("text_version"), note.get("keyframe")}
        fields = {"date": True, "text_version": True, "base": True}
        below: BsonDocument = {"note": id + 1, "version": 0}
        day = None
        deleted = 0
        while True:
            with self._connection.reading(self._connection.write_timeout):
                span = {"_id": {"$gte": {"note": id, "version": 0}, "$lt": below}}
                rows = (
                    await self._rows.find(span, fields)
                    .sort("_id", DESCENDING)
                    .limit(THINNING_BATCH_REVISIONS)
                    .to_list(THINNING_BATCH_REVISIONS)
                )
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
                deleted += len(drop)
        with self._connection.reading(self._connection.write_timeout):
            thinned = {**_versions(id), "date": {"$lt": before}, "unthinned": True}
            await self._rows.update_many(thinned, {"$unset": {"unthinned": ""}})
        return deleted


def _versions(id: int) -> BsonDocument:
    return {"_id": {"$gte": {"note": id, "version": 0}, "$lt": {"note": id + 1, "version": 0}}}


def _rows(note: BsonDocument, text: str | None) -> tuple[list[BsonDocument], int | None]:
    """Return the archived form of a note's unarchived revisions, and the version of the last keyframe.

    Args:
        note: The document of the note.
        text: The content of the note's current keyframe, if it has one that was read.
    """
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
    """Return the difference from ``base`` to ``text``, or ``None`` if it is not much smaller than ``text``."""
    if len(text) <= SHORT_CONTENT_CHARACTERS:
        return None
    start = common_prefix(base, text)
    end = common_prefix(base[start:][::-1], text[start:][::-1])
    middle = text[start : len(text) - end]
    if len(middle) <= len(text) // REWRITTEN_SHARE:
        return {"start": start, "text": middle, "end": end}
    parts = _parts(base, middle, len(text) // REWRITTEN_SHARE)
    return None if parts is None else {"parts": [[0, start], *parts, [len(base) - end, end]]}


def _parts(base: str, text: str, limit: int) -> list[str | list[int]] | None:
    """Return a text as a list of new strings and of ``[offset, length]`` for the parts that are in ``base``.

    Returns ``None`` if there are more than ``limit`` new characters or too many parts, which also limits the work.
    """
    blocks: dict[str, int] = {}
    for offset in range(0, len(base) - BLOCK_CHARACTERS + 1, BLOCK_CHARACTERS):
        blocks.setdefault(base[offset : offset + BLOCK_CHARACTERS], offset)
    parts: list[str | list[int]] = []
    position = copied = new = 0
    while position < len(text):
        offset = blocks.get(text[position : position + BLOCK_CHARACTERS], -1)
        if offset < 0:
            position += 1
            if new + position - copied > limit + BLOCK_CHARACTERS:
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


def _apply(base: str, difference: Mapping[str, Any]) -> str:
    if "parts" in difference:
        parts = difference["parts"]
        return "".join(part if isinstance(part, str) else base[part[0] : part[0] + part[1]] for part in parts)
    text: str = difference["text"]
    return base[: difference["start"]] + text + base[len(base) - difference["end"] :]


def _size(content: str | Mapping[str, Any]) -> int:
    """Return the size of a stored content in bytes."""
    if isinstance(content, str):
        return len(content.encode())
    if "text" in content:
        return len(content["text"].encode())
    return sum(len(part.encode()) if isinstance(part, str) else 2 * OFFSET_BYTES for part in content["parts"])


def common_prefix(a: str, b: str) -> int:
    """Return the length of the longest common prefix of two texts, in characters."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
