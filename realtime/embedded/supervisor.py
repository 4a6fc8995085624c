"""Supervise the embedded servers: ``python -m realtime.embedded.supervisor`` with the order as JSON in its argument.

It holds the folder's lock, starts the servers, starts again one that dies, and stops them when its standard input
ends, which the kernel sees to even if its owner is killed. The servers inherit the lock, so a folder counts as in use
until the last of them is gone. Each serves only who knows its secret, which is in a file that only its user can read.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from realtime.embedded.programs import REDIS_HELP, find_mongod, find_program, packaged_mongod, packaged_valkey
from realtime.errors import EmbeddedError

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
PREDECESSOR_TIMEOUT = 30.0
DYING_TIMEOUT = 1.0
RESTART_PAUSE = 1.0
TELL_AGAIN = 60.0
LARGEST_LOG = 16 * 1024 * 1024
SECRETS = {"mongo": Path("mongodb", "key"), "redis": Path("valkey", "secret.conf")}
"""Where a data folder has the secret of each server: the last word of a file that the server reads, too."""


class Server:
    """One embedded server on a free loopback port."""

    def __init__(
        self, name: str, folder: Path, port: int, command: Callable[[int, Path], list[str]], lock: int
    ) -> None:
        self.name = name
        self.port = port
        self._folder = folder
        self._command = command
        self._lock = lock
        self._output = folder / "output.txt"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: float | None = None
        self._told: float | None = None

    def start(self) -> None:
        """Starts the process; does not wait for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        for file in (self._output, self._folder / "log.txt"):
            if file.exists() and file.stat().st_size > LARGEST_LOG:
                os.truncate(file, 0)
        if not _is_free(self.port):
            self.port = _free_port()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(self.port, self._folder),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(self._lock,),
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # this process has one thread
            )
        self._ended = None

    def is_up(self) -> bool:
        """Whether it accepts connections. Raises :class:`EmbeddedError` if it has ended instead."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise EmbeddedError(
                f"the embedded {self.name} stopped at once (exit code {self._process.returncode}): {self._last_words()}"
            )
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _last_words(self) -> str:
        for file in (self._output, self._folder / "log.txt"):
            lines = file.read_text(errors="replace").splitlines() if file.exists() else []
            if lines:
                return f"{lines[-1][:500]} (more in {file})"
        return "it said nothing"

    def restart_if_dead(self) -> None:
        """Starts it again, a moment after it died, on the port where everyone looks for it."""
        if self._process is None or self._process.poll() is None:
            return
        if self._ended is None:
            self._ended = time.monotonic()
            self._tell(self._process.returncode)
        elif time.monotonic() - self._ended > RESTART_PAUSE and _is_free(self.port):
            self.start()

    def _tell(self, code: int) -> None:
        """Says why it is being started again; not each time, while it dies again and again."""
        if self._told is None or time.monotonic() - self._told > TELL_AGAIN:
            self._told = time.monotonic()
            free = shutil.disk_usage(self._folder).free // 2**20
            sys.stderr.write(
                f"realtime: the embedded {self.name} stopped (exit code {code}) and is started again;"
                f" its disk has {free} MiB free; {self._last_words()}\n"
            )

    def ask_to_stop(self) -> None:
        """Asks it to stop cleanly."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Waits for its end, and makes it end if that takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG, for the case that the keeper itself is killed; other systems have nothing like it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port != 0


def _free_port() -> int:
    # Below the ports that systems give to outgoing connections, so that none of those is on it after a restart.
    return next(port for port in iter(lambda: random.randrange(20_000, 32_000), None) if _is_free(port))


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


def keep(folder: Path, owner: int, wanted: Sequence[str], say: Callable[[dict[str, Any]], None]) -> None:
    """Runs the wanted servers (``mongo``, ``redis``) until the owner is gone.

    Says their ports once all are up. Raises :class:`EmbeddedError`.
    """
    lock = lock_folder(folder, owner)
    remembered = folder / "ports.json"
    ports = _known_ports(remembered)
    kinds: dict[str, Callable[[], Server]] = {
        "mongo": lambda: Server(
            "MongoDB",
            folder / "mongodb",
            ports.get("mongo", 0),
            _mongod(find_mongod(packaged_mongod(), folder / "mongodb")),
            lock,
        ),
        "redis": lambda: Server(
            "Valkey",
            folder / "valkey",
            ports.get("redis", 0),
            _valkey(find_program(packaged_valkey(), ["valkey-server", "redis-server"], REDIS_HELP)),
            lock,
        ),
    }
    servers = {kind: kinds[kind]() for kind in wanted}
    try:
        for server in servers.values():
            server.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not all(server.is_up() for server in servers.values()):
            if _owner_is_gone(0.02):
                return
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the embedded servers did not start within {START_TIMEOUT:.0f} s")
        mine = {kind: server.port for kind, server in servers.items()}
        remembered.write_text(json.dumps(ports | mine))
        os.pwrite(lock, json.dumps(mine).encode(), len(f"{owner}\n"))
        say({"ports": mine})
        while not _owner_is_gone(0.25):
            for server in servers.values():
                server.restart_if_dead()
    finally:
        for server in servers.values():
            server.ask_to_stop()
        for server in servers.values():
            server.wait()


def main() -> None:
    """Obeys the order in the first argument, and says on standard output what came of it."""
    order = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The owner decides, by ending our standard input. Not SIG_IGN: the servers would inherit that.
        signal.signal(number, lambda _number, _frame: None)

    def say(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    try:
        keep(Path(order["folder"]), order["owner"], order["wanted"], say)
    except EmbeddedError as error:
        say({"error": error.detail})
        sys.exit(1)
    except OSError as error:
        say({"error": f"the data folder {order['folder']} cannot be used: {error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()
