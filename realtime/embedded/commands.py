"""The command lines of the embedded servers, and their secrets."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from realtime.embedded.lock import SECRETS


def _ensure_secret_file(file: Path, prefix: str = "") -> str:
    """Create the secret file of a server if there is none, make it private to the user, and return its path."""
    if not file.exists() or not file.stat().st_size:
        temporary = file.with_suffix(".new")
        temporary.touch(0o600)
        temporary.write_text(f"{prefix}{secrets.token_hex(32)}\n")
        temporary.replace(file)
    file.chmod(0o600)
    return str(file)


def mongod_command(program: str) -> Callable[[int, Path], list[str]]:
    """Return a function that returns the command line of MongoDB for a port and a folder."""

    def command(port: int, folder: Path) -> list[str]:
        (folder / "data").mkdir(exist_ok=True)
        options = {
            "--bind_ip": "127.0.0.1",
            "--port": str(port),
            "--dbpath": str(folder / "data"),
            "--logpath": str(folder / "log.txt"),
            "--keyFile": _ensure_secret_file(folder / SECRETS["mongo"].name),
            "--replSet": "realtime",
            "--oplogSize": "512",
            "--wiredTigerCacheSizeGB": "0.5",
            "--setParameter": "diagnosticDataCollectionEnabled=false",
            # Unpatched versions respond to malformed compressed messages with uninitialized memory, even before
            # authentication (CVE-2025-14847). Compression is useless on loopback.
            "--networkMessageCompressors": "disabled",
        }
        # The last flag prevents local processes from creating the first user without authentication.
        flags = ["--logappend", "--quiet", "--nounixsocket", "--setParameter=enableLocalhostAuthBypass=false"]
        return [program, *(word for option in options.items() for word in option), *flags]

    return command


def valkey_command(program: str) -> Callable[[int, Path], list[str]]:
    """Return a function that returns the command line of Valkey for a port and a folder."""

    def command(port: int, folder: Path) -> list[str]:
        options = {
            "--bind": "127.0.0.1",
            "--port": str(port),
            "--dir": str(folder),
            # Without persistence: the event log is a cache, and a restarted server always begins a new epoch.
            "--save": "",
            "--appendonly": "no",
            "--logfile": str(folder / "log.txt"),
        }
        secret = _ensure_secret_file(folder / SECRETS["redis"].name, prefix="requirepass ")
        return [program, secret, *(word for option in options.items() for word in option)]

    return command
