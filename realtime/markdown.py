"""A note as a Markdown file with YAML front matter, and back: the content, byte for byte, is what follows it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from realtime.edits import words_of
from realtime.errors import ImportRefused
from realtime.merge import lines_of
from realtime.models import MAX_CONTENT, MAX_ID, Note, NoteIn

FRONT_MATTER_BYTES = 64 * 1024
MOST_DEPTH = 10
FILE_BYTES = MAX_CONTENT + FRONT_MATTER_BYTES
KNOWN = {"id", "title", "description", "tags", "created", "updated"}
LINE = (3, 50)

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?\n)??---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_HEADING = re.compile(r"#{1,6}[ \t]+")


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

    Without front matter the title is the first heading or the file's name, and the description the first line of text.
    Front matter with keys that are not a note's stays in the content, so that nothing is lost. Raises
    :class:`ImportRefused`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImportRefused(f"{name}: is not text in UTF-8") from None
    matter, body = _split(name, text)
    id = _id(name, matter.get("id"))
    for field in ("title", "description"):
        if not isinstance(matter.get(field, ""), str):
            raise ImportRefused(f"{name}: {field}: must be text")
    title = matter.get("title") or _fitted(_first_heading(body) or PurePosixPath(name).stem, "Note")
    fields = {
        "title": title,
        "description": matter.get("description") or _fitted(_first_line(body), title),
        "tags": _tags(matter.get("tags")),
        "content": body if matter.keys() <= KNOWN else text,
    }
    try:
        return id, NoteIn.model_validate(fields)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ImportRefused(f"{name}: {told}") from None


def _split(name: str, text: str) -> tuple[dict[str, Any], str]:
    match = _FRONT_MATTER.match(text[:FRONT_MATTER_BYTES])
    if match is None:
        return {}, text
    try:
        _check_shape(match[1] or "")
        # Every scalar is a text: a title of 2026 is no number, and there is nothing to construct.
        matter = yaml.load(match[1] or "", Loader=yaml.CBaseLoader)  # builds texts, lists and mappings only
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ImportRefused(f"{name}: the front matter is not YAML: {' '.join(str(error).split())[:200]}") from None
    if matter is None or matter == "":
        return {}, text[match.end() :]
    if not isinstance(matter, dict) or not all(isinstance(key, str) for key in matter):
        return {}, text  # a text that begins with a rule
    return matter, text[match.end() :]


def _check_shape(matter: str) -> None:
    """Refuses what is deep or refers to itself before it is built: that could take any time, or the whole process."""
    depth = 0
    for event in yaml.parse(matter, Loader=yaml.CBaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("it is too deep, or refers to itself")


def _id(name: str, given: Any) -> int | None:
    if given is None:
        return None
    if isinstance(given, str) and re.fullmatch(r"[1-9][0-9]{0,15}", given) and int(given) <= MAX_ID:
        return int(given)
    raise ImportRefused(f"{name}: id: must be a positive integer in plain digits")


def _tags(given: Any) -> Any:
    """Tags as a list; some programs write them as a text, with commas."""
    if given is None or given == "":
        return []
    return [tag.strip() for tag in given.split(",") if tag.strip()] if isinstance(given, str) else given


def _first_heading(content: str) -> str | None:
    for line in lines_of(content):
        if line.strip():
            match = _HEADING.match(line)
            return words_of(line[match.end() :]) if match else None
    return None


def _first_line(content: str) -> str:
    return next((line for line in lines_of(content) if line.strip() and not line.startswith(("#", "---"))), "")


def _fitted(text: str, other: str) -> str:
    """A text as a line of a note, cut where it is too long; with ``other`` before it where it is too short."""
    low, high = LINE
    line = " ".join(text.replace("\0", " ").split())
    if len(line) < low:
        line = f"{other} {line}".strip()
    return line if len(line) <= high else line[: high - 1].rstrip() + "…"
