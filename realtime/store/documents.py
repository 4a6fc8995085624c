"""Documents and models: how a note is stored, and how it is read back.

A note's document holds, beside its fields:

- ``deleted``; ``deleted_date`` while it is in the trash; ``purged`` once only its id and version are left
- ``title_key``: what titles are ordered by, the title without case and accents
- ``dirty``: its last change may not be published
- ``operations``, ``origin``: tokens of the last keyed writes, and of the keyed write that made it
- ``recent``: the last revisions, until they are archived in the collection ``history``
- ``text_version``: the revision that holds the content as it is now
- ``lineage``: the name of its shared text, once it has one; ``edits``: updates of it that are not in the journal yet;
  ``edited``: the last of them that came in over REST
- ``keyframe``: the archived revision that the next ones are stored as differences to
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from realtime.models import Change, Note, NoteHead, Revision

Document = dict[str, Any]

LIVE: Document = {"deleted": False}
TRASHED: Document = {"deleted_date": {"$exists": True}}
NOTE: dict[str, bool] = {"operations": False, "recent": False, "edits": False}
"""The projection to what :func:`note_of` and :func:`change_of` read."""
HEAD: dict[str, bool] = {**NOTE, "content": False}


@dataclass(frozen=True, slots=True)
class Record:
    """A note as it is stored, deleted ones included, with the tokens of the last operations on it."""

    note: Note
    deleted: bool
    purged: bool
    operations: Sequence[str]
    lineage: str | None
    edited: str | None


def now() -> datetime:
    """The time, in the milliseconds that MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def head_of(document: Mapping[str, Any]) -> NoteHead:
    """A note without its text."""
    # Not validated again: only checked notes are ever stored.
    return NoteHead.model_construct(**_head(document))


def note_of(document: Mapping[str, Any]) -> Note:
    """A note."""
    return Note.model_construct(**_head(document), content=document["content"])


def _head(document: Mapping[str, Any]) -> Document:
    return {
        "id": int(document["_id"]),  # a large one is a class of the driver's own
        "title": document["title"],
        "description": document["description"],
        "tags": document["tags"],
        "version": document["version"],
        "created_date": document["created_date"],
        "updated_date": document["updated_date"],
    }


def change_of(document: Mapping[str, Any]) -> Change:
    """A committed state of a note."""
    return Change(note_of(document), deleted=document["deleted"])


def record_of(document: Mapping[str, Any]) -> Record:
    """A note as it is stored."""
    return Record(
        note_of(document),
        document["deleted"],
        "purged" in document,
        document["operations"],
        document.get("lineage"),
        document.get("edited"),
    )


def revision_of(entry: Mapping[str, Any]) -> Revision:
    """A revision, from ``recent`` or from the history."""
    return Revision.model_construct(
        version=entry["version"] if "version" in entry else entry["_id"]["version"],
        date=entry["date"],
        author=entry["author"],
        action=entry["action"],
        authors=entry.get("authors", []),
        restored=entry.get("restored"),
        changed=entry["changed"],
        title=entry["title"],
        description=entry["description"],
        tags=entry["tags"],
    )
