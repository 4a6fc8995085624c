"""Starts an embedded MongoDB and Valkey, which stop when this process ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from realtime.embedded.lock import SECRETS, ports_in_use
from realtime.errors import EmbeddedError

if TYPE_CHECKING:
    from realtime.settings import Settings


class DatabaseUrls(NamedTuple):
    """The URLs of the databases, including their secrets. The URL of a database that does not run is empty."""

    mongo: str
    redis: str


class EmbeddedServers:
    """The embedded servers of one data folder. A supervisor process stops them even if this process is killed.

    Attributes:
        folder: The data folder, as an absolute path.
    """

    def __init__(self, folder: Path, *, mongo: bool = True, redis: bool = True) -> None:
        self.folder = folder.absolute()
        self._wanted = [kind for kind, wanted in (("mongo", mongo), ("redis", redis)) if wanted]
        self._urls = DatabaseUrls("", "")
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def mongo_url(self) -> str:
        """The URL of the replica set, including its secret."""
        return self._urls.mongo

    @property
    def redis_url(self) -> str:
        """The URL of the Redis-compatible server, including its secret."""
        return self._urls.redis

    def start(self) -> None:
        """Start the servers and wait until they accept connections. Raises :class:`EmbeddedError`."""
        if not self._wanted:
            return
        order = {"folder": str(self.folder), "owner": os.getpid(), "wanted": self._wanted}
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "realtime.embedded.supervisor", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must reach only this process, which stops them after its drain
        )
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        reply: dict[str, Any] = (
            json.loads(line) if line else {"error": "the supervisor of the embedded servers ended unexpectedly"}
        )
        if "error" in reply:
            self.stop()
            raise EmbeddedError(reply["error"])
        self._urls = _urls(self.folder, reply["ports"])
        if self.mongo_url:
            # Imported here because the driver is slow to import, and the command line does not need it for help texts.
            from realtime.store.bootstrap import ensure_replica_set

            try:
                ensure_replica_set(self.mongo_url)
            except EmbeddedError:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop the servers, and wait until they have ended."""
        if self._supervisor is None:
            return
        supervisor, self._supervisor = self._supervisor, None
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        supervisor.stdin.close()
        supervisor.wait()
        supervisor.stdout.close()


@contextmanager
def database_urls(settings: Settings) -> Iterator[DatabaseUrls]:
    """Yield the URLs of both databases. Those without a URL in the settings run embedded until the block ends."""
    with EmbeddedServers(settings.data, mongo=not settings.mongo_url, redis=not settings.redis_url) as embedded:
        yield DatabaseUrls(settings.mongo_url or embedded.mongo_url, settings.redis_url or embedded.redis_url)


def running(folder: Path) -> DatabaseUrls | None:
    """Return the URLs of the embedded servers that run in a data folder, or ``None`` if none is running.

    Raises:
        EmbeddedError: The folder cannot be used.
    """
    try:
        ports = ports_in_use(folder)
        return None if ports is None else _urls(folder, ports)
    except OSError as error:
        raise EmbeddedError(f"the data folder {folder} cannot be used: {error.strerror}") from error


def _urls(folder: Path, ports: Mapping[str, int]) -> DatabaseUrls:
    secrets = {kind: (folder / SECRETS[kind]).read_text().split()[-1] for kind in ports}
    # The internal user of MongoDB: its password is in the key file, so that no user has to be created.
    mongo = "mongodb://__system:{}@127.0.0.1:{}/?directConnection=true&authSource=local"
    redis = "redis://:{}@127.0.0.1:{}/0"
    return DatabaseUrls(
        mongo.format(secrets["mongo"], ports["mongo"]) if "mongo" in ports else "",
        redis.format(secrets["redis"], ports["redis"]) if "redis" in ports else "",
    )
