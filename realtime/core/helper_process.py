"""A process for slow Python functions. In a thread, they would hold the interpreter's lock and delay the event loop."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, TypeVar

T = TypeVar("T")

_SIZE = struct.Struct(">Q")
_NICENESS = 10
"""The event loop and the databases get processor time first."""
_ATTEMPTS = 2
_PROGRAM = "import sys; sys.path[:] = {!r}; from realtime.core import helper_process; helper_process.serve()"
"""The program of the process. It imports modules from the same folders as the parent."""


class HelperLost(Exception):
    """Raised if the helper process ended repeatedly before it returned a result."""


class HelperProcess:
    """Calls functions in a process of its own, one at a time.

    The process starts with the first call, and starts again if it has ended. It ends when its input is closed, which
    happens even if the parent is killed.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function, and return its result or raise its error. Blocks, and must not be called concurrently.

        Args:
            function: A function of a module, without side effects: it is called again if the process ends meanwhile.
            arguments: Its arguments. They are pickled, as is the result.

        Raises:
            HelperLost: The process ended each time.
        """
        request = pickle.dumps((function, arguments))
        for _ in range(_ATTEMPTS):
            try:
                succeeded, result = self._exchange(request)
            except (OSError, EOFError):
                self.close()
                continue
            if succeeded:
                return result  # type: ignore[no-any-return]  # unpickled
            raise result
        raise HelperLost

    def _exchange(self, request: bytes) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM.format(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,  # Ctrl-C must reach only the parent
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        _write(self._process.stdin, request)
        return pickle.loads(_read(self._process.stdout))  # written by serve

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(_SIZE.pack(len(message)))
    stream.write(message)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    """Read a message. Raises ``EOFError`` at the end of the stream."""
    head = stream.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    size: int = _SIZE.unpack(head)[0]
    message = stream.read(size)
    if len(message) < size:
        raise EOFError
    return message


def serve() -> None:
    """Call the requested functions until the input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may be printed between the replies
    os.nice(_NICENESS)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, arguments = pickle.loads(_read(requests))  # written by the parent
            try:
                reply = True, function(*arguments)
            except Exception as error:  # noqa: BLE001  # raised again by the parent
                reply = False, error
            _write(replies, pickle.dumps(reply))
