"""Client side of ``realtime export`` and ``realtime import``: transfers notes as Markdown files over HTTP."""

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
from realtime.transfer.zip_stream import ZipWriter, count_entries, read_zip, skip_reason

CHUNK_BYTES = 64 * 1024
TIMEOUT = httpx.Timeout(30.0, read=120.0)
LINK = "is a symbolic link"
OTHER_VERSION = (
    "the response is not from a realtime server of this version. Check its list of notes: some may have been imported"
)


class TransferProgress(NamedTuple):
    """The progress of a step. ``total`` is ``None`` if it is not known."""

    step: str
    done: int
    total: int | None


ProgressCallback = Callable[[TransferProgress], None]


class TransferFailed(RealtimeError):
    """Raised if an export or import fails. The message gives the reason."""


def export_notes(
    url: str, target: Path, on_progress: ProgressCallback, *, overwrite: bool = False, token: str | None = None
) -> int:
    """Write all notes of a server to a ``.zip`` file or into a folder, and return their number.

    Args:
        url: The address of the server.
        target: The ``.zip`` file, or the folder.
        on_progress: Called with the progress.
        overwrite: Whether to replace existing files.
        token: An API token, for servers with accounts.

    Raises:
        TransferFailed: The server or the file system reported an error, or files exist already.
    """
    zipped = target.suffix.lower() == ".zip"
    if not overwrite and (target.exists() if zipped else target.is_dir() and any(target.iterdir())):
        raise TransferFailed(f"{target} already exists; use --overwrite to replace existing files")
    if target.exists() and target.is_dir() is zipped:
        raise TransferFailed(f"{target} is {'a folder' if zipped else 'neither a folder nor a .zip file'}")
    folder = target.parent if zipped else target
    try:
        folder.mkdir(exist_ok=True)
        # The partial file is in the folder of the target, so that it can be renamed when it is complete.
        partial = folder / f".{uuid.uuid4().hex}.part"
        try:
            with partial.open("w+b") as file:
                count = _download(url, file, on_progress, token)
                if not zipped:
                    _unpack(file, target, lambda number: on_progress(TransferProgress("Writing", number, count)))
            if zipped:
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, ImportRefused, FileSkipped) as error:
        raise TransferFailed(f"{target}: {error}") from error
    return count


