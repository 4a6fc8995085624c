"""Several server processes on one socket: started, watched, started again, replaced one by one, stopped."""

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

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
POLL = 0.1
RESTART_PAUSE = 1.0
STARTUP_FAILURE = 3  # uvicorn's exit code when the application could not start

_spawn = multiprocessing.get_context("spawn")


class Run(Protocol):
    """Runs one server process: calls ``on_started`` when it serves, and returns when it is stopped."""

    def __call__(self, on_started: Callable[[], None], parent: int | None) -> None:
        """Runs."""


class Worker:
    """One server process."""

    def __init__(self, run: Run) -> None:
        self._serving = _spawn.Event()
        self._process: SpawnProcess = _spawn.Process(target=_work, args=(run, self._serving, os.getpid()))
        self._started = time.monotonic()
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with; ``None`` while it runs."""
        return self._process.exitcode

    @property
    def serving(self) -> bool:
        """Whether it has come up."""
        return self._serving.is_set()

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def stop(self) -> None:
        """Asks it to drain and stop."""
        if self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        """Waits for its end, and makes it end if that takes too long."""
        self._process.join(STOP_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        with contextlib.suppress(KeyError):
            mark_process_dead(self.pid)  # type: ignore[no-untyped-call]  # the library leaves it open


def _work(run: Run, serving: Any, parent: int) -> None:
    run(serving.set, parent)


class Workers:
    """The supervisor. SIGTERM and SIGINT stop all, SIGHUP replaces them one by one without a gap."""

    def __init__(self, run: Run, number: int, on_started: Callable[[], None]) -> None:
        self._run = run
        self._number = number
        self._on_started = on_started
        self._workers: list[Worker] = []
        self._signals: list[int] = []

    def run(self) -> None:
        """Runs until a signal comes. Raises :class:`RealtimeError` when the workers cannot start at all."""
        before = {
            number: signal.signal(number, lambda number, _: self._signals.append(number))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            self._workers = [Worker(self._run) for _ in range(self._number)]
            if self._await(self._workers):
                self._on_started()
                self._watch()
            elif not self._stopping:
                raise RealtimeError("the workers did not start; the log says why")
        finally:
            for worker in self._workers:
                worker.stop()
            for worker in self._workers:
                worker.join()
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def _stopping(self) -> bool:
        return signal.SIGTERM in self._signals or signal.SIGINT in self._signals

    def _await(self, workers: list[Worker]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        while not all(worker.serving for worker in workers):
            if self._stopping or time.monotonic() > deadline or any(worker.exit_code is not None for worker in workers):
                return False
            time.sleep(POLL)
        return True

    def _watch(self) -> None:
        while not self._stopping:
            if signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._replace_all()
            for place, worker in enumerate(self._workers):
                if worker.exit_code is None or worker.age < RESTART_PAUSE:
                    continue
                worker.join()
                if worker.exit_code == STARTUP_FAILURE and not worker.serving:
                    raise RealtimeError("a worker cannot start any more; the log says why")
                log.warning("a worker died, starting another", extra={"worker": worker.pid, "exit": worker.exit_code})
                self._workers[place] = Worker(self._run)
            time.sleep(POLL)

    def _replace_all(self) -> None:
        for place, old in enumerate(self._workers):
            new = Worker(self._run)
            if not self._await([new]):
                log.error("the new worker did not come up, keeping the old ones")
                new.stop()
                new.join()
                return
            self._workers[place] = new
            old.stop()
            old.join()
