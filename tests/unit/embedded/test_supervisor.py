"""The supervisor of the embedded databases: programs, folder locks, and ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from realtime.embedded.lock import lock_folder
from realtime.embedded.pair import EmbeddedServers
from realtime.embedded.programs import MONGOD_HELP, find_mongod, find_program, packaged_mongod, packaged_valkey
from realtime.errors import EmbeddedError
from tests.support.harness import eventually

HELP = "Install it"
BROKEN = (
    'echo "mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file" >&2; exit 127'
)


def _script(file: Path, body: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a folder that is the only entry of PATH."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_packaged_programs_are_found_and_run() -> None:
    packaged = [packaged_mongod(), packaged_valkey()]
    assert [find_program(program, ["none"], HELP) for program in packaged] == [str(program) for program in packaged]


def test_packaged_program_is_preferred_to_the_path(path: Path, tmp_path: Path) -> None:
    _script(path / "mongod", "exit 0")
    packaged = _script(tmp_path / "packaged", "exit 0")
    assert find_program(packaged, ["mongod"], HELP) == str(packaged)


@pytest.mark.parametrize("body", [BROKEN, "exit 1", "kill -ILL $$"])
def test_program_on_the_path_replaces_a_broken_package(body: str, path: Path, tmp_path: Path) -> None:
    installed = _script(path / "redis-server", "exit 0")
    packaged = _script(tmp_path / "packaged", body)
    assert find_program(packaged, ["valkey-server", "redis-server"], HELP) == str(installed)


def _mongod(file: Path, version: str) -> str:
    return str(_script(file, f"echo 'db version v{version}'"))


@pytest.mark.parametrize(
    ("on_path", "packaged", "chosen"),
    [
        ("7.0.28", "6.0.5", "path"),
        ("6.0.27", "6.0.5", "path"),
        ("10.0.1", "9.0.2", "path"),
        ("6.0.4", "6.0.5", "packaged"),
        ("6.0.5", "6.0.5", "packaged"),
        (None, "6.0.5", "packaged"),
        ("4.4.30", None, "path"),
    ],
)
def test_mongod_for_new_data_is_the_newest(
    on_path: str | None, packaged: str | None, chosen: str, path: Path, tmp_path: Path
) -> None:
    programs = {"path": path / "mongod", "packaged": tmp_path / "packaged"}
    for name, version in (("path", on_path), ("packaged", packaged)):
        if version:
            _mongod(programs[name], version)
    assert find_mongod(programs["packaged"], tmp_path / "mongodb") == str(programs[chosen])


@pytest.mark.parametrize(
    ("created_by", "on_path", "chosen"),
    [
        ("6.0.5", "7.0.28", "path"),  # the next release opens it
        ("6.0.5", "8.0.17", "packaged"),  # the release after that does not
        ("6.0.27", "6.0.26", "path"),
        ("7.0.28", "7.0.1", "path"),  # and 6.0.5 does not
        ("8.2.3", "8.0.17", "path"),  # no version opens it: the newest reports the reason
        (None, "7.0.28", "packaged"),  # created before the version was recorded
    ],
)
def test_mongod_for_existing_data_is_the_newest_compatible_version(
    created_by: str | None, on_path: str, chosen: str, path: Path, tmp_path: Path
) -> None:
    programs = {"path": path / "mongod", "packaged": tmp_path / "packaged"}
    _mongod(programs["path"], on_path)
    _mongod(programs["packaged"], "6.0.5")
    (tmp_path / "mongodb" / "data").mkdir(parents=True)
    if created_by:
        (tmp_path / "mongodb" / "version").write_text(created_by)
    assert find_mongod(programs["packaged"], tmp_path / "mongodb") == str(programs[chosen])


def test_mongod_that_created_the_data_is_chosen_again(path: Path, tmp_path: Path) -> None:
    folder, installed = tmp_path / "mongodb", path / "mongod"
    packaged = tmp_path / "packaged"
    _mongod(packaged, "6.0.5")
    assert find_mongod(packaged, folder) == str(packaged)
    (folder / "data").mkdir()
    assert find_mongod(packaged, folder) == str(packaged)
    _mongod(installed, "8.0.17")
    assert find_mongod(packaged, folder) == str(packaged)


@pytest.mark.usefixtures("path")
def test_missing_mongod_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"^no mongod found\. "):
        find_mongod(None, tmp_path / "mongodb")


@pytest.mark.usefixtures("path")
def test_missing_program_error_says_how_to_install_it() -> None:
    with pytest.raises(EmbeddedError) as refused:
        find_program(None, ["mongod"], MONGOD_HELP)
    assert refused.value.detail == f"no mongod found. {MONGOD_HELP}"
    assert "--mongo-url" in refused.value.detail
    assert "libcurl4" in refused.value.detail


@pytest.mark.usefixtures("path")
def test_missing_package_is_named_in_the_error() -> None:
    with pytest.raises(EmbeddedError, match=r"/nowhere/mongod: .*No such file or directory.*\. Install it$"):
        find_program(Path("/nowhere/mongod"), ["mongod"], HELP)


def test_every_broken_program_is_named_with_its_output(path: Path, tmp_path: Path) -> None:
    installed = _script(path / "mongod", "exit 3")
    packaged = _script(tmp_path / "packaged", BROKEN)
    with pytest.raises(EmbeddedError) as refused:
        find_program(packaged, ["mongod"], HELP)
    assert f"{packaged}: mongod: error while loading shared libraries: libcurl.so.4" in refused.value.detail
    assert f"{installed}: exit code 3" in refused.value.detail


def test_data_folder_is_created_and_locked_by_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    lock = lock_folder(folder, os.getpid())
    try:
        with pytest.raises(EmbeddedError, match=rf"^the data folder {folder} is in use by process {os.getpid()}\. "):
            lock_folder(folder, 1)
    finally:
        os.close(lock)
    os.close(lock_folder(folder, os.getpid()))


def test_lock_of_a_dead_owner_is_awaited(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    lock = lock_folder(tmp_path, dead.pid)
    release = threading.Timer(0.3, os.close, [lock])
    release.start()
    os.close(lock_folder(tmp_path, os.getpid()))
    release.join()


async def test_starting_server_stops_when_the_owner_closes_the_pipe(tmp_path: Path) -> None:
    """The supervisor ignores SIGTERM. A server must not inherit this until it has its own handler."""
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "realtime.embedded.supervisor",
            f'{{"folder": "{tmp_path}", "owner": 1, "wanted": ["mongo"]}}',
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as supervisor:
        mongod = (await eventually(lambda: _servers(supervisor.pid, tmp_path)))[0]
        assert supervisor.stdin is not None
        supervisor.stdin.close()
        await eventually(lambda: not mongod.is_running() and supervisor.poll() is not None)


@pytest.mark.parametrize("place", ["mongodb", "mongodb/data", "valkey", "ports.json/x"])
def test_data_folder_with_unexpected_entries_is_refused(place: str, tmp_path: Path) -> None:
    """A file or a folder is in the place of the other. Missing permissions would not stop a superuser."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    with pytest.raises(EmbeddedError, match=str(tmp_path)):
        EmbeddedServers(tmp_path).start()


async def test_supervisor_ignores_signals_and_restarts_a_killed_server(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, mongo=False):
        (valkey,) = _servers(os.getpid(), tmp_path)
        supervisor = valkey.parent()
        assert supervisor is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            supervisor.send_signal(number)
        valkey.kill()
        (again,) = await eventually(lambda: set(_servers(os.getpid(), tmp_path)) - {valkey})
        assert again.parent() == supervisor
    assert not again.is_running()


def _servers(pid: int, folder: Path) -> list[psutil.Process]:
    """Return the server processes below a process that work in a folder."""
    children = psutil.Process(pid).children(recursive=True)
    found = []
    for child in children:
        # The supervisor also runs each program to read its version: such a child may have ended.
        with suppress(psutil.NoSuchProcess):
            if child.name() in ("mongod", "valkey-server") and _works_in(child, folder):
                found.append(child)
    return found


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
