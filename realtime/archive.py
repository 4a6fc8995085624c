"""Zip archives of Markdown files: written as a stream, and read with suspicion, both in bounded memory."""

from __future__ import annotations

import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import IO, Any

from realtime.errors import ImportRefused

MOST_FILES = 100_000
MOST_DIRECTORY = 16 * 1024 * 1024
MOST_UNPACKED = 512 * 1024 * 1024
MOST_DEPTH = 16
MOST_NAME = 1000
SPOOL = 1024 * 1024
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)
"""What ``zipfile`` raises for an archive that is broken, or made to break it."""
_PORTABLE = 0x800  # the name is UTF-8
_BIG = 0xFFFFFFFF


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
        date = max(0, modified.year - 1980) << 9 | modified.month << 5 | modified.day
        time = modified.hour << 11 | modified.minute << 5 | modified.second // 2
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


def read_zip(
    archive: IO[bytes], most: int, suffixes: tuple[str, ...], *, trusted: bool = False
) -> Iterator[tuple[str, bytes | None]]:
    """The files of an archive with these suffixes, each with its name and at most ``most`` bytes; ``None`` for others.

    One that is ``trusted`` may list any number of files, of any size together. Raises :class:`ImportRefused` for what
    is no archive, or a hostile one: with files that are larger than they may be, alone or together, with names that
    lead elsewhere, with links, with passwords.
    """
    left = MOST_UNPACKED
    try:
        with zipfile.ZipFile(archive if trusted else _Bounded(archive)) as opened:
            entries = opened.infolist()
            if len(entries) > MOST_FILES and not trusted:
                raise ImportRefused(f"the archive lists more than {MOST_FILES} files")
            for entry in entries:
                name = entry.filename
                _check(entry)
                if entry.is_dir() or name.startswith("__MACOSX/"):
                    continue
                if not name.lower().endswith(suffixes):
                    yield name, None
                    continue
                with opened.open(entry) as file:
                    data = file.read(most + 1)
                left -= len(data)
                if len(data) > most:
                    raise ImportRefused(f"{name}: is larger than {most} bytes")
                if left < 0 and not trusted:
                    raise ImportRefused(f"the archive holds more than {MOST_UNPACKED} bytes")
                yield name, data
    except BROKEN as error:
        raise ImportRefused(f"the archive cannot be read: {str(error)[:200] or type(error).__name__}") from None


def listed(archive: IO[bytes]) -> int:
    """How many files an archive has. Raises :class:`ImportRefused`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return len(opened.infolist())
    except BROKEN as error:
        raise ImportRefused(f"the archive cannot be read: {str(error)[:200]}") from None


def _check(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    shown = name[:100].encode(errors="backslashreplace").decode()
    parts = name.split("/")
    if not name or len(name) > MOST_NAME or len(parts) > MOST_DEPTH:
        raise ImportRefused(f"{shown}: the name is too long, or too deep in folders")
    if name.startswith("/") or ".." in parts or "\\" in entry.orig_filename or ":" in parts[0] or "\0" in name:
        raise ImportRefused(f"{shown}: the name leads out of the archive")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ImportRefused(f"{shown}: is a link or another special file")
    if entry.flag_bits & 1:
        raise ImportRefused(f"{shown}: has a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ImportRefused(f"{shown}: is compressed in an unusual way")
    if name.lower().endswith((".zip", ".gz", ".tar", ".7z", ".rar")):
        raise ImportRefused(f"{shown}: is an archive within the archive")


class _Bounded:
    """A file of which nobody reads much at once: ``zipfile`` reads the list of files as a whole, however long."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > MOST_DIRECTORY:
            raise ImportRefused(f"the archive lists more than {MOST_FILES} files")
        return self._file.read(MOST_DIRECTORY if size < 0 else size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
