"""A process that runs one embedded server on a free loopback port."""

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

START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 30.0

RESTART_DELAY_SECONDS = 1.0
REPORT_INTERVAL_SECONDS = 60.0
MAX_LOG_BYTES = 16 * 1024 * 1024


class EmbeddedServer:
    """The process of an embedded server on a free loopback port."""

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
        self._exited: float | None = None
        self._reported: float | None = None

    def start(self) -> None:
        """Start the process without waiting for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        for file in (self._output, self._folder / "log.txt"):
            if file.exists() and file.stat().st_size > MAX_LOG_BYTES:
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
                preexec_fn=die_with_parent,  # noqa: PLW1509  # safe: this process has only one thread
            )
        self._exited = None

    def is_up(self) -> bool:
        """Return whether the server accepts connections. Raises :class:`EmbeddedError` if the process has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            code = self._process.returncode
            raise EmbeddedError(
                f"the embedded {self.name} stopped at startup (exit code {code}): {self._last_log_line()}"
            )
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _last_log_line(self) -> str:
        for file in (self._output, self._folder / "log.txt"):
            lines = file.read_text(errors="replace").splitlines() if file.exists() else []
            if lines:
                return f"{lines[-1][:500]} (more in {file})"
        return "it wrote no log"

    def restart_if_dead(self) -> None:
        """Restart the server on its port, which clients use, a second after it has died."""
        if self._process is None or self._process.poll() is None:
            return
        if self._exited is None:
            self._exited = time.monotonic()
            self._report_exit(self._process.returncode)
        elif time.monotonic() - self._exited > RESTART_DELAY_SECONDS and _is_free(self.port):
            self.start()

    def _report_exit(self, code: int) -> None:
        """Report the restart on standard error, at most once per :data:`REPORT_INTERVAL_SECONDS`."""
        if self._reported is None or time.monotonic() - self._reported > REPORT_INTERVAL_SECONDS:
            self._reported = time.monotonic()
            free = shutil.disk_usage(self._folder).free // 2**20
            sys.stderr.write(
                f"realtime: the embedded {self.name} stopped (exit code {code}) and is being restarted;"
                f" {free} MiB free on its disk; {self._last_log_line()}\n"
            )

    def terminate(self) -> None:
        """Send SIGTERM to the server, so that it shuts down cleanly."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait until the process ends, and kill it after a timeout."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def die_with_parent() -> None:
    """Have the kernel stop this process when its parent ends. Call it in the child, before ``exec``."""
    # PR_SET_PDEATHSIG also works if the parent is killed. Other systems have no equivalent.
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
    # Below the range of ephemeral ports, so that no outgoing connection occupies the port when the server restarts.
    return next(port for port in iter(lambda: random.randrange(20_000, 32_000), None) if _is_free(port))
