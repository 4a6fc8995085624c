"""Supervises the embedded servers: ``python -m realtime.embedded.supervisor JSON``.

The supervisor holds the lock of the data folder, starts the servers, restarts a server that dies, and stops them when
its standard input ends, which happens even if its owner is killed. The servers inherit the lock, so the folder stays
locked until the last of them has ended. Clients authenticate with a secret in a file that only the user can read.
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

from realtime.embedded.commands import mongod_command, valkey_command
from realtime.embedded.lock import lock_folder, owner_has_ended, read_ports
from realtime.embedded.process import START_TIMEOUT_SECONDS, EmbeddedServer
from realtime.embedded.programs import REDIS_HELP, find_mongod, find_program, packaged_mongod, packaged_valkey
from realtime.errors import EmbeddedError


def supervise(folder: Path, owner: int, wanted: Sequence[str], report: Callable[[dict[str, Any]], None]) -> None:
    """Run servers until the owner has ended.

    Args:
        folder: The data folder.
        owner: The process id of the owner.
        wanted: The servers to run: ``mongo``, ``redis``.
        report: Called with the ports when all servers accept connections.

    Raises:
        EmbeddedError: The folder is in use, or a server does not start.
    """
    lock = lock_folder(folder, owner)
    ports_file = folder / "ports.json"
    ports = read_ports(ports_file)
    kinds: dict[str, Callable[[], EmbeddedServer]] = {
        "mongo": lambda: EmbeddedServer(
            "MongoDB",
            folder / "mongodb",
            ports.get("mongo", 0),
            mongod_command(find_mongod(packaged_mongod(), folder / "mongodb")),
            lock,
        ),
        "redis": lambda: EmbeddedServer(
            "Valkey",
            folder / "valkey",
            ports.get("redis", 0),
            valkey_command(find_program(packaged_valkey(), ["valkey-server", "redis-server"], REDIS_HELP)),
            lock,
        ),
    }
    servers = {kind: kinds[kind]() for kind in wanted}
    try:
        for server in servers.values():
            server.start()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not all(server.is_up() for server in servers.values()):
            if owner_has_ended(0.02):
                return
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the embedded servers did not start within {START_TIMEOUT_SECONDS:.0f} s")
        own_ports = {kind: server.port for kind, server in servers.items()}
        ports_file.write_text(json.dumps(ports | own_ports))
        os.pwrite(lock, json.dumps(own_ports).encode(), len(f"{owner}\n"))
        report({"ports": own_ports})
        while not owner_has_ended(0.25):
            for server in servers.values():
                server.restart_if_dead()
    finally:
        for server in servers.values():
            server.terminate()
        for server in servers.values():
            server.wait()


def main() -> None:
    """Run the servers in the JSON argument, and write the ports or an error to standard output as JSON."""
    order = json.loads(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The owner stops the supervisor by closing its standard input. Not SIG_IGN, which the servers would inherit.
        signal.signal(number, lambda _number, _frame: None)

    def report(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    try:
        supervise(Path(order["folder"]), order["owner"], order["wanted"], report)
    except EmbeddedError as error:
        report({"error": error.detail})
        sys.exit(1)
    except OSError as error:
        report({"error": f"the data folder {order['folder']} cannot be used: {error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()
