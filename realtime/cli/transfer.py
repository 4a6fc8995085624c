"""``realtime export`` and ``realtime import``: the notes of a server as Markdown files on this machine, and back."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx

from realtime.cli.addresses import is_this_machine, proxy_problem
from realtime.cli.terminal import printable
from realtime.errors import FileSkipped, ImportRefused, RealtimeError
from realtime.notes.validation import describe
from realtime.transfer.bundle import NO_NOTES, Remark, is_archive
from realtime.transfer.note_file import FILE_BYTES, SUFFIXES
from realtime.transfer.text_encoding import from_windows_1252
from realtime.transfer.zip_stream import ZipWriter, listed, read_zip, skip_reason

CHUNK = 64 * 1024
TIMEOUT = httpx.Timeout(30.0, read=120.0)
LINK = "is a symbolic link"
OTHER_VERSION = "does not answer as a realtime server of this version; what it imported is in its list of notes"


class TransferProgress(NamedTuple):
    """How far a step is, and how far it has to go if that is known."""

    step: str
    done: int
    total: int | None


Tell = Callable[[TransferProgress], None]


class TransferFailed(RealtimeError):
    """An export or import failed; the message says why."""


def export_notes(url: str, target: Path, tell: Tell, *, overwrite: bool = False, token: str | None = None) -> int:
    """Writes all notes of a server to a ``.zip`` file, or as files into a folder; returns how many.

    What is there is kept unless ``overwrite`` is set. Raises :class:`TransferFailed`.
    """
    zipped = target.suffix.lower() == ".zip"
    if not overwrite and (target.exists() if zipped else target.is_dir() and any(target.iterdir())):
        raise TransferFailed(f"{target} exists already; --overwrite replaces what has the same name")
    if target.exists() and target.is_dir() is zipped:
        raise TransferFailed(f"{target} is {'a folder' if zipped else 'no folder, and no .zip'}")
    folder = target.parent if zipped else target
    try:
        folder.mkdir(exist_ok=True)
        # Beside the target, so that it takes its name only once it is whole.
        part = folder / f".{uuid.uuid4().hex}.part"
        try:
            with part.open("w+b") as file:
                count = _download(url, file, tell, token)
                if not zipped:
                    _unpack(file, target, lambda number: tell(TransferProgress("Writing", number, count)))
            if zipped:
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ImportRefused, FileSkipped) as error:
        raise TransferFailed(f"{target}: {error}") from error
    return count


def _download(url: str, file: IO[bytes], tell: Tell, token: str | None) -> int:
    """Writes an export to a file, and returns how many notes it has."""
    try:
        with (
            _client(url) as client,
            client.stream("GET", f"{_base(url)}/export", headers=_signed(token)) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise TransferFailed(_refusal(url, answer))
            total = int(answer.headers.get("X-Total-Count", "0")) or None
            done = 0
            for chunk in answer.iter_bytes(CHUNK):
                file.write(chunk)
                done += chunk.count(b"PK\x03\x04")  # what each file in a zip begins with
                tell(TransferProgress("Downloading", done if total is None else min(done, total), total))
        file.flush()
        return listed(file)
    except UnicodeError as error:
        raise TransferFailed(f"{url} is not the address of a server: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransferFailed(f"{url}: {str(error) or type(error).__name__}") from error


def _unpack(file: IO[bytes], folder: Path, tell: Callable[[int], None]) -> None:
    for number, (name, data, _) in enumerate(read_zip(file, FILE_BYTES, SUFFIXES, None), 1):
        if data is None or "/" in name:
            raise ImportRefused(f"{printable(name)} should not be in an export")
        (folder / name).write_bytes(data)
        tell(number)


@dataclass
class ImportReport:
    """The files of an import that were skipped or changed, with their reasons."""

    skipped: list[Remark] = field(default_factory=list)
    changed: list[Remark] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """Add a file that is not sent to the server."""
        self.skipped.append(Remark(name, reason))


def import_notes(
    url: str,
    sources: list[Path],
    tell: Tell,
    report: ImportReport,
    *,
    keep_ids: bool = False,
    token: str | None = None,
) -> int:
    """Send Markdown files, folders of them, or zip archives to a server, and return how many notes it made of them.

    Args:
        url: The address of the server.
        sources: The files and folders.
        tell: Called with the progress.
        report: Receives the files that were skipped or changed, also when the import fails.
        keep_ids: Whether the notes keep the ids that the files name.
        token: An API token, where there are accounts.

    Raises:
        TransferFailed: Nothing was written unless the message says otherwise.
    """
    with contextlib.ExitStack() as opened:
        packed = opened.enter_context(tempfile.TemporaryFile())
        files: list[tuple[str, IO[bytes]]] = []
        loose: list[tuple[str, Path]] = []
        for source in sources:
            try:
                if source.is_dir():
                    loose += _markdown_in(source, report)
                elif source.suffix.lower() in SUFFIXES and source.exists():
                    loose.append((source.name, source))
                elif archive := _archive(source, report):
                    files.append((_readable(source.name), opened.enter_context(archive)))
            except OSError as error:
                report.skip(_readable(str(source)), f"cannot be read: {error.strerror or error}")
        try:
            if loose and _pack(loose, packed, tell, report):
                files.insert(0, ("notes.zip", packed))
        except OSError as error:
            raise TransferFailed(str(error)) from error
        if not files:
            reason = f" ({report.skipped[0].file}: {report.skipped[0].reason})" if len(report.skipped) == 1 else ""
            raise TransferFailed(f"there is no Markdown file (.md) to import{reason}")
        answer = _upload(url, files, keep_ids, tell, token)
        try:
            report.skipped += [Remark(remark["file"], remark["reason"]) for remark in answer["skipped"]]
            report.changed += [Remark(remark["file"], remark["reason"]) for remark in answer["changed"]]
            return int(answer["imported"])
        except (KeyError, TypeError, ValueError) as error:
            raise TransferFailed(f"{url}: {OTHER_VERSION}") from error


def _archive(source: Path, report: ImportReport) -> IO[bytes] | None:
    """Open a file that is given directly and is not Markdown; ``None``, with a report, if it is not an archive."""
    if not source.exists():
        report.skip(_readable(str(source)), "there is no such file or folder")
        return None
    if not source.is_file():
        report.skip(_readable(str(source)), "is not a regular file")
        return None
    file = source.open("rb")
    if is_archive(source.name, file):
        return file
    file.close()
    report.skip(_readable(str(source)), NO_NOTES)
    return None


def _markdown_in(folder: Path, report: ImportReport) -> list[tuple[str, Path]]:
    """Return the Markdown files of a folder by name, and report all others."""
    found: list[tuple[str, Path]] = []

    def unreadable(error: OSError) -> None:
        name = Path(error.filename).relative_to(folder).as_posix() if error.filename else str(folder)
        report.skip(_readable(name), f"the folder cannot be read: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(folders):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                report.skip(_readable(relative), LINK)
            elif name.startswith("."):
                report.skip(f"{_readable(relative)}/", "is a hidden folder, so nothing in it was read")
                folders.remove(name)
        for name in sorted(names):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if reason := skip_reason(relative.split("/"), SUFFIXES) or ("" if not path.is_symlink() else LINK):
                report.skip(_readable(relative), reason)
            else:
                found.append((relative, path))
    return sorted(found)


def _pack(files: list[tuple[str, Path]], packed: IO[bytes], tell: Tell, report: ImportReport) -> int:
    """Write an archive of files, and return how many there are in it."""
    writer = ZipWriter()
    count = 0
    for number, (name, path) in enumerate(files, 1):
        readable = _readable(name)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                report.skip(readable, "is not a regular file")
            elif status.st_size > FILE_BYTES:
                report.skip(readable, f"is larger than {FILE_BYTES} bytes")
            else:
                packed.write(writer.file(readable, path.read_bytes(), _modified(status.st_mtime)))
                count += 1
                if not _is_utf_8(name):
                    report.changed.append(Remark(readable, "its name is not in UTF-8, and was read as Windows-1252"))
        except OSError as error:
            if error.filename is None:  # not of this file, but of the archive
                raise
            report.skip(readable, f"cannot be read: {error.strerror}")
        tell(TransferProgress("Packing", number, len(files)))
    for piece in writer.end():
        packed.write(piece)
    packed.seek(0)
    return count


def _modified(seconds: float) -> datetime:
    """Return the time at which a file was modified; file systems can hold times that Python cannot."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.min.replace(tzinfo=UTC) if seconds < 0 else datetime.max.replace(tzinfo=UTC)


