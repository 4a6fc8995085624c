"""A note as a Markdown file with YAML front matter, and back: the content, byte for byte, is what follows it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from unicodedata import normalize

from pydantic import ValidationError

from realtime.errors import FileSkipped
from realtime.notes.headings import first_heading, first_line
from realtime.notes.models import LINE_LENGTH, MAX_CONTENT, MAX_TAG, MAX_TAGS, Note, NoteIn, iso
from realtime.notes.validation import describe
from realtime.transfer.front_matter import (
    FORMAT_VERSION,
    MARKER,
    MAX_CHARACTERS,
    FrontMatter,
    date_of,
    dump,
    split,
    with_title,
)
from realtime.transfer.text_encoding import WIDEST_CHARACTER, decode

FILE_BYTES = WIDEST_CHARACTER * (MAX_CONTENT + MAX_CHARACTERS)
"""The largest file that can hold a note, in the widest encoding."""
SUFFIXES = (".md", ".markdown")

CUT = f"title: was cut to {LINE_LENGTH[1]} characters"
_NOTION_ID = re.compile(r"\s[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class NoteFile:
    """A note that was read from a file.

    Attributes:
        note: The note.
        id: The id in the front matter, if it is one that a note can have.
        created: When the note was made, if the front matter says so.
        updated: When the note was changed last, if the front matter says so.
        changes: What of the file is not in the note as it was in the file.
    """

    note: NoteIn
    id: int | None = None
    created: datetime | None = None
    updated: datetime | None = None
    changes: tuple[str, ...] = ()


def file_name(note: Note) -> str:
    """The name of a note's file, unique by its id."""
    slug = re.sub(r"[^a-z0-9]+", "-", note.title.lower()).strip("-")
    return f"{note.id:06d}{'-' * bool(slug)}{slug}.md"


def to_markdown(note: Note) -> str:
    """The text of a note's file."""
    shown = note.model_dump(mode="json", include={"created_date", "updated_date"})
    matter = {
        MARKER: FORMAT_VERSION,
        "id": note.id,
        "title": note.title,
        "description": note.description,
        "tags": list(note.tags),
        "created": shown["created_date"],
        "updated": shown["updated_date"],
    }
    return f"---\n{dump(matter)}---\n{note.content}"


def from_markdown(name: str, data: bytes) -> NoteFile:
    """Make a note from a Markdown file, which may be of any program.

    What the note has a field for goes there: the title is the one of the front matter, else the first heading, else
    the name of the file; the description is the one of the front matter, else the first line of text. What does not fit
    into its field is cut. The front matter stays in the content unless all that it says is in the note's fields, so
    nothing is lost.

    Args:
        name: The name of the file, with ``/`` between folders.
        data: What is in the file, in any encoding that :func:`realtime.transfer.text_encoding.decode` knows.

    Raises:
        FileSkipped: The file is not a text, or too long.
    """
    text, changes = decode(data)
    matter, body = split(text)
    changes += matter.problems
    title, whole_name = _title(name, matter, body, changes)
    fields: dict[str, Any] = {
        "title": title,
        "description": _given_line(matter, "description", title, changes) or _fitted(first_line(body), title),
        "tags": _tags(matter, changes),
    }
    fields["content"] = body if _holds(matter, fields) else text
    if whole_name is not None:
        kept = with_title(fields["content"], whole_name)
        if len(kept.encode(errors="replace")) <= MAX_CONTENT:
            fields["content"] = kept
            changes[changes.index(CUT)] = f"{CUT}; the full file name was added to the front matter"
    dates: dict[str, datetime | None] = {}
    for field in ("created", "updated"):
        value = matter.get(field)
        dates[field] = date_of(value)
        if value is not None and dates[field] is None:
            changes.append(f"{field}: is not a date; it stays in the content")
    try:
        note = NoteIn.model_validate(fields)
    except ValidationError as error:
        raise FileSkipped(describe(error.errors())) from None
    return NoteFile(note, _id(matter.get("id")), **dates, changes=tuple(changes))


