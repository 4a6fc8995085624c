"""A note as a Markdown file with YAML front matter, and back: the content, byte for byte, is what follows it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from realtime.errors import ImportRefused
from realtime.models import LINE_LENGTH, MAX_CONTENT, MAX_TAG, MAX_TAGS, Note, NoteIn, describe
from realtime.text import heading_in, lines_of

FRONT_MATTER_BYTES = 64 * 1024
MOST_DEPTH = 10
FILE_BYTES = MAX_CONTENT + FRONT_MATTER_BYTES
SUFFIXES = (".md", ".markdown")
KNOWN = {"id", "title", "description", "tags", "created", "updated"}

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?\n)??---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def file_name(note: Note) -> str:
    """The name of a note's file, unique by its id."""
    slug = re.sub(r"[^a-z0-9]+", "-", note.title.lower()).strip("-")
    return f"{note.id:06d}{'-' * bool(slug)}{slug}.md"


def to_markdown(note: Note) -> str:
    """The text of a note's file."""
    shown = note.model_dump(mode="json", include={"created_date", "updated_date"})
    matter = {
        "id": note.id,
        "title": note.title,
        "description": note.description,
        "tags": list(note.tags),
        "created": shown["created_date"],
        "updated": shown["updated_date"],
    }
    dumped = yaml.dump(
        matter, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=False
    )
    return f"---\n{dumped}---\n{note.content}"


def from_markdown(name: str, data: bytes) -> tuple[int | None, NoteIn]:
    """A note, and its id if it has one. ``name`` is that of its file.

    A file with a note's id is one of an export, and taken at its word. In any other the title is the one of the front
    matter, else the first heading, else the file's name; the description is the first line of text; what is too long is
    cut. Front matter stays in the content unless all of it went into the note, so nothing is lost. Raises
    :class:`ImportRefused`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImportRefused(f"{name}: is not text in UTF-8") from None
    matter, body = _split(text)
    id = _id(matter.get("id"))
    fields = _adapted(name, matter, body, text)
    if id is not None:
        fields |= {field: matter[field] for field in ("title", "description", "tags") if field in matter}
        fields["content"] = body if matter.keys() <= KNOWN else text
    try:
        return id, NoteIn.model_validate(fields)
    except ValidationError as error:
        raise ImportRefused(f"{name}: {describe(error.errors())}") from None


def _adapted(name: str, matter: dict[str, Any], body: str, text: str) -> dict[str, Any]:
    """The fields of a note made of a file of other origin."""
    given = {
        field: value for field in ("title", "description") if isinstance(value := matter.get(field), str) and value
    }
    title = _fitted(given.get("title") or _first_heading(body) or PurePosixPath(name).stem, "Note")
    fields: dict[str, Any] = {
        "title": title,
        "description": _fitted(given.get("description") or _first_line(body), title),
        "tags": _tags(matter.get("tags")),
    }
    # Front matter that went into the note whole need not stay in the text.
    whole = "#" not in text[: len(text) - len(body)] and all(
        value in (fields.get(field), "", None) or (field == "tags" and value == ", ".join(fields["tags"]))
        for field, value in matter.items()
    )
    return {**fields, "content": body if whole else text}


def _split(text: str) -> tuple[dict[str, Any], str]:
    """The front matter and what follows it; all is text where there is none, or none that can be read."""
    match = _FRONT_MATTER.match(text[:FRONT_MATTER_BYTES])
    if match is None:
        return {}, text
    try:
        _check_shape(match[1] or "")
        # Every scalar is a text: a title of 2026 is no number, and there is nothing to construct.
        matter = yaml.load(match[1] or "", Loader=yaml.CBaseLoader)  # builds texts, lists and mappings only
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}, text
    if not matter:
        return {}, text[match.end() :]
    if not isinstance(matter, dict) or not all(isinstance(key, str) for key in matter):
        return {}, text
    return matter, text[match.end() :]


def _check_shape(matter: str) -> None:
    """Refuses what is deep or refers to itself before it is built: that could take any time, or the whole process."""
    depth = 0
    for event in yaml.parse(matter, Loader=yaml.CBaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("it is too deep, or refers to itself")


def _id(given: Any) -> int | None:
    """A note's id; ``None`` for what is none."""
    return int(given) if isinstance(given, str) and re.fullmatch(r"[1-9][0-9]{0,15}", given) else None


def _tags(given: Any) -> list[str]:
    """Tags of other programs: a list, or a text with commas between them."""
    tags = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else []
    texts = [tag.strip().replace("\0", "")[:MAX_TAG] for tag in tags if isinstance(tag, str)]
    return [tag for tag in dict.fromkeys(texts) if tag][:MAX_TAGS]


def _first_heading(content: str) -> str | None:
    for line in lines_of(content):
        if line.strip():
            return heading_in(line)
    return None


def _first_line(content: str) -> str:
    return next((line for line in lines_of(content) if line.strip() and not line.startswith(("#", "---"))), "")


def _fitted(text: str, other: str) -> str:
    """A text as a line of a note, cut where it is too long; with ``other`` before it where it is too short."""
    low, high = LINE_LENGTH
    line = " ".join(text.replace("\0", " ").split())
    if len(line) < low:
        line = f"{other} {line}".strip()
    return line if len(line) <= high else line[: high - 1].rstrip() + "…"
