"""The lock of a data folder, which allows one set of embedded servers at a time."""

from __future__ import annotations

import fcntl
import json
import os
import select
import sys
import time
from pathlib import Path

from realtime.errors import EmbeddedError

OWNER_TIMEOUT_SECONDS = 1.0
"""Time to wait for the owner of the lock, because a process that was just killed may still exist for a moment."""
ORPHANS_TIMEOUT_SECONDS = 30.0
"""Time to wait until the servers of an owner that has ended have stopped."""
SECRETS = {"mongo": Path("mongodb", "key"), "redis": Path("valkey", "secret.conf")}
"""Path of each server's secret file in a data folder. The secret is the last word in the file."""


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def lock_folder(folder: Path, owner: int) -> int:
    """Lock a data folder. Wait for the servers of an owner that has ended.

    Args:
        folder: The data folder, which is created if it does not exist.
        owner: The id of the process that owns the lock.

    Returns:
        The file descriptor that holds the lock.

    Raises:
        EmbeddedError: A running process owns the lock, or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"the data folder {folder} cannot be used: {error.strerror}") from error
    owner_deadline = time.monotonic() + OWNER_TIMEOUT_SECONDS
    deadline = time.monotonic() + ORPHANS_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner_pid = os.pread(lock, 32, 0).decode(errors="replace").split("\n")[0]
            running = not owner_pid.isdigit() or _is_running(int(owner_pid))
            if time.monotonic() > (owner_deadline if running else deadline):
                raise EmbeddedError(
                    f"the data folder {folder} is in use by process {owner_pid or 'unknown'}."
                    " Stop it, or use another folder with --data"
                ) from None
            time.sleep(0.05)
        else:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{owner}\n".encode(), 0)
            return lock


def ports_in_use(folder: Path) -> dict[str, int] | None:
    """Return the ports of the servers that run in a data folder, by kind, or ``None`` if none are running.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        lock = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner_pid, _, ports = os.pread(lock, 256, 0).decode().partition("\n")
        return json.loads(ports) if ports and _is_running(int(owner_pid)) else None
    else:
        return None
    finally:
        os.close(lock)


def owner_has_ended(timeout: float) -> bool:
    """Wait up to ``timeout`` seconds for the end of standard input, and return whether it was reached."""
    ready, _, _ = select.select([sys.stdin], [], [], timeout)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1024)


def read_ports(file: Path) -> dict[str, int]:
    """Return the ports of an earlier start by kind, or an empty mapping if the file cannot be read."""
    try:
        ports: dict[str, int] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return ports
