"""Supervise the embedded servers: ``python -m realtime.embedded.supervisor`` with the order as JSON in its argument.

It holds the folder's lock, starts the servers, starts again one that dies, and stops them when its standard input
ends, which the kernel sees to even if its owner is killed. The servers inherit the lock, so a folder counts as in use
until the last of them is gone. Each serves only who knows its secret, which is in a file that only its user can read.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from realtime.embedded.commands import _mongod, _valkey
from realtime.embedded.lock import _known_ports, _owner_is_gone, lock_folder
from realtime.embedded.process import START_TIMEOUT, EmbeddedServer
from realtime.embedded.programs import REDIS_HELP, find_mongod, find_program, packaged_mongod, packaged_valkey
from realtime.errors import EmbeddedError


def keep(folder: Path, owner: int, wanted: Sequence[str], say: Callable[[dict[str, Any]], None]) -> None:
    """Runs the wanted servers (``mongo``, ``redis``) until the owner is gone.

    Says their ports once all are up. Raises :class:`EmbeddedError`.
    """
    lock = lock_folder(folder, owner)
    remembered = folder / "ports.json"
    ports = _known_ports(remembered)
    kinds: dict[str, Callable[[], EmbeddedServer]] = {
        "mongo": lambda: EmbeddedServer(
            "MongoDB",
            folder / "mongodb",
            ports.get("mongo", 0),
            _mongod(find_mongod(packaged_mongod(), folder / "mongodb")),
            lock,
        ),
        "redis": lambda: EmbeddedServer(
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
