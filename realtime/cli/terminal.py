"""The terminal that the command line writes to, which may know few characters or be closed."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def prepare() -> None:
    """Let every text be written to standard output and standard error.

    Characters that the encoding of the terminal does not have are replaced. A stream that is closed discards what is
    written to it, and an input that is closed is empty.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115  # for as long as the process runs
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            with contextlib.suppress(OSError):  # it may turn out not to be what it was when Python started
                stream.reconfigure(errors="replace")


def discard_output() -> None:
    """Discard what is still to be written to standard output, which may be what failed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Return a text on one line that cannot control the terminal."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
