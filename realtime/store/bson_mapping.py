"""Conversion between models and MongoDB documents.

A note's document has these fields, besides those of the model:

- ``deleted``; ``deleted_date`` while it is in the trash; ``purged`` once only its id and version remain
- ``title_key``: the sort key of the title, without case and accents
- ``words``: the part of the content that is searched; ``words_version``: the ``text_version`` of that content
- ``dirty``: the last change may not be published yet
- ``operations``: the tokens of the last idempotent writes; ``origin``: the token of the one that created the note
- ``recent``: the revisions that are not yet archived in ``history``, each with the ``mark`` of its update
- ``text_version``: the version of the revision with the current content
- ``lineage``: the name of the shared text, once there is one; ``edits``: updates of it from REST that are not yet in
  the journal; ``edited``: the id of the last of them
- ``access``: the access rights, if the note was created with accounts; ``readers``: the keys that give access to it
- ``keyframe``: the version of the archived revision that the next ones are stored as differences to
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from realtime.auth.permissions import UNSHARED_ACCESS, Access, Key, Link, NoteAccess, Role
from realtime.notes.models import Note, NoteChange, Revision, iso

BsonDocument = dict[str, Any]

LIVE: BsonDocument = {"deleted": False}
TRASHED: BsonDocument = {"deleted_date": {"$exists": True}}
NOTE: dict[str, bool] = {"operations": False, "recent": False, "edits": False, "readers": False, "words": False}
"""The projection for :func:`note_of` and :func:`change_of`."""
RECORD = {name: False for name in NOTE if name != "operations"}
"""The projection for :func:`record_of`."""
STATE = dict.fromkeys(("version", "deleted", "access"), True)
"""The projection for :func:`state_of`."""
HEAD = dict.fromkeys(("title", "description", "tags", "version", "created_date", "updated_date"), True)
"""The projection for :func:`note_json_of` without the content."""
WHOLE = {**HEAD, "content": True}
"""The projection for :func:`note_json_of` with the content."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored note, which may be deleted, with the tokens of the last idempotent writes to it."""

    note: Note
    deleted: bool
    purged: bool
    operations: Sequence[str]
    lineage: str | None
    edited: str | None
    access: Access

    @property
    def note_access(self) -> NoteAccess:
        """The access rights of the note, and whether it is live."""
        return NoteAccess(self.access, not self.deleted)


class NoteState(NamedTuple):
    """The access rights and the version of a note, which may be deleted."""

    note_access: NoteAccess
    version: int


def now() -> datetime:
    """Return the current time in UTC, rounded down to milliseconds, the precision of MongoDB."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def note_of(document: Mapping[str, Any]) -> Note:
    """Return the note in a document."""
    # Notes were validated before they were stored.
    return Note.model_construct(
        id=int(document["_id"]),  # the driver returns large integers as Int64
        title=document["title"],
        description=document["description"],
        tags=document["tags"],
        version=document["version"],
        created_date=document["created_date"],
        updated_date=document["updated_date"],
        content=document["content"],
    )


def note_json_of(document: Mapping[str, Any]) -> BsonDocument:
    """Return a note in the JSON form of lists, with its content if the projection includes it."""
    shown = {
        "id": int(document["_id"]),
        "title": document["title"],
        "description": document["description"],
        "tags": document["tags"],
        "version": document["version"],
        "created_date": iso(document["created_date"]),
        "updated_date": iso(document["updated_date"]),
    }
    if "content" in document:
        shown["content"] = document["content"]
    return shown


def access_of(document: Mapping[str, Any]) -> Access:
    """Return the access rights in a note's document."""
    stored = document.get("access")
    if stored is None:
        return UNSHARED_ACCESS
    link = stored["link"]
    return Access(
        stored["owner"],
        {member["name"]: Role(member["role"]) for member in stored["members"]},
        None if link is None else Link(Role(link["role"]), link["nonce"], link["key"]),
        stored["public"],
        stored["since"],
        {former["key"]: former["version"] for former in stored["former"]},
    )


def access_fields(access: Access) -> BsonDocument:
    """Return the fields of a note's document for these access rights."""
    link = access.link
    return {
        "access": {
            "owner": access.owner,
            "members": [{"name": name, "role": int(role)} for name, role in access.members.items()],
            "link": None if link is None else {"role": int(link.role), "nonce": link.nonce, "key": link.key},
            "public": access.public,
            "since": access.since,
            "former": [{"key": key, "version": version} for key, version in access.former.items()],
        },
        "readers": list(access.roles),
    }


def open_to(keys: frozenset[Key]) -> BsonDocument:
    """Return the condition for notes that one of these keys gives access to."""
    return {"readers": {"$in": list(keys)}}


def change_of(document: Mapping[str, Any]) -> NoteChange:
    """Return the change that led to this document."""
    return NoteChange(note_of(document), deleted=document["deleted"], access=access_of(document))


def state_of(document: Mapping[str, Any]) -> NoteState:
    """Return the access rights and the version in a note's document."""
    return NoteState(NoteAccess(access_of(document), not document["deleted"]), document["version"])


def record_of(document: Mapping[str, Any]) -> Record:
    """Return the record in a note's document."""
    return Record(
        note_of(document),
        document["deleted"],
        "purged" in document,
        document["operations"],
        document.get("lineage"),
        document.get("edited"),
        access_of(document),
    )


def revision_of(entry: Mapping[str, Any]) -> Revision:
    """Return the revision in an entry of ``recent`` or in a document of the history."""
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
