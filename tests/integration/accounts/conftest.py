"""Fixtures: a server with accounts in this process, and browsers with separate cookies and addresses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime.settings import Settings
from tests.support.accounts import HERE, Browse, Browser, accounts_server
from tests.support.harness import Json, create_note


@pytest.fixture(scope="module")
def host(module_settings: Settings, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """Start a server with accounts and with the ``CHANGES`` of settings that the test module defines."""
    with accounts_server(module_settings, **getattr(request.module, "CHANGES", {})) as client:
        yield client


@pytest.fixture(scope="module")
def root(host: TestClient) -> Browser:
    """Return the browser of the first user, an admin."""
    return Browser(host).sign_up("root")


@pytest.fixture
def database(module_database: Database[Json]) -> Database[Json]:
    """Return the database of the server for direct access."""
    return module_database


@pytest.fixture
def browse(host: TestClient, root: Browser) -> Browse:
    """Return a function that creates browsers of the server."""
    return lambda url=HERE, address=None: Browser(host, url, address)


@pytest.fixture
def ann(browse: Browse) -> Browser:
    """Return the browser of a new user."""
    return browse().sign_up()


@pytest.fixture
def bob(browse: Browse) -> Browser:
    """Return the browser of another new user."""
    return browse().sign_up()


@pytest.fixture
def note(ann: Browser) -> int:
    """Create a note of Ann, and return its id."""
    return int(create_note(ann)["id"])
