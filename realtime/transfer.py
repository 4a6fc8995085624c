"""``realtime export`` and ``realtime import``: the notes of a server as Markdown files on this machine, and back."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx

from realtime.archive import ZipWriter, listed, read_zip
from realtime.errors import ImportRefused, RealtimeError
from realtime.markdown import FILE_BYTES, SUFFIXES
from realtime.models import describe

CHUNK = 64 * 1024
TIMEOUT = httpx.Timeout(30.0, read=120.0)


class Progress(NamedTuple):
    """How far a step is, and how far it has to go if that is known."""

    step: str
    done: int
    total: int | None


Tell = Callable[[Progress], None]


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
                    _unpack(file, target, lambda number: tell(Progress("Writing", number, count)))
            if zipped:
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ImportRefused) as error:
        raise TransferFailed(f"{target}: {error}") from error
    return count


def _download(url: str, file: IO[bytes], tell: Tell, token: str | None) -> int:
    """Writes an export to a file, and returns how many notes it has."""
    try:
        with httpx.stream("GET", f"{_base(url)}/export", headers=_signed(token), timeout=TIMEOUT) as answer:
            if answer.status_code != 200:
                answer.read()
                raise TransferFailed(_refusal(url, answer))
            total = int(answer.headers.get("X-Total-Count", "0")) or None
            done = 0
            for chunk in answer.iter_bytes(CHUNK):
                file.write(chunk)
                done += chunk.count(b"PK\x03\x04")  # what each file in a zip begins with
                tell(Progress("Downloading", done if total is None else min(done, total), total))
        file.flush()
        return listed(file)
    except httpx.HTTPError as error:
        raise TransferFailed(f"{url}: {str(error) or type(error).__name__}") from error


def _unpack(file: IO[bytes], folder: Path, tell: Callable[[int], None]) -> None:
    for number, (name, data) in enumerate(read_zip(file, FILE_BYTES, SUFFIXES, trusted=True), 1):
        if data is None or "/" in name:
            raise ImportRefused(f"{name} should not be in an export")
        (folder / name).write_bytes(data)
        tell(number)


def import_notes(
    url: str, sources: list[Path], tell: Tell, *, keep_ids: bool = False, token: str | None = None
) -> dict[str, Any]:
    """Sends Markdown files, folders of them, or zip archives to a server, and returns its answer.

    Raises :class:`TransferFailed`, with nothing written unless the message says otherwise.
    """
    with tempfile.TemporaryFile() as packed:
        files: list[tuple[str, IO[bytes]]] = []
        loose: list[tuple[str, Path]] = []
        for source in sources:
            if source.is_dir():
                loose += sorted((path.relative_to(source).as_posix(), path) for path in _markdown_in(source))
            elif source.suffix.lower() in SUFFIXES:
                loose.append((source.name, source))
            elif not source.exists():
                raise TransferFailed(f"{source}: there is no such file or folder")
        try:
            if loose:
                _pack(loose, packed, tell)
                files.append(("notes.zip", packed))
            archives = [source for source in sources if source.is_file() and source.suffix.lower() not in SUFFIXES]
            files += [(source.name, source.open("rb")) for source in archives]
            if not files:
                raise TransferFailed("there is no Markdown file (.md) to import")
            return _upload(url, files, keep_ids, tell, token)
        except OSError as error:
            raise TransferFailed(str(error)) from error
        finally:
            for _, file in files:
                file.close()


def _markdown_in(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and not path.is_symlink():
                yield path


def _pack(files: list[tuple[str, Path]], packed: IO[bytes], tell: Tell) -> None:
    writer = ZipWriter()
    for number, (name, path) in enumerate(files, 1):
        if path.stat().st_size > FILE_BYTES:
            raise TransferFailed(f"{path}: is larger than {FILE_BYTES} bytes")
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        packed.write(writer.file(name, path.read_bytes(), modified))
        tell(Progress("Packing", number, len(files)))
    for piece in writer.end():
        packed.write(piece)
    packed.seek(0)


class _Watched:
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], tell: Tell) -> None:
        self._file = file
        self._tell = tell
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._tell(Progress("Uploading", self._file.tell(), self._size))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _upload(
    url: str, files: list[tuple[str, IO[bytes]]], keep_ids: bool, tell: Tell, token: str | None
) -> dict[str, Any]:
    parts: Any = [("files", (name, _Watched(file, tell))) for name, file in files]
    headers = {"Accept": "application/x-ndjson", "Idempotency-Key": uuid.uuid4().hex, **_signed(token)}
    options: Any = {"params": {"keep_ids": "true"} if keep_ids else {}, "headers": headers, "timeout": TIMEOUT}
    made = 0
    try:
        with httpx.stream("POST", f"{_base(url)}/import", files=parts, **options) as answer:
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
                tell(Progress("Importing", made, told["of"]))
    except httpx.HTTPError as error:
        raise TransferFailed(
            f"{url}: {str(error) or type(error).__name__} ({made} notes or more were imported before)"
            if made
            else f"{url}: {str(error) or type(error).__name__}"
        ) from error
    raise TransferFailed(f"{url}: the answer ended early ({made} notes or more were imported)")


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
