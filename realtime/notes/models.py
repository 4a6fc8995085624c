"""The models of notes in requests and responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from realtime.auth.permissions import UNSHARED_ACCESS, Access

MAX_ID = 2**53 - 1  # the largest integer that every JSON reader keeps exact (RFC 7493, section 2.2)
MAX_CONTENT_BYTES = 1024 * 1024
MAX_TAGS = 32
MAX_TAG_CHARACTERS = 50
LINE_CHARACTERS = (3, 50)
"""The minimum and maximum lengths of titles and descriptions."""


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return text


def _content_size(text: str) -> str:
    if len(text) > MAX_CONTENT_BYTES or len(text.encode()) > MAX_CONTENT_BYTES:
        raise ValueError(f"must be at most {MAX_CONTENT_BYTES} bytes of UTF-8")
    return text


@lru_cache(8192)  # the same notes are read repeatedly
def iso(moment: datetime) -> str:
    """Return a UTC time in ISO 8601 format with milliseconds, as in responses."""
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def _integral(value: Any) -> Any:
    # In JSON Schema, 1.0 is an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _or_empty_text(value: Any) -> Any:
    return "" if value is None else value


def _or_empty_list(value: Any) -> Any:
    return [] if value is None else value


Integral = BeforeValidator(_integral)
Moment = Annotated[datetime, PlainSerializer(iso, when_used="json")]
NoteId = Annotated[int, Field(ge=1, le=MAX_ID)]
Version = Annotated[int, Field(ge=1)]
STORABLE = (AfterValidator(_storable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"}))
"""The constraints of a ``str`` that can be stored. They follow the length constraints, which count characters."""
Text = Annotated[str, *STORABLE]
Line = Annotated[str, Field(min_length=LINE_CHARACTERS[0], max_length=LINE_CHARACTERS[1]), *STORABLE]
Content = Annotated[Text, AfterValidator(_content_size), Field(description="at most 1 MiB of UTF-8")]
Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG_CHARACTERS), *STORABLE]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]


EXAMPLE: dict[str, Any] = {
    "id": 1,
    "title": "Groceries",
    "description": "for the weekend",
    "tags": ["home"],
    "version": 3,
    "created_date": "2026-01-01T09:00:00.000Z",
    "updated_date": "2026-01-02T18:30:00.000Z",
    "content": "# To buy\nmilk\nbread\n",
}
"""The note in all examples."""


def example(*names: str, **more: Any) -> ConfigDict:
    """Return the configuration of a model whose example has these fields of :data:`EXAMPLE`, and others."""
    return ConfigDict(json_schema_extra={"examples": [{name: EXAMPLE[name] for name in names} | more]})


class Model(BaseModel):
    """Base of request models. Unknown fields are rejected, and values are not converted to other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


ReadOnly = Annotated[Any, Field(exclude=True, json_schema_extra={"readOnly": True})]


class NoteFields(Model):
    """Base of the notes in requests. Read-only fields are accepted and ignored.

    A client can therefore change a note from any response and send it back without removing fields.
    """

    id: ReadOnly = None
    version: ReadOnly = None
    created_date: ReadOnly = None
    updated_date: ReadOnly = None
    deleted_date: ReadOnly = None
    merged: ReadOnly = None
    snippet: ReadOnly = None

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that were sent and can be changed."""
        return self.model_dump(exclude_unset=True)


class NoteIn(NoteFields):
    """A new note."""

    model_config = example("title", "description", "content", "tags")

    title: Line
    description: Line
    content: Content = ""
    tags: Tags = []


@dataclass(frozen=True, slots=True)
class DatedNote:
    """A new note with its original dates; ``None`` for unknown dates."""

    note: NoteIn
    created: datetime | None = None
    updated: datetime | None = None


class NotePut(NoteFields):
    """New title and description of a note. ``content`` and ``tags`` do not change if they are omitted."""

    model_config = example("title", "description")

    title: Line
    description: Line
    content: Content = ""
    tags: Tags = []


class NotePatch(NoteFields):
    """A JSON merge patch (RFC 7396). ``null`` resets a field to its default; title and description have no default."""

    model_config = example(description="for Sunday", tags=None)

    title: Annotated[Line, Field(default_factory=str)]
    description: Annotated[Line, Field(default_factory=str)]
    content: Annotated[Content | None, AfterValidator(_or_empty_text), Field(default_factory=str)]
    tags: Annotated[Tags | None, AfterValidator(_or_empty_list), Field(default_factory=list)]


class NoteHead(BaseModel):
    """A note without its content. ``version`` starts at 1 and increases by 1 with every change."""

    id: NoteId
    title: str
    description: str
    tags: list[str]
    version: Version
    created_date: Moment
    updated_date: Moment


class Note(NoteHead):
    """A note with its content."""

    model_config = example(*EXAMPLE)

    content: str  # the last field, so that the bytes of an event can be cut before it


class NoteListed(NoteHead):
    """A note in a list. With ``q``, it has a snippet of the text that was found."""

    model_config = example(*EXAMPLE, snippet="# To buy\n<mark>milk</mark>\nbread\n")

    content: Annotated[str, Field(default_factory=str, description="omitted with `content=false`")]
    snippet: Annotated[
        str | None, Field(description="HTML: an escaped excerpt of the text with `<mark>` around each match")
    ] = None


class Trashed(Note):
    """A note in the trash."""

    model_config = example(*EXAMPLE, version=4, deleted_date="2026-01-03T12:00:00.000Z")

    deleted_date: Moment


class TagCount(BaseModel):
    """A tag with the number of notes that have it."""

    model_config = example(tag="home", count=12)

    tag: str
    count: int


Action = Literal["create", "update", "edit", "type", "import", "restore", "delete", "undelete", "share"]


_REVISED: dict[str, Any] = {
    "version": 3,
    "date": "2026-01-02T18:30:00.000Z",
    "author": None,
    "authors": [],
    "action": "update",
    "restored": None,
    "changed": ["content"],
}


class Revision(BaseModel):
    """A version of a note in its history: its author, date and action, and the fields that it changed."""

    model_config = example("title", "description", "tags", **_REVISED)

    version: Version
    date: Moment
    author: Annotated[str | None, Field(description="the name of the user who made the change; `null` for a guest")]
    authors: Annotated[
        list[str], Field(default_factory=list, description="the names of the users whose typed text the version adds")
    ]
    action: Action
    restored: Annotated[int | None, Field(description="for `restore`, the version that was restored")]
    changed: Annotated[list[str], Field(description="fields whose value differs from the previous version")]
    title: str
    description: str
    tags: list[str]


class RevisionText(Revision):
    """A version of a note with its content."""

    model_config = example("title", "description", "tags", "content", **_REVISED)

    content: str


@dataclass(frozen=True, slots=True)
class NoteChange:
    """A committed state of a note.

    Attributes:
        note: The note. For a deletion, the fields that the tombstone keeps.
        deleted: Whether the note was deleted.
        access: The access rights of the note.
    """

    note: Note
    deleted: bool = False
    access: Access = UNSHARED_ACCESS


class StorageUsage(NamedTuple):
    """The number of a user's notes and their total size in bytes, including the trash."""

    notes: int
    size: int


def size_of(fields: Mapping[str, Any]) -> int:
    """Return the size in bytes of the title, the description, the content and the tags among the fields of a note."""
    texts = [fields.get(name) or "" for name in ("title", "description", "content")]
    return sum(len(text.encode()) for text in (*texts, *(fields.get("tags") or ())))
