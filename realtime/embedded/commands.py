"""The command lines of the embedded servers, and their secrets."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from realtime.embedded.lock import SECRETS


def _keep_secret(file: Path, before: str = "") -> str:
    """Makes a server's secret if there is none yet, and sees to it that only its user can read it. Names the file."""
    if not file.exists() or not file.stat().st_size:
        new = file.with_suffix(".new")
        new.touch(0o600)
        new.write_text(f"{before}{secrets.token_hex(32)}\n")
        new.replace(file)
    file.chmod(0o600)
    return str(file)


def _mongod(program: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:
        (folder / "data").mkdir(exist_ok=True)
        options = {
            "--bind_ip": "127.0.0.1",
            "--port": str(port),
            "--dbpath": str(folder / "data"),
            "--logpath": str(folder / "log.txt"),
            "--keyFile": _keep_secret(folder / SECRETS["mongo"].name),
            "--replSet": "realtime",
            "--oplogSize": "512",
            "--wiredTigerCacheSizeGB": "0.5",
            "--setParameter": "diagnosticDataCollectionEnabled=false",
            # Unpatched versions send uninitialized memory to anyone who sends a malformed compressed message, before
            # authentication (CVE-2025-14847). On loopback compression is of no use anyway.
            "--networkMessageCompressors": "disabled",
        }
        # Without the last, the first on this machine to call could make himself a user.
        flags = ["--logappend", "--quiet", "--nounixsocket", "--setParameter=enableLocalhostAuthBypass=false"]
        return [program, *(word for option in options.items() for word in option), *flags]

    return command


def _valkey(program: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:
        options = {
            "--bind": "127.0.0.1",
            "--port": str(port),
            "--dir": str(folder),
            # Nothing to keep: the log of events is a cache, and a server that comes back begins a new epoch anyway.
            "--save": "",
            "--appendonly": "no",
            "--logfile": str(folder / "log.txt"),
        }
        secret = _keep_secret(folder / SECRETS["redis"].name, before="requirepass ")
        return [program, secret, *(word for option in options.items() for word in option)]

    return command
