"""Zip archives: other programs can read the written ones, and any bytes can be read without harm."""

from __future__ import annotations

import io
import random
import shutil
import stat
import struct
import subprocess
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from realtime.errors import FileSkipped, ImportRefused
from realtime.transfer.note_file import SUFFIXES
from realtime.transfer.zip_stream import MAX_FILES, ImportBudget, ZipMember, ZipWriter, read_zip

MIB = 1024 * 1024
MOMENT = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
FILES = {"000001-one.md": b"one", "000002.md": b"", "000003-é.md": "🦜\n".encode() * 10_000, "4.md": bytes(range(256))}


def _written(files: dict[str, bytes]) -> bytes:
    writer = ZipWriter()
    pieces = [writer.file(name, data, MOMENT) for name, data in files.items()]
    return b"".join([*pieces, *writer.end()])


def _zipped(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return an archive as other programs write it."""
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in files:
            archive.writestr(name, data)
    return made.getvalue()


def _members(archive: bytes, limit: int = MIB) -> list[ZipMember]:
    return list(read_zip(io.BytesIO(archive), limit, SUFFIXES, ImportBudget()))


def _read(archive: bytes, limit: int = MIB) -> list[tuple[str, bytes | None]]:
    return [(name, data) for name, data, _ in _members(archive, limit)]


def _skipped(archive: bytes, limit: int = MIB) -> dict[str, str]:
    """Return the reasons for skipped files by name."""
    return {name: reason for name, data, reason in _members(archive, limit) if data is None}


def test_written_archive_is_read_by_zipfile_and_read_zip() -> None:
    archive = _written(FILES)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert {entry.filename: opened.read(entry) for entry in opened.infolist()} == FILES
        assert {entry.date_time for entry in opened.infolist()} == {(2026, 1, 2, 3, 4, 6)}
    assert dict(_read(archive)) == FILES


def test_empty_archive_has_no_files() -> None:
    archive = _written({})
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.infolist() == []
    assert _read(archive) == []


def test_written_archive_is_unpacked_by_unzip(tmp_path: Path) -> None:
    (tmp_path / "notes.zip").write_bytes(_written(FILES))
    subprocess.run(["unzip", "-q", "notes.zip", "-d", "out"], cwd=tmp_path, check=True)
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found["000001-one.md"] == b"one"
    assert sorted(found.values()) == sorted(FILES.values())


@contextmanager
def _allocating_less_than(peak: int) -> Iterator[None]:
    """Check that the block allocates less than ``peak`` bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < peak
    finally:
        tracemalloc.stop()


def test_archive_with_more_than_65535_files_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with path.open("wb") as file:
        writer = ZipWriter()
        for number in range(65_600):
            file.write(writer.file(f"{number}.md", b"%d" % number, MOMENT))
        file.writelines(writer.end())
    with zipfile.ZipFile(path) as opened:
        assert len(opened.infolist()) == 65_600
        assert opened.read("65599.md") == b"65599"
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", path, "0.md", "65599.md"], check=True, stdout=subprocess.DEVNULL)


def test_writer_of_many_files_uses_little_memory() -> None:
    with _allocating_less_than(3 * MIB):  # the central directory alone is as large
        writer = ZipWriter()
        for number in range(30_000):
            writer.file(f"{number:06d}-{'name' * 10}.md", b"text", MOMENT)
        for _ in writer.end():
            pass


def test_archive_beyond_four_gibibytes_is_readable(tmp_path: Path) -> None:
    path, far = tmp_path / "far.zip", 5 * 1024 * MIB
    writer = ZipWriter()
    with path.open("wb") as file:
        file.write(writer.file("near.md", b"near", MOMENT))
        writer._offset = far  # as if preceded by files of this size, which need no disk space
        file.seek(far)
        file.write(writer.file("far.md", b"far", MOMENT))
        file.writelines(writer.end())
    with zipfile.ZipFile(path) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == {"near.md": b"near", "far.md": b"far"}
    with path.open("rb") as file:
        found = read_zip(file, MIB, SUFFIXES, None)
        assert {name: data for name, data, _ in found} == {"near.md": b"near", "far.md": b"far"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archive_of_other_programs_is_read(method: int) -> None:
    archive = _zipped(
        ("notes/", b""),
        ("notes/a.md", b"a"),
        ("notes/B.Markdown", b"b"),
        ("__MACOSX/notes/._a.md", b"x"),
        ("picture.png", b"\x89PNG"),
        ("notes/..a.md", b"c"),
        method=method,
    )
    found: list[tuple[str, bytes | None]] = [("notes/a.md", b"a"), ("notes/B.Markdown", b"b")]
    assert [member for member in _read(archive) if member[1] is not None] == found
    assert _skipped(archive) == {
        "__MACOSX/notes/._a.md": "is macOS metadata, not a note",
        "picture.png": "is not a Markdown file (.md)",
        "notes/..a.md": "is hidden",
    }


def test_archive_with_leading_bytes_and_a_comment_is_read() -> None:
    made = io.BytesIO(b"#!/bin/sh\n")
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("a.md", b"a")
        archive.comment = b"a comment"
    assert _read(made.getvalue()) == [("a.md", b"a")]


@pytest.mark.parametrize(
    "name",
    [
        *("Meeting 10:30.md", "C:a.md", "a:b/c.md", "folder\\inner\\a.md", "/".join("abcdefghijklmnopq") + "/a.md"),
        *("d/" * 200 + "a.md", "a b\t.md", "🦜.md", "./a.md", "folder.md/a.md"),
    ],
    ids=lambda name: name[:20],
)
def test_file_with_an_unusual_name_is_read(name: str) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    assert _read(_zipped((entry, b"text"))) == [(name.replace("\\", "/"), b"text")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *(
            (name, "its name points outside the archive")
            for name in ("../a.md", "a/../../b.md", "/etc/a.md", "//host/a.md")
        ),
        *(
            (name, "its name points outside the archive")
            for name in ("..\\a.md", "\\\\host\\a.md", "C:\\a.md", "c:/a.md")
        ),
        *(
            (name, "is not a Markdown file (.md)")
            for name in ("inner.zip", "notes.tar.gz", "a", "..", "a/..", "files/INNER.ZIP")
        ),
        *((name, "its name is longer than 1000 characters") for name in ("d/" * 10_000 + "a.md", "x" * 2000 + ".md")),
        *((name, "is macOS metadata, not a note") for name in ("._a.md", "folder/._a.md", "__MACOSX/a.md")),
        *((name, "is in the hidden folder .trash") for name in (".trash/a.md", "vault/.trash/inner/a.md")),
        (".a.md", "is hidden"),
        ("vault/.DS_Store", "is hidden"),
    ],
    ids=lambda name: name[:20],
)
def test_skipped_file_has_a_reason_and_others_are_read(name: str, reason: str) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    archive = _zipped(("good.md", b"good"), (entry, b"bad"), ("other.md", b"good"))
    assert [file for file, data in _read(archive) if data is not None] == ["good.md", "other.md"]
    assert _skipped(archive) == {name.replace("\\", "/"): reason}


def _patched(archive: bytes, field: int, format: str, value: int) -> bytes:
    """Return the archive with a changed field of the first central directory entry (APPNOTE 4.3.12)."""
    made = bytearray(archive)
    struct.pack_into(format, made, archive.index(b"PK\x01\x02") + field, value)
    return bytes(made)


def _entry(name: bytes, *, packed: int = 0, size: int = 0, offset: int = 0, extra: bytes = b"") -> bytes:
    """Return an entry of the central directory."""
    fields = (20, 20, 0x800, 8 if packed else 0, 0, 33, 0, packed, size, len(name), len(extra), 0, 0, 0, 0, offset)
    return b"PK\x01\x02" + struct.pack("<HHHHHHLLLHHHHHLL", *fields) + name + extra


def _end(count: int, size: int, offset: int, comment: int = 0) -> bytes:
    return b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, count & 0xFFFF, count & 0xFFFF, size, offset, comment)


