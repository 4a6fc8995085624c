"""A private MongoDB and Valkey for one machine: real servers, journaled, that live exactly as long as this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from realtime.errors import EmbeddedError


class Embedded:
    """The embedded servers of one data folder. A keeper process runs them, so that they never outlive their owner."""

    def __init__(self, folder: Path, *, mongo: bool = True, redis: bool = True) -> None:
        self._folder = folder.absolute()
        self._wanted = [kind for kind, wanted in (("mongo", mongo), ("redis", redis)) if wanted]
        self._ports: dict[str, int] = {}
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def mongo_url(self) -> str:
        """The URL of the replica set."""
        return f"mongodb://127.0.0.1:{self._ports['mongo']}/?directConnection=true"

    @property
    def redis_url(self) -> str:
        """The URL of the Redis-compatible server."""
        return f"redis://127.0.0.1:{self._ports['redis']}/0"

    def start(self) -> None:
        """Starts the servers and waits until they answer. Raises :class:`EmbeddedError`."""
        order = {"folder": str(self._folder), "owner": os.getpid(), "wanted": self._wanted}
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "realtime.keeper", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for the server, which stops these when it has drained
        )
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        said: dict[str, Any] = (
            json.loads(line) if line else {"error": "the keeper of the embedded servers ended without a word"}
        )
        if "error" in said:
            self.stop()
            raise EmbeddedError(said["error"])
        self._ports = said["ports"]
        if "mongo" in self._wanted:
            # Here, not at the top: the driver is slow to import and not needed to print a help text.
            from realtime.store.server import ensure_replica_set

            try:
                ensure_replica_set(self._ports["mongo"])
            except EmbeddedError:
                self.stop()
                raise

    def stop(self) -> None:
        """Stops the servers and waits for their end."""
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()
