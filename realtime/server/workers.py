"""A supervisor for several server processes on one socket: starts, restarts, replaces and stops them."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client.multiprocess import mark_process_dead

from realtime.errors import RealtimeError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

log = logging.getLogger(__name__)

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 60.0
POLL_INTERVAL_SECONDS = 0.1
RESTART_DELAY_SECONDS = 1.0
STARTUP_FAILURE_EXIT_CODE = 3  # uvicorn's exit code when the application could not start

_spawn = multiprocessing.get_context("spawn")


class Run(Protocol):
    """A function that runs one server process."""

    def __call__(self, on_started: Callable[[], None], parent: int | None) -> None:
        """Run until the process is stopped, or until the process ``parent`` has ended. Call ``on_started`` once."""


class Worker:
    """A server process."""

    def __init__(self, run: Run) -> None:
        self._serving = _spawn.Event()
        self._process: SpawnProcess = _spawn.Process(target=_run_worker, args=(run, self._serving, os.getpid()))
        self._started = time.monotonic()
        self._process.start()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, or ``None`` while the process is running."""
        return self._process.exitcode

    @property
    def serving(self) -> bool:
        """Whether the process has started to serve."""
        return self._serving.is_set()

    @property
    def age(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._started

    def stop(self) -> None:
        """Ask the process to drain and stop."""
        if self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        """Wait until the process ends, and kill it after a timeout."""
        self._process.join(STOP_TIMEOUT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        with contextlib.suppress(KeyError):
            mark_process_dead(self.pid)  # type: ignore[no-untyped-call]  # the library has no types


def _run_worker(run: Run, serving: Any, parent: int) -> None:
    run(serving.set, parent)


class Workers:
    """Supervises the server processes. SIGTERM and SIGINT stop them, SIGHUP replaces them one by one without a gap."""

    def __init__(self, run: Run, count: int, on_started: Callable[[], None]) -> None:
        self._run = run
        self._count = count
        self._on_started = on_started
        self._workers: list[Worker] = []
        self._signals: list[int] = []

    def run(self) -> None:
        """Run until a signal stops the workers. Raises :class:`RealtimeError` if they cannot start."""
        previous_handlers = {
            number: signal.signal(number, lambda number, _: self._signals.append(number))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            self._workers = [Worker(self._run) for _ in range(self._count)]
            if self._wait_until_serving(self._workers):
                self._on_started()
                self._supervise()
            elif not self._stopping:
                raise RealtimeError("the workers did not start; see the log for the reason")
        finally:
            for worker in self._workers:
                worker.stop()
            for worker in self._workers:
                worker.join()
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

    @property
    def _stopping(self) -> bool:
        return signal.SIGTERM in self._signals or signal.SIGINT in self._signals

    def _wait_until_serving(self, workers: list[Worker]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not all(worker.serving for worker in workers):
            if self._stopping or time.monotonic() > deadline or any(worker.exit_code is not None for worker in workers):
                return False
            time.sleep(POLL_INTERVAL_SECONDS)
        return True

    def _supervise(self) -> None:
        while not self._stopping:
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._replace_all()
            for index, worker in enumerate(self._workers):
                if worker.exit_code is None or worker.age < RESTART_DELAY_SECONDS:
                    continue
                worker.join()
                if worker.exit_code == STARTUP_FAILURE_EXIT_CODE and not worker.serving:
                    raise RealtimeError("a worker could not be restarted; see the log for the reason")
                log.warning("a worker died, starting a new one", extra={"worker": worker.pid, "exit": worker.exit_code})
                self._workers[index] = Worker(self._run)
            time.sleep(POLL_INTERVAL_SECONDS)

    def _replace_all(self) -> None:
        for index, old in enumerate(self._workers):
            new = Worker(self._run)
            if not self._wait_until_serving([new]):
                log.error("the new worker did not start, keeping the old ones")
                new.stop()
                new.join()
                return
            self._workers[index] = new
            old.stop()
            old.join()
