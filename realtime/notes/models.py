"""The note, as clients send it and as they get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from realtime.auth.permissions import UNSHARED_ACCESS, Access

MAX_ID = 2**53 - 1  # the largest integer that every JSON reader keeps exact (RFC 7493, section 2.2)
MAX_CONTENT = 1024 * 1024
MAX_TAGS = 32
MAX_TAG = 50
LINE_LENGTH = (3, 50)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return text


def _content_size(text: str) -> str:
    if len(text) > MAX_CONTENT or len(text.encode()) > MAX_CONTENT:
        raise ValueError(f"must be at most {MAX_CONTENT} bytes of UTF-8")
    return text


@lru_cache(8192)  # the same notes are read again and again
def iso(moment: datetime) -> str:
    """A moment, in UTC, as clients get it."""
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def _integral(value: Any) -> Any:
    # To JSON Schema 1.0 is an integer, too.
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
"""What makes a ``str`` one that can be stored; after its length, so that an error tells of characters."""
Text = Annotated[str, *STORABLE]
Line = Annotated[str, Field(min_length=LINE_LENGTH[0], max_length=LINE_LENGTH[1]), *STORABLE]
Content = Annotated[Text, AfterValidator(_content_size), Field(description="at most 1 MiB of UTF-8")]
Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG), *STORABLE]
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
"""The note of all examples."""


def example(*names: str, **more: Any) -> ConfigDict:
    """The configuration of a model whose example has these fields of :data:`EXAMPLE`, and more."""
    return ConfigDict(json_schema_extra={"examples": [{name: EXAMPLE[name] for name in names} | more]})


class Model(BaseModel):
    """Base of what clients send: unknown fields are refused, values are not coerced into other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


ReadOnly = Annotated[Any, Field(exclude=True, json_schema_extra={"readOnly": True})]


class NoteFields(Model):
    """Base of the notes in requests. Read-only fields are accepted and ignored.

    So a client can change a note that it received, in any answer, and send it back as it is.
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
    """A new note with the dates that it had elsewhere; ``None`` for those that are not known."""

    note: NoteIn
    created: datetime | None = None
    updated: datetime | None = None


class NotePut(NoteFields):
    """A replacement for title and description. ``content`` and ``tags`` stay as they are when they are left out."""

    model_config = example("title", "description")

    title: Line
    description: Line
    content: Content = ""
    tags: Tags = []


class NotePatch(NoteFields):
    """A JSON merge patch (RFC 7396). ``null`` takes a field back to its default; title and description have none."""

    model_config = example(description="for Sunday", tags=None)

    title: Annotated[Line, Field(default_factory=str)]
    description: Annotated[Line, Field(default_factory=str)]
    content: Annotated[Content | None, AfterValidator(_or_empty_text), Field(default_factory=str)]
    tags: Annotated[Tags | None, AfterValidator(_or_empty_list), Field(default_factory=list)]


class NoteHead(BaseModel):
    """A note without its text. ``version`` starts at 1 and grows by exactly 1 with every committed change."""

    id: NoteId
    title: str
    description: str
    tags: list[str]
    version: Version
    created_date: Moment
    updated_date: Moment


class Note(NoteHead):
    """A note. ``content`` comes last, so that an event's bytes can be cut before it."""

    model_config = example(*EXAMPLE)

    content: str


class NoteListed(NoteHead):
    """A note in a list; with ``q``, a snippet of it."""

    model_config = example(*EXAMPLE, snippet="# To buy\n<mark>milk</mark>\nbread\n")

    content: Annotated[str, Field(default_factory=str, description="left out under `content=false`")]
    snippet: Annotated[
        str | None, Field(description="HTML: an excerpt of the text, escaped, with `<mark>` around what was found")
    ] = None


class Trashed(Note):
    """A note in the trash."""

    model_config = example(*EXAMPLE, version=4, deleted_date="2026-01-03T12:00:00.000Z")

    deleted_date: Moment


class TagCount(BaseModel):
    """A tag, and how many notes have it."""

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
    """A version of a note in its history: who made it when and how, and which fields changed by it."""

    model_config = example("title", "description", "tags", **_REVISED)

    version: Version
    date: Moment
    author: Annotated[str | None, Field(description="who made it; `null` is a guest")]
    authors: Annotated[list[str], Field(default_factory=list, description="the names of those whose typing it brought")]
    action: Action
    restored: Annotated[int | None, Field(description="for `restore`, the version that was taken back")]
    changed: Annotated[list[str], Field(description="fields whose value is another than in the version before")]
    title: str
    description: str
    tags: list[str]


class RevisionText(Revision):
    """A version of a note, whole."""

    model_config = example("title", "description", "tags", "content", **_REVISED)

    content: str


@dataclass(frozen=True, slots=True)
class NoteChange:
    """A committed state of a note. A deletion is a state too: ``note`` is then what the tombstone keeps."""

    note: Note
    deleted: bool = False
    access: Access = UNSHARED_ACCESS


class StorageUsage(NamedTuple):
    """How much a user stores, the trash included: notes, and bytes of them."""

    notes: int
    size: int


def size_of(fields: Mapping[str, Any]) -> int:
    """Return the size in bytes of the title, the description, the content and the tags among the fields of a note."""
    texts = [fields.get(name) or "" for name in ("title", "description", "content")]
    return sum(len(text.encode()) for text in (*texts, *(fields.get("tags") or ())))
