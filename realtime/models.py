"""The note, as clients send it and as they get it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

MAX_ID = 2**53 - 1  # the largest integer that every JSON reader keeps exact (RFC 7493, section 2.2)
MAX_CONTENT = 1024 * 1024


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


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _or_empty_text(value: Any) -> Any:
    return "" if value is None else value


def _or_empty_list(value: Any) -> Any:
    return [] if value is None else value


Moment = Annotated[datetime, PlainSerializer(_iso, when_used="json")]
NoteId = Annotated[int, Field(ge=1, le=MAX_ID)]
Version = Annotated[int, Field(ge=1)]
Text = Annotated[str, AfterValidator(_storable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
Line = Annotated[Text, Field(min_length=3, max_length=50)]
Content = Annotated[Text, AfterValidator(_content_size), Field(description="at most 1 MiB of UTF-8")]
Tags = Annotated[list[Annotated[Text, Field(min_length=1, max_length=50)]], Field(max_length=32)]


class Model(BaseModel):
    """Base of what clients send: unknown fields are refused, values are not coerced into other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NoteIn(Model):
    """A new note."""

    title: Line
    description: Line
    content: Content = ""
    tags: Tags = []


class NotePut(Model):
    """A replacement for title and description. ``content`` and ``tags`` stay as they are when they are left out."""

    title: Line
    description: Line
    content: Content = ""
    tags: Tags = []


class NotePatch(Model):
    """A JSON merge patch (RFC 7396). ``null`` takes a field back to its default; title and description have none."""

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

    content: str


@dataclass(frozen=True, slots=True)
class Change:
    """A committed state of a note. A deletion is a state too: ``note`` is then what the tombstone keeps."""

    note: Note
    deleted: bool = False


KEPT_OPERATIONS = 8  # keyed writes that a note remembers


@dataclass(frozen=True, slots=True)
class Operation:
    """What makes a write safe to repeat: the client's ``Idempotency-Key`` and a digest of its whole request."""

    key: str
    fingerprint: bytes


def etag(version: int) -> str:
    """The entity tag of a version, with its quotes."""
    return f'"v{version}"'
