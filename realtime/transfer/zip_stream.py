"""Zip archives of Markdown files: written as a stream, and read with suspicion, both in bounded memory."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO, Any, NamedTuple

from realtime.errors import FileSkipped, ImportRefused

MOST_FILES = 100_000
MOST_DIRECTORY = 16 * 1024 * 1024
MOST_UNPACKED = 512 * 1024 * 1024
MAX_NAME = 1000
NOT_MARKDOWN = "is not a Markdown file (.md)"
SPOOL = 1024 * 1024
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)
"""What ``zipfile`` raises for an archive that is broken, or made to break it."""
_PORTABLE = 0x800  # the name is UTF-8
_BIG = 0xFFFFFFFF
_UNICODE_PATH = 0x7075
_UNUSED = 0xFFFF
_ENTRY = b"PK\x01\x02"
_ENTRY_BYTES = 46
_VERSION = 63
_DRIVE = re.compile(r"[A-Za-z]:/")


class ZipWriter:
    """Makes a zip archive piece by piece (APPNOTE 6.3). What its end needs to list goes to a file, not into memory."""

    def __init__(self) -> None:
        self._directory = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115  # closed with the archive
        self._offset = 0
        self._count = 0

    def file(self, name: str, data: bytes, modified: datetime) -> bytes:
        """The bytes of the next file."""
        encoded = name.encode()
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = deflate.compress(data) + deflate.flush()
        date, time = _dos_time(modified)
        common = struct.pack(
            "<HHHHHLLLH", 20, _PORTABLE, 8, time, date, zlib.crc32(data), len(packed), len(data), len(encoded)
        )
        extra = struct.pack("<HHQ", 1, 8, self._offset) if self._offset >= _BIG else b""
        self._directory.write(
            b"".join(
                (
                    b"PK\x01\x02",
                    struct.pack("<H", 45 if extra else 20),
                    common,
                    struct.pack("<HHHHLL", len(extra), 0, 0, 0, 0, min(self._offset, _BIG)),
                    encoded,
                    extra,
                )
            )
        )
        made = b"PK\x03\x04" + common + struct.pack("<H", 0) + encoded + packed
        self._offset += len(made)
        self._count += 1
        return made

    def close(self) -> None:
        """Ends it, whole or not."""
        self._directory.close()

    def end(self) -> Iterator[bytes]:
        """The bytes after the last file."""
        with self._directory as directory:
            size = directory.tell()
            directory.seek(0)
            while piece := directory.read(SPOOL):
                yield piece
        count, offset = self._count, self._offset
        if count >= 0xFFFF or offset >= _BIG or size >= _BIG:
            yield b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
            yield b"PK\x06\x07" + struct.pack("<LQL", 0, offset + size, 1)
        count = min(count, 0xFFFF)
        yield b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, count, count, min(size, _BIG), min(offset, _BIG), 0)


def _dos_time(moment: datetime) -> tuple[int, int]:
    """Return a date and time in the format of zip archives, clamped to the years 1980 to 2107."""
    if moment.year < 1980:
        return 1 << 5 | 1, 0
    if moment.year > 2107:
        return 127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29
    return (
        (moment.year - 1980) << 9 | moment.month << 5 | moment.day,
        moment.hour << 11 | moment.minute << 5 | moment.second // 2,
    )


class ImportBudget:
    """The limits of one import, over all its archives and files.

    Attributes:
        files: How many more files there may be.
        unpacked: How many more bytes may be unpacked.
    """

    def __init__(self, files: int = MOST_FILES, unpacked: int = MOST_UNPACKED) -> None:
        self.files = files
        self.unpacked = unpacked

    def take_files(self, count: int) -> None:
        """Count files. Raises :class:`ImportRefused` where there are too many."""
        self.files -= count
        if self.files < 0:
            raise ImportRefused(f"files: more than {MOST_FILES} files in one import. Split the import")

    def take_unpacked(self, size: int) -> None:
        """Count bytes. Raises :class:`ImportRefused` where there are too many."""
        self.unpacked -= size
        if self.unpacked < 0:
            raise ImportRefused(f"files: more than {MOST_UNPACKED} bytes after unpacking. Split the import")


class ZipMember(NamedTuple):
    """A file of an archive: its name and its bytes, or the reason why it is skipped."""

    name: str
    data: bytes | None
    reason: str = ""


def read_zip(
    archive: IO[bytes], limit: int, suffixes: tuple[str, ...], budget: ImportBudget | None
) -> Iterator[ZipMember]:
    """Yield the files of an untrusted zip archive.

    Args:
        archive: The archive.
        limit: The size in bytes up to which a file is read.
        suffixes: How the names of files end that are read, in lower case.
        budget: What the archive may use up; ``None`` where its origin is trusted.

    Raises:
        FileSkipped: It is not an archive, or cannot be read at all.
        ImportRefused: It lists too many files, or holds too much in total.
    """
    bounded = _Bounded(archive)
    try:
        opened = zipfile.ZipFile(archive if budget is None else bounded)
        bounded.opened = True
    except BROKEN as error:
        raise FileSkipped(f"the archive cannot be read: {_worded(error)}") from None
    with opened:
        if budget is not None:
            budget.take_files(len(opened.infolist()))
        packed = archive.seek(0, os.SEEK_END)
        for entry in opened.infolist():
            name = entry_name(entry)
            if name.endswith("/"):
                continue
            reason = _refusal(name, entry, suffixes)
            if not reason and entry.file_size > limit:
                reason = f"is larger than {limit} bytes"
            packed -= 0 if reason else entry.compress_size
            if not reason and packed < 0:
                reason = "overlaps other files in the archive"
            if reason:
                yield ZipMember(name, None, reason)
                continue
            try:
                with opened.open(entry) as file:
                    data = file.read(limit + 1)
                size, member = len(data), ZipMember(name, data)
            except BROKEN as error:
                # It may have been unpacked to its end before it turned out to be broken.
                size, member = (
                    min(entry.file_size, limit + 1),
                    ZipMember(name, None, f"cannot be read: {_worded(error)}"),
                )
            if budget is not None:
                budget.take_unpacked(size)
            yield member if size <= limit else ZipMember(name, None, f"is larger than {limit} bytes")


def entry_name(entry: zipfile.ZipInfo) -> str:
    """Return the name of an entry, with ``/`` between folders.

    Without the flag for UTF-8 it is the one of Info-ZIP's field for Unicode names, else UTF-8 if it can be, else
    code page 437 (APPNOTE 6.3, appendix D, and section 4.6.9).
    """
    name = entry.orig_filename
    if not entry.flag_bits & _PORTABLE:
        raw = name.encode("cp437", "replace")
        with contextlib.suppress(UnicodeDecodeError):
            name = _unicode_name(entry.extra, zlib.crc32(raw)) or raw.decode()
    return name.replace("\\", "/")


def _unicode_name(extra: bytes, checksum: int) -> str | None:
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) == size > 5 and field[:5] == struct.pack("<BL", 1, checksum):
            try:
                return field[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


def _worded(error: Exception) -> str:
    return str(error)[:200].encode(errors="backslashreplace").decode() or type(error).__name__


def listed(archive: IO[bytes]) -> int:
    """How many files an archive has. Raises :class:`ImportRefused`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return len(opened.infolist())
    except BROKEN as error:
        raise FileSkipped(f"the archive cannot be read: {_worded(error)}") from None