def _holds(matter: FrontMatter, fields: dict[str, Any]) -> bool:
    """Whether all that the front matter says is in the fields of the note, so that it need not stay in the text."""
    return matter.exact and all(
        _is_empty(value) or _is_held(key, value, fields, exported=matter.exported)
        for key, value in matter.values.items()
    )


def _is_held(key: str, value: Any, fields: dict[str, Any], *, exported: bool) -> bool:
    match key:
        case "title" | "description":
            return bool(value == fields[key])
        case "tags":
            return value in (fields["tags"], ", ".join(fields["tags"]))
        case "id":
            return exported and _id(value) is not None
        case "created" | "updated":
            date = date_of(value)
            return exported and date is not None and iso(date) == value
    return exported and key == MARKER


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [])


def _title(name: str, matter: FrontMatter, body: str, changes: list[str]) -> tuple[str, str | None]:
    """Return the title, and the name of the file where it was cut and is nowhere in the text."""
    given = _given_line(matter, "title", "Note", changes)
    if given:
        return given, None
    # Archives of macOS have names in decomposed form.
    path = PurePosixPath(name.encode(errors="replace").decode())
    bundled = path.stem.lower() == "text" and path.parent.suffix.lower() == ".textbundle"
    stem = normalize("NFC", path.parent.stem if bundled else path.stem)
    heading = first_heading(body)
    found = heading or _NOTION_ID.sub("", stem) or stem
    title = _fitted(found, "Note")
    if len(" ".join(found.split())) <= LINE_LENGTH[1]:
        return title, None
    if heading or matter.values.get("title") is not None:
        changes.append(CUT)
        return title, None
    changes.append(CUT)
    return title, found


def _given_line(matter: FrontMatter, field: str, other: str, changes: list[str]) -> str:
    """The title or description of the front matter; empty if there is none."""
    value = matter.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        changes.append(f"{field}: is not a string; it stays in the content")
        return ""
    low, high = LINE_LENGTH
    if matter.exported and low <= len(value) <= high:
        return value
    if not value.strip():
        return ""
    line = _fitted(value, other)
    if line != value:
        joined = " ".join(value.split())
        kind = (
            f"was cut to {high} characters" if len(joined) > high else "was written on one line, without extra spaces"
        )
        changes.append(f"{field}: {kind if len(joined) >= low else f'was shorter than {low} characters'}")
    return line


def _tags(matter: FrontMatter, changes: list[str]) -> list[str]:
    """The tags of the front matter: a list, lists in lists, or a text with commas between them."""
    value = matter.get("tags")
    if isinstance(value, dict):
        changes.append("tags: are not a list; they stay in the content")
    if isinstance(value, str):
        hashed = value.split()
        given = hashed if len(hashed) > 1 and all(word.startswith("#") for word in hashed) else value.split(",")
    else:
        given = list(_flat(value)) if isinstance(value, list) else []
    if matter.exported and isinstance(value, list) and given == value:
        texts = [tag for tag in given if tag]
    else:
        texts = [tag for tag in dict.fromkeys(tag.strip().removeprefix("#").strip() for tag in given) if tag]
    if any(len(tag) > MAX_TAG for tag in texts):
        changes.append(f"tags: were cut to {MAX_TAG} characters")
    if len(texts) > MAX_TAGS:
        changes.append(f"tags: only the first {MAX_TAGS} were taken; the others stay in the text")
    return [tag[:MAX_TAG] for tag in texts[:MAX_TAGS]]


def _flat(values: list[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _flat(value)


def _id(given: Any) -> int | None:
    """A note's id; ``None`` for what is none."""
    return int(given) if isinstance(given, str) and re.fullmatch(r"[1-9][0-9]{0,15}", given) else None


def _fitted(text: str, other: str) -> str:
    """A text as a line of a note, cut where it is too long; with ``other`` before it where it is too short."""
    low, high = LINE_LENGTH
    line = " ".join(text.split())
    if len(line) < low:
        line = f"{other} {line}".strip()
    return line if len(line) <= high else line[: high - 1].rstrip() + "…"
