"""Converts notes to Markdown files in a zip archive, and Markdown files and zip archives to notes.

An import adapts files where possible and skips all others. It reports both with a reason. It fails as a whole only if
no file can be imported, or a limit on the whole import is exceeded, and then before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

from realtime.errors import FileSkipped, ImportRefused
from realtime.notes.models import MAX_ID, DatedNote, Note
from realtime.transfer.note_file import FILE_BYTES, SUFFIXES, NoteFile, file_name, from_markdown, to_markdown
from realtime.transfer.zip_stream import NOT_MARKDOWN, ImportBudget, ZipWriter, read_zip, skip_reason

DATES_DISCARDED = "created, updated: only administrators can keep dates; the notes got the time of the import"
CHUNK_BYTES = 1024 * 1024
MAX_KEPT_ID = MAX_ID // 2
"""The largest id that an import can keep. It leaves enough ids for new notes, which get the next higher ones."""
MAX_DISPLAYED_NAME = 200
REASONS_IN_REFUSAL = 5
NO_NOTES = "is neither a Markdown file (.md) nor a zip archive"

Source = tuple[str, IO[bytes]]
"""The name and the contents of a file."""

_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


class Remark(NamedTuple):
    """A file of an import that was skipped or changed, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImportedContents:
    """A summary of all files of an import.

    Attributes:
        count: The number of notes.
        ids: With ``keep_ids``, the id that each note keeps, or ``None`` if it gets a new id.
        skipped: The files that cannot become notes.
        changed: The files that become notes with changes.
    """

    count: int
    ids: Sequence[int | None]
    skipped: Sequence[Remark]
    changed: Sequence[Remark]


def pack(writer: ZipWriter, notes: Iterable[Note]) -> bytes:
    """Return the bytes of the next files in an archive, one for each note."""
    return b"".join(writer.file(file_name(note), to_markdown(note).encode(), note.updated_date) for note in notes)


def check(sources: Sequence[Source], *, keep_ids: bool, keep_dates: bool) -> ImportedContents:
    """Check all files of an import without keeping their contents.

    Args:
        sources: The files.
        keep_ids: Whether the notes keep the ids in the files.
        keep_dates: Whether the notes keep the dates in the files.

    Raises:
        ImportRefused: There is nothing to import, or a limit on the whole import is exceeded.
    """
    count = 0
    ids: list[int | None] = []
    used: set[int] = set()
    undated = False
    skipped: list[Remark] = []
    changed: list[Remark] = []
    for name, file, reason in _read(sources):
        if file is None:
            skipped.append(Remark(_displayed(name), reason))
            continue
        count += 1
        changes = list(file.changes)
        if keep_ids:
            id, change = _kept_id(file.id, used)
            ids.append(id)
            changes += change
        if not keep_dates and (file.created or file.updated):
            if not undated:
                changes.append(DATES_DISCARDED)
            undated = True
        if changes:
            changed.append(Remark(_displayed(name), "; ".join(changes)))
    if not count:
        raise ImportRefused(_nothing_to_import(skipped))
    return ImportedContents(count, ids, skipped, changed)


def notes_in(sources: Sequence[Source]) -> Iterator[DatedNote]:
    """Yield the notes in the files, in the same order as :func:`check`."""
    return (DatedNote(file.note, file.created, file.updated) for _, file, _ in _read(sources) if file is not None)


def chunks(sources: Sequence[Source]) -> Iterator[bytes]:
    """Yield the names and the contents of the files, for a digest of the import."""
    for name, file in sources:
        yield name.encode(errors="replace")
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _read(sources: Sequence[Source]) -> Iterator[tuple[str, NoteFile | None, str]]:
    """Yield the name of each file, and either its note or the reason why it is skipped."""
    budget = ImportBudget()
    for source, file in sources:
        name = source.replace("\\", "/")
        try:
            if is_archive(name, file):
                empty = True
                for member in read_zip(file, FILE_BYTES, SUFFIXES, budget):
                    empty = False
                    yield _parse(*member)
                if empty:
                    yield name, None, "is an archive without files"
            else:
                budget.spend_files(1)
                yield _parse(name, *_read_file(name, file, budget))
        except FileSkipped as error:
            yield name, None, error.detail


def is_archive(name: str, file: IO[bytes]) -> bool:
    """Return whether a file is a zip archive, according to its signature or its name."""
    file.seek(0)
    return file.read(4) in _ZIP_SIGNATURES or name.lower().endswith(".zip")


def _read_file(name: str, file: IO[bytes], budget: ImportBudget) -> tuple[bytes | None, str]:
    reason = skip_reason(name.split("/"), SUFFIXES)
    if reason:
        return None, NO_NOTES if reason == NOT_MARKDOWN else reason
    file.seek(0)
    data = file.read(FILE_BYTES + 1)
    budget.spend_bytes(len(data))
    return (data, "") if len(data) <= FILE_BYTES else (None, f"is larger than {FILE_BYTES} bytes")


def _parse(name: str, data: bytes | None, reason: str) -> tuple[str, NoteFile | None, str]:
    if data is None:
        return name, None, reason
    try:
        return name, from_markdown(name, data), ""
    except FileSkipped as error:
        return name, None, error.detail


def _kept_id(id: int | None, used: set[int]) -> tuple[int | None, list[str]]:
    """Return the id that a note keeps, or ``None`` and the reason why it gets a new id."""
    if id is None:
        return None, ["id: missing or invalid; a new id was assigned"]
    if id > MAX_KEPT_ID:
        return None, [f"id: is larger than {MAX_KEPT_ID}; a new id was assigned"]
    if id in used:
        return None, [f"id: another file has the same id {id}; a new id was assigned"]
    used.add(id)
    return id, []


def _nothing_to_import(skipped: Sequence[Remark]) -> str:
    if not skipped:
        return "files: none of them is a Markdown file (.md)"
    reasons = "; ".join(f"{file or 'a file without a name'}: {reason}" for file, reason in skipped[:REASONS_IN_REFUSAL])
    more = len(skipped) - REASONS_IN_REFUSAL
    return f"files: none of them can be imported. {reasons}" + (f"; and {more} more" if more > 0 else "")


def _displayed(name: str) -> str:
    """Return a file name for the report: valid text without NUL, shortened in the middle if it is long."""
    displayed = (
        name
        if len(name) <= MAX_DISPLAYED_NAME
        else f"{name[: MAX_DISPLAYED_NAME // 2 - 1]}…{name[-MAX_DISPLAYED_NAME // 2 :]}"
    )
    return displayed.encode(errors="replace").decode().replace("\0", "\ufffd")
