"""Documents and models: how a note is stored, and how it is read back.

A note's document holds, beside its fields:

- ``deleted``; ``deleted_date`` while it is in the trash; ``purged`` once only its id and version are left
- ``title_key``: what titles are ordered by, the title without case and accents
- ``words``: the part of the content that is searched; ``words_version``: the ``text_version`` that it is of
- ``dirty``: its last change may not be published
- ``operations``, ``origin``: tokens of the last keyed writes, and of the keyed write that made it
- ``recent``: the last revisions, each with the ``mark`` of its update, until they are archived in ``history``
- ``text_version``: the revision that holds the content as it is now
- ``lineage``: the name of its shared text, once it has one; ``edits``: updates of it that are not in the journal yet;
  ``edited``: the last of them that came in over REST
- ``access``: who may do what, if it was made with accounts; ``readers``: the keys that open it, for the lists
- ``keyframe``: the archived revision that the next ones are stored as differences to
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
"""The projection to what :func:`note_of` and :func:`change_of` read."""
RECORD = {name: False for name in NOTE if name != "operations"}
"""The projection to what :func:`record_of` reads."""
STATE = dict.fromkeys(("version", "deleted", "access"), True)
"""The projection to what :func:`state_of` reads."""
HEAD = dict.fromkeys(("title", "description", "tags", "version", "created_date", "updated_date"), True)
"""The projections to what :func:`shown_of` reads, without and with the content."""
WHOLE = {**HEAD, "content": True}


@dataclass(frozen=True, slots=True)
class Record:
    """A note as it is stored, deleted ones included, with the tokens of the last operations on it."""

    note: Note
    deleted: bool
    purged: bool
    operations: Sequence[str]
    lineage: str | None
    edited: str | None
    access: Access

    @property
    def standing(self) -> NoteAccess:
        """What decides over it."""
        return NoteAccess(self.access, not self.deleted)


class NoteState(NamedTuple):
    """Of a note, deleted ones included: who may do what with it, and its version."""

    standing: NoteAccess
    version: int


def now() -> datetime:
    """The time, in the milliseconds that MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def note_of(document: Mapping[str, Any]) -> Note:
    """A note."""
    # Not validated again: only checked notes are ever stored.
    return Note.model_construct(
        id=int(document["_id"]),  # a large one is a class of the driver's own
        title=document["title"],
        description=document["description"],
        tags=document["tags"],
        version=document["version"],
        created_date=document["created_date"],
        updated_date=document["updated_date"],
        content=document["content"],
    )


def shown_of(document: Mapping[str, Any]) -> BsonDocument:
    """A note as clients get it, with its content if that was read: what :func:`note_of` is as JSON, in a list."""
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
    """Who may do what with a note."""
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
        {one["key"]: one["version"] for one in stored["former"]},
    )


def shared(access: Access) -> BsonDocument:
    """The fields of a note's document that tell who may do what."""
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
    """The condition for notes that one of these keys opens."""
    return {"readers": {"$in": list(keys)}}


def change_of(document: Mapping[str, Any]) -> NoteChange:
    """A committed state of a note."""
    return NoteChange(note_of(document), deleted=document["deleted"], access=access_of(document))


def state_of(document: Mapping[str, Any]) -> NoteState:
    """Who may do what with a note, and its version."""
    return NoteState(NoteAccess(access_of(document), not document["deleted"]), document["version"])


def record_of(document: Mapping[str, Any]) -> Record:
    """A note as it is stored."""
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