def _listing(entries: bytes, count: int) -> bytes:
    return entries + _end(count, len(entries), 0)


def _named(raw: bytes, extra: bytes = b"", flags: int = 0) -> bytes:
    """Return an archive with one file whose name consists of these bytes."""
    fields = (flags, 0, 0, 0x5821, zlib.crc32(b"text"), 4, 4, len(raw), len(extra))
    local = b"PK\x03\x04" + struct.pack("<HHHHHLLLHH", 20, *fields) + raw + extra + b"text"
    listed = b"PK\x01\x02" + struct.pack("<HHHHHHLLLHHHHHLL", 20, 20, *fields, 0, 0, 0, 0, 0) + raw + extra
    return local + listed + _end(1, len(listed), len(local))


def _unicode_path(raw: bytes, name: bytes, version: int = 1) -> bytes:
    return struct.pack("<HHBL", 0x7075, 5 + len(name), version, zlib.crc32(raw)) + name


CP437 = "Größe.md".encode("cp437")


@pytest.mark.parametrize(
    ("archive", "name"),
    [
        (_named("Größe.md".encode(), flags=0x800), "Größe.md"),
        (_named("Größe.md".encode()), "Größe.md"),
        (_named(CP437), "Größe.md"),
        (_named(CP437, _unicode_path(CP437, "Länge 🦜.md".encode())), "Länge 🦜.md"),
        (_named(b"?.md", struct.pack("<HHL", 0x5455, 4, 0) + _unicode_path(b"?.md", "é.md".encode())), "é.md"),
        (_named(CP437, _unicode_path(b"other", "Länge.md".encode())), "Größe.md"),
        (_named(CP437, _unicode_path(CP437, "Länge.md".encode(), version=2)), "Größe.md"),
        (_named(CP437, _unicode_path(CP437, b"\xff.md")), "Größe.md"),
        (_named(CP437, struct.pack("<HH", 0x7075, 3) + b"\x01\0\0"), "Größe.md"),
    ],
)
def test_name_is_decoded_with_or_without_the_utf_8_flag(archive: bytes, name: str) -> None:
    assert _read(archive) == [(name, b"text")]