def _download(url: str, file: IO[bytes], on_progress: ProgressCallback, token: str | None) -> int:
    """Write the zip archive of an export to a file, and return the number of notes in it."""
    try:
        with (
            _client(url) as client,
            client.stream("GET", f"{_base_url(url)}/export", headers=_auth_headers(token)) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise TransferFailed(_error_detail(url, response))
            total = int(response.headers.get("X-Total-Count", "0")) or None
            done = 0
            for chunk in response.iter_bytes(CHUNK_BYTES):
                file.write(chunk)
                done += chunk.count(b"PK\x03\x04")  # the signature of a local file header
                on_progress(TransferProgress("Downloading", done if total is None else min(done, total), total))
        file.flush()
        return count_entries(file)
    except UnicodeError as error:
        raise TransferFailed(f"{url} is not the address of a server: {error}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransferFailed(f"{url}: {str(error) or type(error).__name__}") from error


def _unpack(file: IO[bytes], folder: Path, on_written: Callable[[int], None]) -> None:
    for number, (name, data, _) in enumerate(read_zip(file, FILE_BYTES, SUFFIXES, None), 1):
        if data is None or "/" in name:
            raise ImportRefused(f"unexpected file in the export: {printable(name)}")
        (folder / name).write_bytes(data)
        on_written(number)


@dataclass
class ImportReport:
    """The files of an import that were skipped or changed, with their reasons."""

    skipped: list[Remark] = field(default_factory=list)
    changed: list[Remark] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """Record a file that is not sent to the server."""
        self.skipped.append(Remark(name, reason))


def import_notes(
    url: str,
    sources: list[Path],
    on_progress: ProgressCallback,
    report: ImportReport,
    *,
    keep_ids: bool = False,
    token: str | None = None,
) -> int:
    """Send Markdown files, folders, or zip archives to a server, and return the number of notes that it created.

    Args:
        url: The address of the server.
        sources: The files and folders.
        on_progress: Called with the progress.
        report: Receives the files that were skipped or changed, even if the import fails.
        keep_ids: Whether the notes keep the ids in the files.
        token: An API token, for servers with accounts.

    Raises:
        TransferFailed: The import failed. No note was created unless the message says otherwise.
    """
    with contextlib.ExitStack() as stack:
        packed = stack.enter_context(tempfile.TemporaryFile())
        files: list[tuple[str, IO[bytes]]] = []
        loose: list[tuple[str, Path]] = []
        for source in sources:
            try:
                if source.is_dir():
                    loose += _find_markdown(source, report)
                elif source.suffix.lower() in SUFFIXES and source.exists():
                    loose.append((source.name, source))
                elif archive := _open_archive(source, report):
                    files.append((_readable(source.name), stack.enter_context(archive)))
            except OSError as error:
                report.skip(_readable(str(source)), f"cannot be read: {error.strerror or error}")
        try:
            if loose and _pack(loose, packed, on_progress, report):
                files.insert(0, ("notes.zip", packed))
        except OSError as error:
            raise TransferFailed(str(error)) from error
        if not files:
            reason = f" ({report.skipped[0].file}: {report.skipped[0].reason})" if len(report.skipped) == 1 else ""
            raise TransferFailed(f"there is no Markdown file (.md) to import{reason}")
        response = _upload(url, files, keep_ids, on_progress, token)
        try:
            report.skipped += [Remark(remark["file"], remark["reason"]) for remark in response["skipped"]]
            report.changed += [Remark(remark["file"], remark["reason"]) for remark in response["changed"]]
            return int(response["imported"])
        except (KeyError, TypeError, ValueError) as error:
            raise TransferFailed(f"{url}: {OTHER_VERSION}") from error


def _open_archive(source: Path, report: ImportReport) -> IO[bytes] | None:
    """Open a zip archive. Report any other file as skipped, and return ``None``."""
    if not source.exists():
        report.skip(_readable(str(source)), "no such file or folder")
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


def _find_markdown(folder: Path, report: ImportReport) -> list[tuple[str, Path]]:
    """Return the Markdown files in a folder with their relative paths, sorted, and report all other files."""
    files: list[tuple[str, Path]] = []

    def report_unreadable(error: OSError) -> None:
        name = Path(error.filename).relative_to(folder).as_posix() if error.filename else str(folder)
        report.skip(_readable(name), f"the folder cannot be read: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=report_unreadable):
        folders.sort()
        for name in sorted(folders):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                report.skip(_readable(relative), LINK)
            elif name.startswith("."):
                report.skip(f"{_readable(relative)}/", "is a hidden folder; its files were not read")
                folders.remove(name)
        for name in sorted(names):
            path = Path(root, name)
            relative = path.relative_to(folder).as_posix()
            if reason := skip_reason(relative.split("/"), SUFFIXES) or ("" if not path.is_symlink() else LINK):
                report.skip(_readable(relative), reason)
            else:
                files.append((relative, path))
    return sorted(files)


def _pack(files: list[tuple[str, Path]], packed: IO[bytes], on_progress: ProgressCallback, report: ImportReport) -> int:
    """Write a zip archive of files, and return the number of files in it."""
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
                packed.write(writer.file(readable, path.read_bytes(), _modified_date(status.st_mtime)))
                count += 1
                if not _is_utf_8(name):
                    report.changed.append(Remark(readable, "its name is not in UTF-8 and was read as Windows-1252"))
        except OSError as error:
            if error.filename is None:  # the archive failed, not this file
                raise
            report.skip(readable, f"cannot be read: {error.strerror}")
        on_progress(TransferProgress("Packing", number, len(files)))
    for chunk in writer.end():
        packed.write(chunk)
    packed.seek(0)
    return count


def _modified_date(seconds: float) -> datetime:
    """Return the modification time of a file, clamped to the range of ``datetime``."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.min.replace(tzinfo=UTC) if seconds < 0 else datetime.max.replace(tzinfo=UTC)


def _readable(name: str) -> str:
    """Return a file name as valid text, because file systems allow any bytes."""
    data = os.fsencode(name)
    return data.decode() if _is_utf_8(name) else from_windows_1252(data)


def _is_utf_8(name: str) -> bool:
    try:
        os.fsencode(name).decode()
    except UnicodeDecodeError:
        return False
    return True


class _ProgressFile:
    """A file that reports the progress of reading it."""

    def __init__(self, file: IO[bytes], on_progress: ProgressCallback) -> None:
        self._file = file
        self._on_progress = on_progress
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_progress(TransferProgress("Uploading", self._file.tell(), self._size))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _upload(
    url: str, files: list[tuple[str, IO[bytes]]], keep_ids: bool, on_progress: ProgressCallback, token: str | None
) -> dict[str, Any]:
    """Upload files, and return the final report of the server."""
    parts: Any = [("files", (name, _ProgressFile(file, on_progress))) for name, file in files]
    headers = {"Accept": "application/x-ndjson", "Idempotency-Key": uuid.uuid4().hex, **_auth_headers(token)}
    options: Any = {"params": {"keep_ids": "true"} if keep_ids else {}, "headers": headers}
    imported = 0
    try:
        with (
            _client(url) as client,
            client.stream("POST", f"{_base_url(url)}/import", files=parts, **options) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise TransferFailed(_error_detail(url, response))
            for line in response.iter_lines():
                message: dict[str, Any] = json.loads(line)
                if "detail" in message:
                    raise TransferFailed(f"{message['detail']} ({imported} notes were imported before the error)")
                imported = message["imported"]
                if "ids" in message:
                    return message
                on_progress(TransferProgress("Importing", imported, message["of"]))
    except UnicodeError as error:
        raise TransferFailed(f"{url} is not the address of a server: {error}") from error
    except (ValueError, KeyError, TypeError) as error:  # not JSON, or fields are missing
        raise TransferFailed(f"{url}: {OTHER_VERSION}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TransferFailed(
            f"{url}: {str(error) or type(error).__name__} (at least {imported} notes were imported before the error)"
            if imported
            else f"{url}: {str(error) or type(error).__name__}"
        ) from error
    raise TransferFailed(f"{url}: the response ended early (at least {imported} notes were imported)")


def _client(url: str) -> httpx.Client:
    """Return an HTTP client that uses the proxy of the environment, unless the server is on this machine."""
    if not url.strip():
        raise TransferFailed("the address of the server is empty; use for example http://127.0.0.1:8000")
    try:
        transport = httpx.HTTPTransport() if is_this_machine(_base_url(url)) else None
        return httpx.Client(transport=transport, timeout=TIMEOUT)
    except OSError as error:
        raise TransferFailed(f"the certificates of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}") from error
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise TransferFailed(proxy_problem(error)) from error


def _auth_headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _base_url(url: str) -> str:
    return (url if "://" in url else f"http://{url}").rstrip("/")


def _error_detail(url: str, response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"{url}: not a realtime server (status {response.status_code})"
    if isinstance(detail, list):
        detail = describe(detail)
    return str(detail)
