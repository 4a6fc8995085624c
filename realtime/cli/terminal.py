"""Terminal output that tolerates limited encodings and closed streams."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def prepare() -> None:
    """Make the standard streams accept any text.

    Characters that the encoding of the terminal lacks are replaced. A closed output discards all text, and a closed
    input is empty.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115  # for as long as the process runs
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  # likewise
        elif isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            with contextlib.suppress(OSError):  # the descriptor may have changed since Python started
                stream.reconfigure(errors="replace")


def discard_output() -> None:
    """Discard the buffered standard output if it cannot be written, so that Python can exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    """Return a text on one line, with control characters replaced by U+FFFD."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
