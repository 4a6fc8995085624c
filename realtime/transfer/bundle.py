"""Bundles of notes: Markdown files, alone or in zip archives, made of notes and read into notes.

One rule holds for every import: a file that can be adapted is adapted, one that cannot become a note is skipped, and
both are reported with a reason. Only limits on the whole import refuse it, before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

from realtime.errors import FileSkipped, ImportRefused
from realtime.notes.models import MAX_ID, DatedNote, Note
from realtime.transfer.note_file import FILE_BYTES, SUFFIXES, NoteFile, file_name, from_markdown, to_markdown
from realtime.transfer.zip_stream import NOT_MARKDOWN, ImportBudget, ZipWriter, read_zip, skip_reason

NOT_DATED = "created, updated: only admins can keep dates, so the notes of this import have the time of the import"
CHUNK = 1024 * 1024
MAX_KEPT_ID = MAX_ID // 2
"""The largest id that an import may keep: the next notes count on from it, and never reach the end."""
MAX_SHOWN_NAME = 200
REASONS_IN_REFUSAL = 5
NO_NOTES = "is neither a Markdown file (.md) nor a zip archive"

Source = tuple[str, IO[bytes]]
"""A file's name, and what is in it."""

_ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


class Remark(NamedTuple):
    """A file of an import that was skipped or changed, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImportedContents:
    """The contents of all files of an import.

    Attributes:
        count: How many notes there are.
        ids: With ``keep_ids``, the id that each note keeps; ``None`` where it gets the next one.
        skipped: The files that are no notes.
        changed: The files that become notes, but not just as they are.
    """

    count: int
    ids: Sequence[int | None]
    skipped: Sequence[Remark]
    changed: Sequence[Remark]


def pack(writer: ZipWriter, notes: Iterable[Note]) -> bytes:
    """The next files of an archive."""
    return b"".join(writer.file(file_name(note), to_markdown(note).encode(), note.updated_date) for note in notes)


def check(sources: Sequence[Source], *, keep_ids: bool, keep_dates: bool) -> ImportedContents:
    """Read all files, and keep none.

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
            skipped.append(Remark(_shown(name), reason))
            continue
        count += 1
        changes = list(file.changes)
        if keep_ids:
            id, change = _kept_id(file.id, used)
            ids.append(id)
            changes += change
        if not keep_dates and (file.created or file.updated):
            if not undated:
                changes.append(NOT_DATED)
            undated = True
        if changes:
            changed.append(Remark(_shown(name), "; ".join(changes)))
    if not count:
        raise ImportRefused(_nothing(skipped))
    return ImportedContents(count, ids, skipped, changed)


def notes_in(sources: Sequence[Source]) -> Iterator[DatedNote]:
    """The notes that files hold, in the order in which :func:`check` counts them."""
    return (DatedNote(file.note, file.created, file.updated) for _, file, _ in _read(sources) if file is not None)


def chunks(sources: Sequence[Source]) -> Iterator[bytes]:
    """All that is in the files, and their names."""
    for name, file in sources:
        yield name.encode(errors="replace")
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk


def _read(sources: Sequence[Source]) -> Iterator[tuple[str, NoteFile | None, str]]:
    """Every file: its name, and the note in it or else why it is skipped."""
    budget = ImportBudget()
    for source, file in sources:
        name = source.replace("\\", "/")
        try:
            if is_archive(name, file):
                empty = True
                for member in read_zip(file, FILE_BYTES, SUFFIXES, budget):
                    empty = False
                    yield _parsed(*member)
                if empty:
                    yield name, None, "is an archive without files"
            else:
                budget.take_files(1)
                yield _parsed(name, *_content(name, file, budget))
        except FileSkipped as error:
            yield name, None, error.detail


def is_archive(name: str, file: IO[bytes]) -> bool:
    """Whether a file is to be read as a zip archive, by its first bytes or its name."""
    file.seek(0)
    return file.read(4) in _ZIP_SIGNATURES or name.lower().endswith(".zip")


def _content(name: str, file: IO[bytes], budget: ImportBudget) -> tuple[bytes | None, str]:
    reason = skip_reason(name.split("/"), SUFFIXES)
    if reason:
        return None, NO_NOTES if reason == NOT_MARKDOWN else reason
    file.seek(0)
    data = file.read(FILE_BYTES + 1)
    budget.take_unpacked(len(data))
    return (data, "") if len(data) <= FILE_BYTES else (None, f"is larger than {FILE_BYTES} bytes")


def _parsed(name: str, data: bytes | None, reason: str) -> tuple[str, NoteFile | None, str]:
    if data is None:
        return name, None, reason
    try:
        return name, from_markdown(name, data), ""
    except FileSkipped as error:
        return name, None, error.detail


def _kept_id(id: int | None, used: set[int]) -> tuple[int | None, list[str]]:
    """The id that a note keeps, and what to report where it keeps none."""
    if id is None:
        return None, ["id: missing or invalid; a new id was assigned"]
    if id > MAX_KEPT_ID:
        return None, [f"id: is larger than {MAX_KEPT_ID}, so a new id was assigned"]
    if id in used:
        return None, [f"id: another file has {id}, too, so a new id was assigned"]
    used.add(id)
    return id, []


def _nothing(skipped: Sequence[Remark]) -> str:
    if not skipped:
        return "files: there is no Markdown file (.md) among them"
    reasons = "; ".join(f"{file or 'a file without a name'}: {reason}" for file, reason in skipped[:REASONS_IN_REFUSAL])
    more = len(skipped) - REASONS_IN_REFUSAL
    return f"files: none of them can be imported. {reasons}" + (f"; and {more} more" if more > 0 else "")


def _shown(name: str) -> str:
    """A name as the report has it: text that can be stored, and not too long."""
    shown = name if len(name) <= MAX_SHOWN_NAME else f"{name[: MAX_SHOWN_NAME // 2 - 1]}…{name[-MAX_SHOWN_NAME // 2 :]}"
    return shown.encode(errors="replace").decode().replace("\0", "\ufffd")
