"""Writes zip archives as a stream, and reads untrusted zip archives, both in bounded memory."""

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

MAX_FILES = 100_000
MAX_DIRECTORY_BYTES = 16 * 1024 * 1024
MAX_UNPACKED_BYTES = 512 * 1024 * 1024
MAX_NAME_LENGTH = 1000
NOT_MARKDOWN = "is not a Markdown file (.md)"
SPOOL_BYTES = 1024 * 1024
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""The exceptions that ``zipfile`` raises for broken and malicious archives."""
_UTF8_FLAG = 0x800  # the name is in UTF-8
_MAX_UINT32 = 0xFFFFFFFF
_UNICODE_PATH_FIELD = 0x7075
_UNUSED_FIELD = 0xFFFF
_ENTRY_SIGNATURE = b"PK\x01\x02"
_ENTRY_BYTES = 46
_MAX_VERSION = 63
_DRIVE = re.compile(r"[A-Za-z]:/")


class ZipWriter:
    """Writes a zip archive as a stream (APPNOTE 6.3). The central directory is kept in a temporary file."""

    def __init__(self) -> None:
        self._directory = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115  # closed by close() and end()
        self._offset = 0
        self._count = 0

    def file(self, name: str, data: bytes, modified: datetime) -> bytes:
        """Return the bytes of the next file in the archive."""
        encoded = name.encode()
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = deflate.compress(data) + deflate.flush()
        date, time = _dos_time(modified)
        common = struct.pack(
            "<HHHHHLLLH", 20, _UTF8_FLAG, 8, time, date, zlib.crc32(data), len(packed), len(data), len(encoded)
        )
        extra = struct.pack("<HHQ", 1, 8, self._offset) if self._offset >= _MAX_UINT32 else b""
        self._directory.write(
            b"".join(
                (
                    b"PK\x01\x02",
                    struct.pack("<H", 45 if extra else 20),
                    common,
                    struct.pack("<HHHHLL", len(extra), 0, 0, 0, 0, min(self._offset, _MAX_UINT32)),
                    encoded,
                    extra,
                )
            )
        )
        entry = b"PK\x03\x04" + common + struct.pack("<H", 0) + encoded + packed
        self._offset += len(entry)
        self._count += 1
        return entry

    def close(self) -> None:
        """Delete the temporary file, whether or not the archive is complete."""
        self._directory.close()

    def end(self) -> Iterator[bytes]:
        """Yield the bytes after the last file: the central directory and its end records."""
        with self._directory as directory:
            size = directory.tell()
            directory.seek(0)
            while chunk := directory.read(SPOOL_BYTES):
                yield chunk
        count, offset = self._count, self._offset
        if count >= 0xFFFF or offset >= _MAX_UINT32 or size >= _MAX_UINT32:
            yield b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
            yield b"PK\x06\x07" + struct.pack("<LQL", 0, offset + size, 1)
        count = min(count, 0xFFFF)
        yield b"PK\x05\x06" + struct.pack(
            "<HHHHLLH", 0, 0, count, count, min(size, _MAX_UINT32), min(offset, _MAX_UINT32), 0
        )


def _dos_time(date_time: datetime) -> tuple[int, int]:
    """Return a date and time in the format of zip archives, clamped to the years 1980 to 2107."""
    if date_time.year < 1980:
        return 1 << 5 | 1, 0
    if date_time.year > 2107:
        return 127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29
    return (
        (date_time.year - 1980) << 9 | date_time.month << 5 | date_time.day,
        date_time.hour << 11 | date_time.minute << 5 | date_time.second // 2,
    )


class ImportBudget:
    """The limits of one import, for all its archives and files.

    Attributes:
        files: The remaining number of files.
        unpacked: The remaining number of unpacked bytes.
    """

    def __init__(self, files: int = MAX_FILES, unpacked: int = MAX_UNPACKED_BYTES) -> None:
        self.files = files
        self.unpacked = unpacked

    def spend_files(self, count: int) -> None:
        """Count files. Raises :class:`ImportRefused` if the import has too many."""
        self.files -= count
        if self.files < 0:
            raise ImportRefused(f"files: more than {MAX_FILES} files in one import. Split the import")

    def spend_bytes(self, size: int) -> None:
        """Count unpacked bytes. Raises :class:`ImportRefused` if the import has too many."""
        self.unpacked -= size
        if self.unpacked < 0:
            raise ImportRefused(f"files: more than {MAX_UNPACKED_BYTES} bytes after unpacking. Split the import")


class ZipMember(NamedTuple):
    """A file in an archive. ``data`` is ``None`` if it is skipped, for the given reason."""

    name: str
    data: bytes | None
    reason: str = ""


def read_zip(
    archive: IO[bytes], limit: int, suffixes: tuple[str, ...], budget: ImportBudget | None
) -> Iterator[ZipMember]:
    """Yield the files of an untrusted zip archive.

    Args:
        archive: The archive.
        limit: The maximum size of a file in bytes. Larger files are skipped.
        suffixes: The file name extensions to read, in lower case.
        budget: The remaining limits of the import, or ``None`` for a trusted archive.

    Raises:
        FileSkipped: It is not an archive, or cannot be read at all.
        ImportRefused: The archive exceeds the budget.
    """
    bounded = _SafeArchiveFile(archive)
    try:
        opened = zipfile.ZipFile(archive if budget is None else bounded)
        bounded.opened = True
    except ARCHIVE_ERRORS as error:
        raise FileSkipped(f"the archive cannot be read: {_message_of(error)}") from None
    with opened:
        if budget is not None:
            budget.spend_files(len(opened.infolist()))
        packed = archive.seek(0, os.SEEK_END)
        for entry in opened.infolist():
            name = entry_name(entry)
            if name.endswith("/"):
                continue
            reason = _entry_skip_reason(name, entry, suffixes)
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
            except ARCHIVE_ERRORS as error:
                # The error may have occurred at the end of the file, so count all of it.
                size, member = (
                    min(entry.file_size, limit + 1),
                    ZipMember(name, None, f"cannot be read: {_message_of(error)}"),
                )
            if budget is not None:
                budget.spend_bytes(size)
            yield member if size <= limit else ZipMember(name, None, f"is larger than {limit} bytes")


def entry_name(entry: zipfile.ZipInfo) -> str:
    """Return the path of an entry, with ``/`` between folders.

    Without the UTF-8 flag, the name is that in Info-ZIP's Unicode path field, else UTF-8 if it is valid, else code page
    437 (APPNOTE 6.3, appendix D, and section 4.6.9).
    """
    name = entry.orig_filename
    if not entry.flag_bits & _UTF8_FLAG:
        raw = name.encode("cp437", "replace")
        with contextlib.suppress(UnicodeDecodeError):
            name = _unicode_name(entry.extra, zlib.crc32(raw)) or raw.decode()
    return name.replace("\\", "/")


def _unicode_name(extra: bytes, checksum: int) -> str | None:
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH_FIELD and len(field) == size > 5 and field[:5] == struct.pack("<BL", 1, checksum):
            try:
                return field[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


def _message_of(error: Exception) -> str:
    return str(error)[:200].encode(errors="backslashreplace").decode() or type(error).__name__


def count_entries(archive: IO[bytes]) -> int:
    """Return the number of entries in an archive. Raises :class:`FileSkipped` if it cannot be read."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return len(opened.infolist())
    except ARCHIVE_ERRORS as error:
        raise FileSkipped(f"the archive cannot be read: {_message_of(error)}") from None