def _refusal(name: str, entry: zipfile.ZipInfo, suffixes: tuple[str, ...]) -> str:
    """Return the reason to skip an entry, or an empty string."""
    parts = name.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if reason := skip_reason(parts, suffixes):
        return reason
    if len(name) > MAX_NAME:
        return f"its name is longer than {MAX_NAME} characters"
    if name.startswith("/") or ".." in parts or _DRIVE.match(name):
        return "its name points outside the archive"
    if "\0" in name:
        return "its name contains NUL"
    if kind not in (0, stat.S_IFREG):
        return "is a link or another special file"
    if entry.flag_bits & 1:
        return "is encrypted with a password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not supported; use deflate"
    return ""


def skip_reason(parts: Sequence[str], suffixes: tuple[str, ...]) -> str:
    """Return the reason to skip a file because of its path, or an empty string."""
    if "__MACOSX" in parts[:-1] or parts[-1].startswith("._"):
        return "is macOS metadata, not a note"
    hidden = next((part for part in parts if part.startswith(".") and part not in (".", "..")), None)
    if hidden is not None:
        return "is hidden" if hidden is parts[-1] else f"is in the hidden folder {hidden[:50]}"
    return "" if parts[-1].lower().endswith(suffixes) else NOT_MARKDOWN


class _Bounded:
    """A file that is never read in large pieces, and whose list of entries is repaired until it is ``opened``.

    ``zipfile`` reads the list as a whole, however long it is, and refuses all of it for one bad entry.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.opened = False

    def read(self, size: int = -1) -> bytes:
        if size > MOST_DIRECTORY:
            raise ImportRefused(
                f"files: the file list of an archive is larger than {MOST_DIRECTORY} bytes. Split the import"
            )
        data = self._file.read(MOST_DIRECTORY if size < 0 else size)
        return data if self.opened or not data.startswith(_ENTRY) else _repaired(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _repaired(directory: bytes) -> bytes:
    """Return a list of entries without what ``zipfile`` refuses: unknown versions, and bad names and extra fields."""
    made = bytearray(directory)
    start = 0
    while made.startswith(_ENTRY, start) and start + _ENTRY_BYTES <= len(made):
        (flags,) = struct.unpack_from("<H", made, start + 8)
        name_size, extra_size, comment_size = struct.unpack_from("<HHH", made, start + 28)
        name_end = start + _ENTRY_BYTES + name_size
        made[start + 6] = min(made[start + 6], _VERSION)
        if flags & _PORTABLE and not _is_utf_8(made[start + _ENTRY_BYTES : name_end]):
            struct.pack_into("<H", made, start + 8, flags & ~_PORTABLE)
        _repair_extra(made, name_end, min(name_end + extra_size, len(made)))
        start = name_end + extra_size + comment_size
    return bytes(made)


def _repair_extra(made: bytearray, start: int, end: int) -> None:
    """Give extra fields that are broken, or names that are not UTF-8, a kind that nobody reads."""
    while start + 4 <= end:
        kind, size = struct.unpack_from("<HH", made, start)
        field = made[start + 4 : start + 4 + size]
        if start + 4 + size > end:
            struct.pack_into("<HH", made, start, _UNUSED, end - start - 4)
        elif kind == _UNICODE_PATH and (size < 6 or not _is_utf_8(field[5:])):
            struct.pack_into("<H", made, start, _UNUSED)
        start += 4 + size


def _is_utf_8(data: bytes | bytearray) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
