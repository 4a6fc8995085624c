"""Fixtures: one embedded pair for the whole run, and a database of its own for every test."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from starlette.testclient import TestClient

from realtime import create_app
from realtime.embedded.pair import EmbeddedServers
from realtime.settings import Settings
from tests.harness import ServerProcess


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> None:
    for name in [name for name in os.environ if name.startswith("REALTIME_")]:
        del os.environ[name]
    # A shell that starts this in the background has Ctrl-C ignored, and so would be what the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """A real MongoDB and a real Valkey."""
    servers = EmbeddedServers(tmp_path_factory.mktemp("embedded"))
    servers.start()
    yield servers
    servers.stop()


def _settings(embedded: EmbeddedServers) -> Iterator[Settings]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield Settings(
        mongo_url=embedded.mongo_url,
        redis_url=embedded.redis_url,
        database=name,
        drain_seconds=0.5,
        publish_wait=2.5,  # who has its answer finds the event published, on a slow machine too
    )
    with MongoClient[dict[str, Any]](embedded.mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def settings(embedded: EmbeddedServers) -> Iterator[Settings]:
    """Settings with a database of their own."""
    yield from _settings(embedded)


@pytest.fixture(scope="module")
def module_settings(embedded: EmbeddedServers) -> Iterator[Settings]:
    """Settings for tests of a module that share a database; a new one each time that a process comes back to them."""
    yield from _settings(embedded)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The application in this process."""
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[..., ServerProcess]]:
    """Starts real server processes on the test's database; they are gone when the test ends."""
    started: list[ServerProcess] = []

    def start(**changes: Any) -> ServerProcess:
        process = ServerProcess(settings.model_copy(update={"port": 0, **changes}))
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture(scope="session")
def shared_servers(embedded: EmbeddedServers) -> Iterator[list[ServerProcess]]:
    """Two server processes on one database, for tests that leave them as they found them."""
    settings = Settings(mongo_url=embedded.mongo_url, redis_url=embedded.redis_url, database="shared", port=0)
    servers = [ServerProcess(settings) for _ in range(2)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.kill()


@pytest.fixture
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """One real server process."""
    return serve()
