"""Servers that start where their imports are done: forks of a process that did them, one for each run of tests.

Importing takes most of the time in which a server starts, and the suite starts some hundreds of them.
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
    """``realtime`` as a process of its own, in the way of ``subprocess.Popen``. Its errors are appended to a file."""

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
        """How it ended, if it did."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("realtime", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it with -9, if it still runs."""
        if self.poll() is None:
            self._process.kill()