@pytest.mark.parametrize(
    ("raw", "extra", "flags", "found"),
    [
        (b"bad\xff.md", b"", 0x800, ("bad\u00a0.md", None)),  # the name in the local header is invalid, too
        (b"bad.md", struct.pack("<HH", 0x7075, 500), 0, ("bad.md", b"text")),
        (b"bad.md", struct.pack("<HH", 1, 3) + b"abc", 0, ("bad.md", b"text")),
        (b"bad.md", struct.pack("<HH", 0x5455, 9) + b"abc", 0, ("bad.md", b"text")),
        (b"bad.md", _unicode_path(b"bad.md", b"\xff"), 0, ("bad.md", b"text")),
    ],
)
def test_invalid_entry_does_not_affect_other_files(
    raw: bytes, extra: bytes, flags: int, found: tuple[str, bytes | None]
) -> None:
    good, bad = _named(b"good.md"), _named(raw, extra, flags)
    (good_local, good_listed), (bad_local, bad_listed) = (
        (one[: one.index(b"PK\x01\x02")], one[one.index(b"PK\x01\x02") : one.index(b"PK\x05\x06")])
        for one in (good, bad)
    )
    moved = bytearray(bad_listed)
    struct.pack_into("<L", moved, 42, len(good_local))
    listed = good_listed + moved
    archive = good_local + bad_local + listed + _end(2, len(listed), len(good_local) + len(bad_local))
    assert _read(archive) == [("good.md", b"text"), found]


def test_entry_with_an_unknown_format_version_is_read() -> None:
    archive = _patched(_zipped(("a.md", b"text"), ("b.md", b"text")), 6, "<H", 250)
    assert _read(archive) == [("a.md", b"text"), ("b.md", b"text")]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_special_files_are_skipped(kind: int) -> None:
    entry = zipfile.ZipInfo("a.md")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    archive = _zipped((entry, b"/etc/passwd"), ("b.md", b"text"))
    assert _skipped(archive) == {"a.md": "is a link or a special file"}
    assert _read(archive)[1:] == [("b.md", b"text")]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unsupported_compression_is_skipped(method: int) -> None:
    archive = _zipped(("a.md", b"text"), method=method)
    assert _skipped(archive) == {"a.md": "is compressed with an unsupported method; use deflate"}


