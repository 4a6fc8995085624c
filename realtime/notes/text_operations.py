"""Text operations: small changes to the content of a note, for which a client need not send or know all of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from realtime.errors import ContentTooLong, EditRefused, FieldTooLong
from realtime.notes.headings import headings
from realtime.notes.models import MAX_CONTENT_BYTES, STORABLE, Integral, Model

TIME_LIMIT_SECONDS = 1.0
"""The time for all operations of a request."""
MAX_REPORTED_OFFSETS = 10
"""The maximum number of offsets in an error."""

Piece = Annotated[str, Field(min_length=1, max_length=MAX_CONTENT_BYTES), *STORABLE]
Heading = Annotated[
    str,
    Field(min_length=1, max_length=1000, description="a Markdown heading, without its `#`", examples=["To do"]),
    *STORABLE,
]


class Append(Model):
    """Add text at the end."""

    op: Literal["append"]
    text: Piece


class Prepend(Model):
    """Add text at the beginning."""

    op: Literal["prepend"]
    text: Piece


class Replace(Model):
    """Replace all occurrences of an exact text, which must occur exactly ``count`` times."""

    op: Literal["replace"]
    find: Piece
    replacement: Annotated[str, Field(alias="with", max_length=MAX_CONTENT_BYTES), *STORABLE]
    count: Annotated[int, Field(ge=1, le=MAX_CONTENT_BYTES), Integral] = 1


class Insert(Model):
    """Insert text after the line of a Markdown heading, which must occur exactly once."""

    op: Literal["insert"]
    after_heading: Heading
    text: Piece


TextOperation = Annotated[Append | Prepend | Replace | Insert, Field(discriminator="op")]
TextOperations = Annotated[list[TextOperation], Field(min_length=1, max_length=100)]


def edited(content: str, operations: Sequence[TextOperation]) -> str:
    """Apply text operations to a content in order, and return the new content.

    Raises:
        EditRefused: A text does not occur as often as an operation expects.
        FieldTooLong: The content would become too long, or the operations take too long.
    """
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    for number, operation in enumerate(operations):
        if time.monotonic() > deadline:
            raise FieldTooLong(f"operations: operation {number} and later ones take too long. Send fewer at once")
        match operation:
            case Append():
                chunks = [content, operation.text]
            case Prepend():
                chunks = [operation.text, content]
            case Insert():
                offsets = [end for end, heading in headings(content) if heading == operation.after_heading.strip()]
                _expect(number, operation.op, f"the heading {operation.after_heading!r}", 1, len(offsets), offsets)
                before, after = content[: offsets[0]], content[offsets[0] :]
                chunks = [before, "" if before.endswith("\n") else "\n", operation.text]
                chunks += ["\n" if after and not operation.text.endswith("\n") else "", after]
            case Replace():
                count = content.count(operation.find)
                _expect(number, operation.op, "the text", operation.count, count, _offsets(content, operation.find))
                # Before the content is built: many occurrences of a long replacement would need too much memory.
                if len(content) + count * (len(operation.replacement) - len(operation.find)) > MAX_CONTENT_BYTES:
                    raise ContentTooLong(MAX_CONTENT_BYTES)
                chunks = [content.replace(operation.find, operation.replacement)]
        content = "".join(chunks)
        if len(content) > MAX_CONTENT_BYTES or len(content.encode()) > MAX_CONTENT_BYTES:
            raise ContentTooLong(MAX_CONTENT_BYTES)
    return content


def _offsets(content: str, text: str) -> Iterator[int]:
    """Yield the offsets of all occurrences of a text that do not overlap."""
    offset = content.find(text)
    while offset >= 0:
        yield offset
        offset = content.find(text, offset + len(text))


def _expect(number: int, op: str, subject: str, expected: int, actual: int, offsets: Iterable[int]) -> None:
    """Raise :class:`EditRefused` unless a text or a heading occurs as often as expected."""
    if actual != expected:
        reported = list(islice(offsets, MAX_REPORTED_OFFSETS))
        raise EditRefused(number, op, subject, expected=expected, actual=actual, offsets=reported)