def _entry_skip_reason(name: str, entry: zipfile.ZipInfo, suffixes: tuple[str, ...]) -> str:
    """Return the reason to skip an entry, or an empty string."""
    parts = name.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if reason := skip_reason(parts, suffixes):
        return reason
    if len(name) > MAX_NAME_LENGTH:
        return f"its name is longer than {MAX_NAME_LENGTH} characters"
    if name.startswith("/") or ".." in parts or _DRIVE.match(name):
        return "its name points outside the archive"
    if "\0" in name:
        return "its name contains NUL"
    if kind not in (0, stat.S_IFREG):
        return "is a link or a special file"
    if entry.flag_bits & 1:
        return "is encrypted with a password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed with an unsupported method; use deflate"
    return ""


def skip_reason(parts: Sequence[str], suffixes: tuple[str, ...]) -> str:
    """Return the reason to skip a file because of its path, or an empty string."""
    if "__MACOSX" in parts[:-1] or parts[-1].startswith("._"):
        return "is macOS metadata, not a note"
    hidden = next((part for part in parts if part.startswith(".") and part not in (".", "..")), None)
    if hidden is not None:
        return "is hidden" if hidden is parts[-1] else f"is in the hidden folder {hidden[:50]}"
    return "" if parts[-1].lower().endswith(suffixes) else NOT_MARKDOWN


class _SafeArchiveFile:
    """An archive file that limits the size of the central directory, and repairs it until ``opened`` is set.

    ``zipfile`` reads a directory of any size into memory, and rejects the whole archive for one invalid entry.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.opened = False

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise ImportRefused(
                f"files: the file list of an archive is larger than {MAX_DIRECTORY_BYTES} bytes. Split the import"
            )
        data = self._file.read(MAX_DIRECTORY_BYTES if size < 0 else size)
        return data if self.opened or not data.startswith(_ENTRY_SIGNATURE) else _repair_directory(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _repair_directory(directory: bytes) -> bytes:
    """Return a central directory without errors in versions, names and extra fields, which ``zipfile`` would reject."""
    repaired = bytearray(directory)
    start = 0
    while repaired.startswith(_ENTRY_SIGNATURE, start) and start + _ENTRY_BYTES <= len(repaired):
        (flags,) = struct.unpack_from("<H", repaired, start + 8)
        name_size, extra_size, comment_size = struct.unpack_from("<HHH", repaired, start + 28)
        name_end = start + _ENTRY_BYTES + name_size
        repaired[start + 6] = min(repaired[start + 6], _MAX_VERSION)
        if flags & _UTF8_FLAG and not _is_utf_8(repaired[start + _ENTRY_BYTES : name_end]):
            struct.pack_into("<H", repaired, start + 8, flags & ~_UTF8_FLAG)
        _repair_extra(repaired, name_end, min(name_end + extra_size, len(repaired)))
        start = name_end + extra_size + comment_size
    return bytes(repaired)


def _repair_extra(repaired: bytearray, start: int, end: int) -> None:
    """Change the type of invalid extra fields, in place, to one that is ignored."""
    while start + 4 <= end:
        kind, size = struct.unpack_from("<HH", repaired, start)
        field = repaired[start + 4 : start + 4 + size]
        if start + 4 + size > end:
            struct.pack_into("<HH", repaired, start, _UNUSED_FIELD, end - start - 4)
        elif kind == _UNICODE_PATH_FIELD and (size < 6 or not _is_utf_8(field[5:])):
            struct.pack_into("<H", repaired, start, _UNUSED_FIELD)
        start += 4 + size


def _is_utf_8(data: bytes | bytearray) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
