"""Starts servers by forking a process that has imported all modules, one per test run.

Imports take most of the startup time, and the suite starts hundreds of servers.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["realtime.cli.main", "realtime.server.serve", "realtime.app", "uvloop", "httptools"])


def _realtime(arguments: Sequence[str], environment: Mapping[str, str], output: Connection, log: str) -> None:
    os.dup2(output.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)
    os.environ.update(environment)
    from realtime.cli.main import app

    app(arguments, prog_name="realtime")


class Fork:
    """A forked ``realtime`` process with the interface of ``subprocess.Popen``. Appends standard error to a file."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: str) -> None:
        reading, writing = _forks.Pipe(duplex=False)
        self.stdout = os.fdopen(os.dup(reading.fileno()), "rb")
        self._process = _forks.Process(target=_realtime, args=(arguments, environment, writing, log))
        self._process.start()
        reading.close()
        writing.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, or ``None`` if the process is running."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process ends, and return its exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("realtime", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal if the process is running."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process with SIGKILL if it is running."""
        if self.poll() is None:
            self._process.kill()
