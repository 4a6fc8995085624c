"""One embedded server as a process on a free loopback port."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from realtime.errors import EmbeddedError

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0

RESTART_PAUSE = 1.0
TELL_AGAIN = 60.0
LARGEST_LOG = 16 * 1024 * 1024


class EmbeddedServer:
    """One embedded server on a free loopback port."""

    def __init__(
        self, name: str, folder: Path, port: int, command: Callable[[int, Path], list[str]], lock: int
    ) -> None:
        self.name = name
        self.port = port
        self._folder = folder
        self._command = command
        self._lock = lock
        self._output = folder / "output.txt"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: float | None = None
        self._told: float | None = None

    def start(self) -> None:
        """Starts the process; does not wait for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        for file in (self._output, self._folder / "log.txt"):
            if file.exists() and file.stat().st_size > LARGEST_LOG:
                os.truncate(file, 0)
        if not _is_free(self.port):
            self.port = _free_port()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(self.port, self._folder),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(self._lock,),
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # this process has one thread
            )
        self._ended = None

    def is_up(self) -> bool:
        """Whether it accepts connections. Raises :class:`EmbeddedError` if it has ended instead."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise EmbeddedError(
                f"the embedded {self.name} stopped at once (exit code {self._process.returncode}): {self._last_words()}"
            )
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _last_words(self) -> str:
        for file in (self._output, self._folder / "log.txt"):
            lines = file.read_text(errors="replace").splitlines() if file.exists() else []
            if lines:
                return f"{lines[-1][:500]} (more in {file})"
        return "it said nothing"

    def restart_if_dead(self) -> None:
        """Starts it again, a moment after it died, on the port where everyone looks for it."""
        if self._process is None or self._process.poll() is None:
            return
        if self._ended is None:
            self._ended = time.monotonic()
            self._tell(self._process.returncode)
        elif time.monotonic() - self._ended > RESTART_PAUSE and _is_free(self.port):
            self.start()

    def _tell(self, code: int) -> None:
        """Says why it is being started again; not each time, while it dies again and again."""
        if self._told is None or time.monotonic() - self._told > TELL_AGAIN:
            self._told = time.monotonic()
            free = shutil.disk_usage(self._folder).free // 2**20
            sys.stderr.write(
                f"realtime: the embedded {self.name} stopped (exit code {code}) and is started again;"
                f" its disk has {free} MiB free; {self._last_words()}\n"
            )

    def ask_to_stop(self) -> None:
        """Asks it to stop cleanly."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Waits for its end, and makes it end if that takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG, for the case that the keeper itself is killed; other systems have nothing like it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0


def _free_port() -> int:
    # Below the ports that systems give to outgoing connections, so that none of those is on it after a restart.
    return next(port for port in iter(lambda: random.randrange(20_000, 32_000), None) if _is_free(port))
