"""A private MongoDB and Valkey for one machine: real servers, journaled, that live exactly as long as this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realtime.embedded.lock import SECRETS, ports_in_use
from realtime.errors import EmbeddedError


class EmbeddedServers:
    """The embedded servers of one data folder. A keeper process runs them, so that they never outlive their owner."""

    def __init__(self, folder: Path, *, mongo: bool = True, redis: bool = True) -> None:
        self._folder = folder.absolute()
        self._wanted = [kind for kind, wanted in (("mongo", mongo), ("redis", redis)) if wanted]
        self._urls = ("", "")
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def mongo_url(self) -> str:
        """The URL of the replica set, with its secret."""
        return self._urls[0]

    @property
    def redis_url(self) -> str:
        """The URL of the Redis-compatible server, with its secret."""
        return self._urls[1]

    def start(self) -> None:
        """Starts the servers and waits until they answer. Raises :class:`EmbeddedError`."""
        order = {"folder": str(self._folder), "owner": os.getpid(), "wanted": self._wanted}
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "realtime.embedded.supervisor", json.dumps(order)],
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
        self._urls = _urls(self._folder, said["ports"])
        if self.mongo_url:
            # Here, not at the top: the driver is slow to import and not needed to print a help text.
            from realtime.store.bootstrap import ensure_replica_set

            try:
                ensure_replica_set(self.mongo_url)
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


def running(folder: Path) -> tuple[str, str] | None:
    """The URLs of MongoDB and Redis, with their secrets, of the server that runs on a data folder now.

    One of the two is empty when that server has the other one elsewhere. Raises :class:`EmbeddedError`.
    """
    try:
        ports = ports_in_use(folder)
        return None if ports is None else _urls(folder, ports)
    except OSError as error:
        raise EmbeddedError(f"the data folder {folder} cannot be used: {error.strerror}") from error


def _urls(folder: Path, ports: Mapping[str, int]) -> tuple[str, str]:
    secrets = {kind: (folder / SECRETS[kind]).read_text().split()[-1] for kind in ports}
    # MongoDB's own user, whose password its key file is: so there is nothing to make or to keep in the database.
    mongo = "mongodb://__system:{}@127.0.0.1:{}/?directConnection=true&authSource=local"
    redis = "redis://:{}@127.0.0.1:{}/0"
    return (
        mongo.format(secrets["mongo"], ports["mongo"]) if "mongo" in ports else "",
        redis.format(secrets["redis"], ports["redis"]) if "redis" in ports else "",
    )
