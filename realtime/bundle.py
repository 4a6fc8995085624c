"""Bundles of notes: Markdown files, alone or in zip archives, made of notes and read into notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from realtime.archive import MOST_FILES, ZipWriter, read_zip
from realtime.errors import ImportRefused
from realtime.markdown import FILE_BYTES, SUFFIXES, file_name, from_markdown, to_markdown
from realtime.models import MAX_ID, Note, NoteIn

CHUNK = 1024 * 1024
SHOWN = 100
MAX_KEPT_ID = MAX_ID // 2
"""The largest id that an import may keep: the next notes count on from it, and never reach the end."""

Source = tuple[str, IO[bytes]]
"""A file's name, and what is in it."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What files hold, once they were read to the end: how many notes, their ids, and files that are no Markdown."""

    many: int
    ids: Sequence[int]
    skipped: Sequence[str]


def pack(writer: ZipWriter, notes: Iterable[Note]) -> bytes:
    """The next files of an archive."""
    return b"".join(writer.file(file_name(note), to_markdown(note).encode(), note.updated_date) for note in notes)


def check(sources: Sequence[Source], *, keep_ids: bool) -> Contents:
    """Reads all files, and keeps none. Raises :class:`ImportRefused`."""
    ids: dict[int, None] = {}
    skipped: list[str] = []
    many = 0
    for name, id, _ in _read(sources, skipped):
        many += 1
        if many > MOST_FILES:
            raise ImportRefused(f"files: more than {MOST_FILES} notes at once")
        if keep_ids:
            if id is None or not 1 <= id <= MAX_KEPT_ID:
                raise ImportRefused(f"{name}: id: to be kept it must be there, and at most {MAX_KEPT_ID}")
            if id in ids:
                raise ImportRefused(f"{name}: id: another file has {id}, too")
            ids[id] = None
    if not many:
        raise ImportRefused("files: there is no Markdown file (.md) among them")
    return Contents(many, list(ids), skipped)


def notes_in(sources: Sequence[Source]) -> Iterator[NoteIn]:
    """The notes that files hold. Raises :class:`ImportRefused`."""
    return (note for _, _, note in _read(sources, []))


def chunks(sources: Sequence[Source]) -> Iterator[bytes]:
    """All that is in the files, and their names."""
    for name, file in sources:
        yield name.encode(errors="replace")
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk


def _read(sources: Sequence[Source], skipped: list[str]) -> Iterator[tuple[str, int | None, NoteIn]]:
    for source, file in sources:
        file.seek(0)
        if file.read(2) == b"PK":
            for name, data in read_zip(file, FILE_BYTES, SUFFIXES):
                if data is not None:
                    yield (name, *from_markdown(name, data))
                elif len(skipped) < SHOWN:
                    skipped.append(name)
        elif source.lower().endswith(SUFFIXES):
            file.seek(0)
            data = file.read(FILE_BYTES + 1)
            if len(data) > FILE_BYTES:
                raise ImportRefused(f"{source}: is larger than {FILE_BYTES} bytes")
            yield (source, *from_markdown(source, data))
        else:
            raise ImportRefused(f"{source or 'files'}: is neither a Markdown file (.md) nor a zip archive")
