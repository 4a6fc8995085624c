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


class HelperLost(Exception):
    """Raised if the helper process ended repeatedly before it returned a result."""


class HelperProcess:
    """Calls functions in a process of its own, one at a time.

    The process starts with the first call, and starts again if it has ended. It ends with its parent, however that
    ends, because its input is closed then.
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
            with contextlib.suppress(OSError, EOFError):
                succeeded, result = self._exchange(request)
                if succeeded:
                    return result  # type: ignore[no-any-return]
                raise result
            self.close()
        raise HelperLost

    def _exchange(self, request: bytes) -> Any:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "realtime.core.helper_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C must reach only the parent
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        _write(self._process.stdin, request)
        return pickle.loads(_read(self._process.stdout))  # written by _serve

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
    message = stream.read(_SIZE.unpack(head)[0]) if len(head) == _SIZE.size else b""
    if not message:
        raise EOFError
    return message


def _serve() -> None:
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


if __name__ == "__main__":
    _serve()