def test_encrypted_file_is_skipped() -> None:
    archive = _patched(_zipped(("a.md", b"text")), 8, "<H", 1)
    assert _skipped(archive) == {"a.md": "is encrypted with a password"}


ONE = _zipped(("a.md", b"text " * 100))


@pytest.mark.parametrize(
    ("field", "format", "value"),
    [(16, "<L", 0), (20, "<L", 5), (24, "<L", 5), (42, "<L", 7), (42, "<L", 2**32 - 2)],
    ids=["CRC", "packed size", "size", "offset", "far offset"],
)
def test_entry_with_wrong_metadata_is_skipped(field: int, format: str, value: int) -> None:
    archive = _patched(_zipped(("a.md", b"text " * 100), ("b.md", b"text")), field, format, value)
    assert list(_skipped(archive)) == ["a.md"]
    assert _read(archive)[1:] == [("b.md", b"text")]


@pytest.mark.parametrize("field", [20, 24], ids=["packed size", "size"])
@pytest.mark.parametrize("size", [501, 2**31, 2**32 - 2])
def test_too_large_declared_size_allocates_no_more_memory(field: int, size: int) -> None:
    with _allocating_less_than(4 * MIB), suppress(FileSkipped):
        assert _read(_patched(ONE, field, "<L", size)) in ([("a.md", b"text " * 100)], [("a.md", None)])


@pytest.mark.parametrize("offset", [2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_entry_with_an_offset_beyond_the_file_is_skipped(offset: int) -> None:
    extra = struct.pack("<HHQ", 1, 8, offset)
    archive = _listing(_entry(b"a.md", offset=2**32 - 1, extra=extra), 1)
    with suppress(FileSkipped):
        assert list(_skipped(archive)) == ["a.md"]


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"PK\x03\x04", b"hello" * 1000, b"\0" * 100_000, b"PK\x05\x06" * 1000, b"PK\x05\x06" + b"\xff" * 18],
)
def test_file_that_is_not_an_archive_is_skipped(data: bytes) -> None:
    with pytest.raises(FileSkipped, match="the archive cannot be read"):
        _read(data)


@pytest.mark.parametrize("missing", [1.0, 0.75, 0.5, 0.25, 0.0])
@pytest.mark.parametrize("archive", [_written(FILES), _zipped(*FILES.items())], ids=["own", "foreign"])
def test_truncated_archive_is_skipped(archive: bytes, missing: float) -> None:
    """At least the last byte is missing."""
    with pytest.raises(FileSkipped):
        _read(archive[: -max(1, round(len(archive) * missing))])


@pytest.mark.parametrize("year", [1, 1601, 1979, 1980, 2107, 2108, 9999])
def test_dates_outside_the_zip_range_are_clamped(year: int) -> None:
    writer = ZipWriter()
    archive = b"".join([writer.file("a.md", b"a", datetime(year, 6, 7, tzinfo=UTC)), *writer.end()])
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.infolist()[0].date_time[0] == min(max(year, 1980), 2107)


