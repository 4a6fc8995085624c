"""Text operations: small edits of a content that need not be sent, or known, as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from realtime.errors import EditRefused
from realtime.merge import content_too_long, lines_of
from realtime.models import MAX_CONTENT, STORABLE, Integral, Model

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

    Raises :class:`EditRefused` if one does not fit, :class:`WouldNotFit`.
    """
    for number, edit in enumerate(edits):
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
                    raise content_too_long()
                parts = [content.replace(edit.find, edit.replacement)]
        content = "".join(parts)
        if len(content) > MAX_CONTENT or len(content.encode()) > MAX_CONTENT:
            raise content_too_long()
    return content


def _places(content: str, find: str) -> Iterator[int]:
    at = content.find(find)
    while at >= 0:
        yield at
        at = content.find(find, at + len(find))


def _expect(number: int, op: str, what: str, expected: int, found: int, places: Iterable[int]) -> None:
    if found != expected:
        raise EditRefused(number, op, what, expected=expected, found=found, at=list(islice(places, SHOWN)))


_FENCE = re.compile(r" {0,3}(`{3,}(?!.*`)|~{3,})")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+")


def headings(content: str) -> Iterator[tuple[int, str]]:
    """The ATX headings of a Markdown text (CommonMark 4.2) outside of fenced code: where each ends, and its words."""
    end = 0
    fence = ""
    for line in lines_of(content):
        end += len(line)
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        elif mark:
            fence = mark[1]
        elif heading := _HEADING.match(line):
            yield end, words_of(line[heading.end() :])


def words_of(heading: str) -> str:
    """What an ATX heading says, without the ``#`` that may close it."""
    words = heading.strip()
    opened = words.rstrip("#")
    return opened.rstrip() if not opened or opened[-1] in " \t" else words
