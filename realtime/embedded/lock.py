"""The lock of a data folder: one set of embedded servers at a time."""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
import time
from pathlib import Path

from realtime.errors import EmbeddedError

PREDECESSOR_TIMEOUT = 30.0

SECRETS = {"mongo": Path("mongodb", "key"), "redis": Path("valkey", "secret.conf")}
"""Where a data folder has the secret of each server: the last word of a file that the server reads, too."""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def lock_folder(folder: Path, owner: int) -> int:
    """Locks the folder and returns the descriptor that holds the lock.

    Raises :class:`EmbeddedError` if a living process has it; waits for the servers of a dead one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"the data folder {folder} cannot be used: {error.strerror}") from error
    refusal = time.monotonic() + DYING_TIMEOUT
    deadline = time.monotonic() + PREDECESSOR_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").split("\n")[0]
            running = not holder.isdigit() or _is_running(int(holder))
            # One that was just killed is still there for a moment.
            if time.monotonic() > (refusal if running else deadline):
                raise EmbeddedError(
                    f"the data folder {folder} is in use by process {holder or 'unknown'}."
                    " Stop it, or give this server another folder with --data"
                ) from None
            time.sleep(0.05)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{owner}\n".encode(), 0)
            return lock


def ports_in_use(folder: Path) -> dict[str, int] | None:
    """The ports of the servers that run in a folder by now, by kind; ``None`` if none do.

    Raises ``OSError`` if the folder is somebody else's.
    """
    try:
        lock = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder, _, ports = os.pread(lock, 256, 0).decode().partition("\n")
        return json.loads(ports) if ports and _is_running(int(holder)) else None
    else:
        return None
    finally:
        os.close(lock)


def _owner_is_gone(timeout: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], timeout)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)


def _known_ports(file: Path) -> dict[str, int]:
    try:
        ports: dict[str, int] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return ports


DYING_TIMEOUT = 1.0
