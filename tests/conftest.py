"""Fixtures: one pair of embedded databases per run, and a separate database for each test."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime import create_app
from realtime.embedded.pair import EmbeddedServers
from realtime.settings import Settings
from tests.support.harness import Json, ServerProcess
from tests.support.http import Serve, server_processes


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> None:
    for name in [name for name in os.environ if name.startswith("REALTIME_")]:
        del os.environ[name]
    # A shell makes background processes ignore SIGINT, and the processes of the tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """Run a real MongoDB and a real Valkey."""
    with EmbeddedServers(tmp_path_factory.mktemp("embedded")) as servers:
        yield servers


def _settings(embedded: EmbeddedServers) -> Iterator[Settings]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield Settings(
        mongo_url=embedded.mongo_url,
        redis_url=embedded.redis_url,
        database=name,
        drain_seconds=0.5,
        publish_wait=2.5,  # so that the event is published before the response, even on a slow machine
    )
    with MongoClient[dict[str, Any]](embedded.mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def settings(embedded: EmbeddedServers) -> Iterator[Settings]:
    """Return settings with a separate database."""
    yield from _settings(embedded)


@pytest.fixture(scope="module")
def module_settings(embedded: EmbeddedServers) -> Iterator[Settings]:
    """Return settings with a database that the tests of a module share within one process."""
    yield from _settings(embedded)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """Run the application in this process, and return a client for it."""
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def shared(module_settings: Settings) -> Iterator[TestClient]:
    """Run one application for the tests of a module that use only notes they created."""
    with TestClient(create_app(module_settings)) as client:
        yield client


@pytest.fixture
def serve(settings: Settings) -> Iterator[Serve]:
    """Return a function that starts server processes on the database of the test. They are killed when it ends."""
    with server_processes(settings) as start:
        yield start


@pytest.fixture(scope="session")
def shared_servers(embedded: EmbeddedServers) -> Iterator[list[ServerProcess]]:
    """Run two server processes on one database, for tests that do not change their state."""
    settings = Settings(mongo_url=embedded.mongo_url, redis_url=embedded.redis_url, database="shared")
    with server_processes(settings) as start:
        yield [start() for _ in range(2)]


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    """Start a server process."""
    return serve()


@pytest.fixture
def database(settings: Settings) -> Iterator[Database[Json]]:
    """Return the database of the test for direct access."""
    with MongoClient[Json](settings.mongo_url, tz_aware=True) as client:
        yield client[settings.database]


@pytest.fixture(scope="module")
def module_database(module_settings: Settings) -> Iterator[Database[Json]]:
    """Return the database of the module for direct access."""
    with MongoClient[Json](module_settings.mongo_url, tz_aware=True) as client:
        yield client[module_settings.database]