def _zeros(length: int) -> bytes:
    """Return deflated zeros of this length."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return piece * (length // MIB) + deflate.flush()


def _bomb(packed: bytes, size: int, names: int) -> bytes:
    """Return an archive whose entries share the same bytes."""
    head = (20, 0x800, 8, 0, 33, 0, len(packed), size, 4, 0)
    local = b"PK\x03\x04" + struct.pack("<HHHHHLLLHH", *head) + b"0.md" + packed
    entries = _entry(b"0.md", packed=len(packed), size=size) * names
    return local + entries + _end(names, len(entries), len(local))


@pytest.mark.parametrize("declared_size", [1024 * MIB, MIB, 100])
def test_zip_bomb_is_skipped(declared_size: int) -> None:
    archive = _bomb(_zeros(1024 * MIB), declared_size, 1)
    with _allocating_less_than(16 * MIB):
        assert list(_skipped(archive)) == ["0.md"]


def test_overlapping_zip_bombs_are_mostly_skipped() -> None:
    size = MIB
    packed = _zeros(size)
    crc = struct.pack("<L", zlib.crc32(bytes(size)))
    sizes = struct.pack("<LL", len(packed), size)
    archive = _bomb(packed, size, 600).replace(struct.pack("<L", 0) + sizes, crc + sizes)
    with _allocating_less_than(32 * MIB):
        found = list(read_zip(io.BytesIO(archive), size, SUFFIXES, ImportBudget()))
    assert found[0].data == bytes(size)
    assert found[-1].reason == "overlaps other files in the archive"
    assert sum(member.data is not None for member in found) < 50


@pytest.mark.slow
@pytest.mark.parametrize("broken", [True, False])
def test_files_beyond_the_unpacked_limit_are_refused(broken: bool) -> None:
    archive = _zipped(*((f"{number}.md", bytes(MIB)) for number in range(520)))
    if broken:
        archive = archive.replace(struct.pack("<L", zlib.crc32(bytes(MIB))), b"none")
    with _allocating_less_than(32 * MIB), pytest.raises(ImportRefused, match="bytes after unpacking"):
        for member in read_zip(io.BytesIO(archive), MIB, SUFFIXES, ImportBudget()):
            assert (member.data is None) is broken


ENTRY_COUNT = 360_000
ENTRIES = _entry(b"a") * ENTRY_COUNT


def _zip32_archive() -> bytes:
    return _listing(ENTRIES, ENTRY_COUNT)


def _zip64(size: int, mark: bytes = b"PK\x06\x06") -> bytes:
    """Return the Zip64 end records of an archive."""
    record = mark + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, ENTRY_COUNT, ENTRY_COUNT, size, 0)
    return record + b"PK\x06\x07" + struct.pack("<LQL", 0, len(ENTRIES), 1)


def _zip64_archive() -> bytes:
    return ENTRIES + _zip64(len(ENTRIES)) + _end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def _small_size_in_a_broken_zip64_record() -> bytes:
    return ENTRIES + _zip64(0, b"none") + _end(ENTRY_COUNT, len(ENTRIES) + 76, 0)


def _end_before_the_longest_comment() -> bytes:
    return ENTRIES + _zip64(len(ENTRIES)) + _end(0xFFFF, 0, 0, 0xFFFF) + b"c" * 65_536


@pytest.mark.parametrize(
    "make",
    [_zip32_archive, _zip64_archive, _small_size_in_a_broken_zip64_record, _end_before_the_longest_comment],
)
def test_too_large_central_directory_is_refused(make: Callable[[], bytes]) -> None:
    archive = io.BytesIO(make())
    with _allocating_less_than(4 * MIB), pytest.raises(ImportRefused):
        list(read_zip(archive, MIB, SUFFIXES, ImportBudget()))


def test_archive_beyond_the_file_limit_is_refused() -> None:
    with pytest.raises(ImportRefused, match=str(MAX_FILES)):
        _read(_listing(_entry(b"a") * (MAX_FILES + 1), MAX_FILES + 1))


SEEDS = [_written(FILES), _zipped(*FILES.items()), ONE, _zipped(("a.md", b"a"), method=zipfile.ZIP_STORED)]


@hypothesis(deadline=None, max_examples=300)
@given(st.sampled_from(SEEDS), st.data())
def test_corrupted_archive_is_read_or_skipped(archive: bytes, data: st.DataObject) -> None:
    made = bytearray(archive)
    for _ in range(data.draw(st.integers(1, 4))):
        at = len(made) - data.draw(st.integers(1, min(len(made), 300)))
        made[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    with suppress(FileSkipped, ImportRefused):
        _read(bytes(made))


def test_randomly_corrupted_archive_is_read_or_skipped() -> None:
    pick = random.Random(1)
    for number in range(2000):
        made = bytearray(SEEDS[number % len(SEEDS)])
        for _ in range(pick.randrange(1, 6)):
            at = pick.randrange(len(made))
            made[at : at + pick.choice([1, 1, 2, 4, 8])] = pick.choice([b"\xff" * 4, b"\0" * 4, pick.randbytes(1)])
        with suppress(FileSkipped, ImportRefused):
            _read(bytes(made))
