"""Text operations: small edits of a content that need not be sent, or known, as a whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from realtime.errors import ContentTooLong, EditRefused, FieldTooLong
from realtime.notes.headings import headings
from realtime.notes.models import MAX_CONTENT, STORABLE, Integral, Model

TIME_LIMIT = 1.0
SHOWN = 10
"""Places of a text that a refusal names at most."""

Piece = Annotated[str, Field(min_length=1, max_length=MAX_CONTENT), *STORABLE]
Heading = Annotated[
    str,
    Field(min_length=1, max_length=1000, description="a Markdown heading, without its `#`", examples=["To do"]),
    *STORABLE,
]


class Append(Model):
    """Puts text at the end."""

    op: Literal["append"]
    text: Piece


class Prepend(Model):
    """Puts text at the beginning."""

    op: Literal["prepend"]
    text: Piece


class Replace(Model):
    """Replaces an exact text, which must be there exactly ``count`` times."""

    op: Literal["replace"]
    find: Piece
    replacement: Annotated[str, Field(alias="with", max_length=MAX_CONTENT), *STORABLE]
    count: Annotated[int, Field(ge=1, le=MAX_CONTENT), Integral] = 1


class Insert(Model):
    """Puts text on the line after a Markdown heading, of which there must be exactly one."""

    op: Literal["insert"]
    after_heading: Heading
    text: Piece


Edit = Annotated[Append | Prepend | Replace | Insert, Field(discriminator="op")]
Edits = Annotated[list[Edit], Field(min_length=1, max_length=100)]


def edited(content: str, edits: Sequence[Edit]) -> str:
    """The content after all of the edits, one after the other.

    Raises :class:`EditRefused` if one does not fit, :class:`FieldTooLong`.
    """
    deadline = time.monotonic() + TIME_LIMIT
    for number, edit in enumerate(edits):
        if time.monotonic() > deadline:
            raise FieldTooLong(f"operations: from number {number} on they take too long on a text like this")
        match edit:
            case Append():
                parts = [content, edit.text]
            case Prepend():
                parts = [edit.text, content]
            case Insert():
                places = [end for end, heading in headings(content) if heading == edit.after_heading.strip()]
                _expect(number, edit.op, f"the heading {edit.after_heading!r}", 1, len(places), places)
                before, after = content[: places[0]], content[places[0] :]
                parts = [before, "" if before.endswith("\n") else "\n", edit.text]
                parts += ["\n" if after and not edit.text.endswith("\n") else "", after]
            case Replace():
                count = content.count(edit.find)
                _expect(number, edit.op, "the text", edit.count, count, _places(content, edit.find))
                # Before it is built: many places times a long text would be huge.
                if len(content) + count * (len(edit.replacement) - len(edit.find)) > MAX_CONTENT:
                    raise ContentTooLong(MAX_CONTENT)
                parts = [content.replace(edit.find, edit.replacement)]
        content = "".join(parts)
        if len(content) > MAX_CONTENT or len(content.encode()) > MAX_CONTENT:
            raise ContentTooLong(MAX_CONTENT)
    return content


def _places(content: str, find: str) -> Iterator[int]:
    at = content.find(find)
    while at >= 0:
        yield at
        at = content.find(find, at + len(find))


def _expect(number: int, op: str, what: str, expected: int, found: int, places: Iterable[int]) -> None:
    if found != expected:
        raise EditRefused(number, op, what, expected=expected, actual=found, offsets=list(islice(places, SHOWN)))
