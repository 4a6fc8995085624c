"""Fixtures: a server with accounts in this process, and browsers with separate cookies and addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from starlette.testclient import TestClient

from realtime import create_app
from realtime.settings import Settings
from tests.support.accounts import HERE, Browser, with_accounts
from tests.support.harness import Json


@pytest.fixture(scope="module")
def host(module_settings: Settings) -> Iterator[TestClient]:
    """Start a server with accounts."""
    with TestClient(create_app(with_accounts(module_settings)), base_url=HERE) as client:
        yield client


@pytest.fixture(scope="module")
def root(host: TestClient) -> Browser:
    """Return the browser of the first user, an admin."""
    browser = Browser(host)
    browser.name = "root"
    return browser.sign_up()


@pytest.fixture
def database(module_settings: Settings) -> Iterator[Database[Json]]:
    """Return the database of the server for direct access."""
    with MongoClient[Json](module_settings.mongo_url, tz_aware=True) as client:
        yield client[module_settings.database]


@pytest.fixture
def browse(host: TestClient, root: Browser) -> Callable[..., Browser]:
    """Return a function that creates browsers of the server."""
    return lambda url=HERE, address=None: Browser(host, url, address)


@pytest.fixture
def ann(browse: Callable[..., Browser]) -> Browser:
    """Return the browser of a new user."""
    return browse().sign_up()
