"""Converts a note to a Markdown file with YAML front matter, and back. An export keeps the content byte for byte."""

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
from realtime.notes.models import LINE_CHARACTERS, MAX_CONTENT_BYTES, MAX_TAG_CHARACTERS, MAX_TAGS, Note, NoteIn, iso
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

FILE_BYTES = WIDEST_CHARACTER * (MAX_CONTENT_BYTES + MAX_CHARACTERS)
"""The maximum size of a file, for a note of the maximum size in the widest encoding."""
SUFFIXES = (".md", ".markdown")

TITLE_CUT = f"title: was cut to {LINE_CHARACTERS[1]} characters"
_NOTION_ID = re.compile(r"\s[0-9a-f]{32}$")


@dataclass(frozen=True, slots=True)
class NoteFile:
    """A note that was read from a file.

    Attributes:
        note: The note.
        id: The id in the front matter, if it is valid.
        created: The creation date in the front matter, if it is valid.
        updated: The modification date in the front matter, if it is valid.
        changes: The differences between the file and the note, for the report.
    """

    note: NoteIn
    id: int | None = None
    created: datetime | None = None
    updated: datetime | None = None
    changes: tuple[str, ...] = ()


def file_name(note: Note) -> str:
    """Return the file name for a note, which is unique because it contains the id."""
    slug = re.sub(r"[^a-z0-9]+", "-", note.title.lower()).strip("-")
    return f"{note.id:06d}{'-' * bool(slug)}{slug}.md"


def to_markdown(note: Note) -> str:
    """Return a note as Markdown with YAML front matter."""
    dates = note.model_dump(mode="json", include={"created_date", "updated_date"})
    matter = {
        MARKER: FORMAT_VERSION,
        "id": note.id,
        "title": note.title,
        "description": note.description,
        "tags": list(note.tags),
        "created": dates["created_date"],
        "updated": dates["updated_date"],
    }
    return f"---\n{dump(matter)}---\n{note.content}"


def from_markdown(name: str, data: bytes) -> NoteFile:
    """Convert a Markdown file, written by any program, to a note.

    The title comes from the front matter, else from the first heading, else from the file name. The description comes
    from the front matter, else from the first line of text. Values that are too long are cut. The front matter stays in
    the content unless the fields of the note represent it completely, so that nothing is lost.

    Args:
        name: The path of the file, with ``/`` between folders.
        data: The contents of the file, in any encoding that :func:`realtime.transfer.text_encoding.decode` supports.

    Raises:
        FileSkipped: The file is not a text file, or too long.
    """
    text, changes = decode(data)
    matter, body = split(text)
    changes += matter.problems
    title, whole_name = _title(name, matter, body, changes)
    fields: dict[str, Any] = {
        "title": title,
        "description": _line(matter, "description", title, changes) or _fit_line(first_line(body), title),
        "tags": _tags(matter, changes),
    }
    fields["content"] = body if _is_redundant(matter, fields) else text
    if whole_name is not None:
        kept = with_title(fields["content"], whole_name)
        if len(kept.encode(errors="replace")) <= MAX_CONTENT_BYTES:
            fields["content"] = kept
            changes[changes.index(TITLE_CUT)] = f"{TITLE_CUT}; the full file name was added to the front matter"
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


def _is_redundant(matter: FrontMatter, fields: dict[str, Any]) -> bool:
    """Return whether the fields of the note represent the front matter completely, so that it can be removed."""
    return matter.exact and all(
        _is_empty(value) or _is_field_value(key, value, fields, exported=matter.exported)
        for key, value in matter.values.items()
    )


def _is_field_value(key: str, value: Any, fields: dict[str, Any], *, exported: bool) -> bool:
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
    """Return the title, and the full file name if the title is a part of it that was cut."""
    given = _line(matter, "title", "Note", changes)
    if given:
        return given, None
    # macOS stores file names in decomposed form.
    path = PurePosixPath(name.encode(errors="replace").decode())
    bundled = path.stem.lower() == "text" and path.parent.suffix.lower() == ".textbundle"
    stem = normalize("NFC", path.parent.stem if bundled else path.stem)
    heading = first_heading(body)
    full = heading or _NOTION_ID.sub("", stem) or stem
    title = _fit_line(full, "Note")
    if len(" ".join(full.split())) <= LINE_CHARACTERS[1]:
        return title, None
    changes.append(TITLE_CUT)
    return title, None if heading or matter.values.get("title") is not None else full


def _line(matter: FrontMatter, field: str, other: str, changes: list[str]) -> str:
    """Return the title or description in the front matter, or an empty string."""
    value = matter.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        changes.append(f"{field}: is not a string; it stays in the content")
        return ""
    low, high = LINE_CHARACTERS
    if matter.exported and low <= len(value) <= high:
        return value
    if not value.strip():
        return ""
    line = _fit_line(value, other)
    if line != value:
        joined = " ".join(value.split())
        kind = (
            f"was cut to {high} characters" if len(joined) > high else "was written on one line, without extra spaces"
        )
        changes.append(f"{field}: {kind if len(joined) >= low else f'was shorter than {low} characters'}")
    return line


def _tags(matter: FrontMatter, changes: list[str]) -> list[str]:
    """Return the tags in the front matter: a list, nested lists, or a string with commas or hashtags."""
    value = matter.get("tags")
    if isinstance(value, dict):
        changes.append("tags: are not a list; they stay in the content")
    if isinstance(value, str):
        words = value.split()
        is_hashtags = len(words) > 1 and all(word.startswith("#") for word in words)
        tags = words if is_hashtags else value.split(",")
    else:
        tags = list(_flatten(value)) if isinstance(value, list) else []
    if matter.exported and isinstance(value, list) and tags == value:
        texts = [tag for tag in tags if tag]
    else:
        texts = [tag for tag in dict.fromkeys(tag.strip().removeprefix("#").strip() for tag in tags) if tag]
    if any(len(tag) > MAX_TAG_CHARACTERS for tag in texts):
        changes.append(f"tags: were cut to {MAX_TAG_CHARACTERS} characters")
    if len(texts) > MAX_TAGS:
        changes.append(f"tags: only the first {MAX_TAGS} were used; the others stay in the content")
    return [tag[:MAX_TAG_CHARACTERS] for tag in texts[:MAX_TAGS]]


def _flatten(values: list[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _flatten(value)


def _id(value: Any) -> int | None:
    """Return the id in the front matter, or ``None`` if it is not valid."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,15}", value) else None


def _fit_line(text: str, other: str) -> str:
    """Return a text as a title or description: cut if it is too long, and with a prefix if it is too short."""
    low, high = LINE_CHARACTERS
    line = " ".join(text.split())
    if len(line) < low:
        line = f"{other} {line}".strip()
    return line if len(line) <= high else line[: high - 1].rstrip() + "…"