def _readable(name: str) -> str:
    """Return the name of a file as text; the system may hold any bytes."""
    data = os.fsencode(name)
    return data.decode() if _is_utf_8(name) else from_windows_1252(data)


def _is_utf_8(name: str) -> bool:
    try:
        os.fsencode(name).decode()
    except UnicodeDecodeError:
        return False
    return True


class _Watched:
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], tell: Tell) -> None:
        self._file = file
        self._tell = tell
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._tell(TransferProgress("Uploading", self._file.tell(), self._size))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _upload(
    url: str, files: list[tuple[str, IO[bytes]]], keep_ids: bool, tell: Tell, token: str | None
) -> dict[str, Any]:
    parts: Any = [("files", (name, _Watched(file, tell))) for name, file in files]
    headers = {"Accept": "application/x-ndjson", "Idempotency-Key": uuid.uuid4().hex, **_signed(token)}
    options: Any = {"params": {"keep_ids": "true"} if keep_ids else {}, "headers": headers}
    made = 0
    try:
        with (
            _client(url) as client,
            client.stream("POST", f"{_base(url)}/import", files=parts, **options) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise TransferFailed(_refusal(url, answer))
            for line in answer.iter_lines():
                told: dict[str, Any] = json.loads(line)
                if "detail" in told:
                    raise TransferFailed(f"{told['detail']} ({made} notes were imported before)")
                made = told["imported"]
                if "ids" in told:
                    return told
                tell(TransferProgress("Importing", made, told["of"]))
    except UnicodeError as error:
        raise TransferFailed(f"{url} is not the address of a server: {error}") from error
    except (ValueError, KeyError, TypeError) as error:  # what is no JSON, or not such an answer
        raise TransferFailed(f"{url}: {OTHER_VERSION}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransferFailed(
            f"{url}: {str(error) or type(error).__name__} ({made} notes or more were imported before)"
            if made
            else f"{url}: {str(error) or type(error).__name__}"
        ) from error
    raise TransferFailed(f"{url}: the answer ended early ({made} notes or more were imported)")


def _client(url: str) -> httpx.Client:
    """Return a client for a server, which uses the proxy of the environment unless the server is on this machine."""
    if not url.strip():
        raise TransferFailed("the address of the server is empty: write for example http://127.0.0.1:8000")
    try:
        transport = httpx.HTTPTransport() if is_this_machine(_base(url)) else None
        return httpx.Client(transport=transport, timeout=TIMEOUT)
    except OSError as error:
        raise TransferFailed(f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}") from error
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise TransferFailed(proxy_problem(error)) from error


def _signed(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _base(url: str) -> str:
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _refusal(url: str, answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"{url}: answered {answer.status_code}, not as a realtime server"
    if isinstance(detail, list):
        detail = describe(detail)
    return str(detail)
