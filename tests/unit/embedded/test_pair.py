"""The URLs of the databases: from the settings, or of embedded servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime.embedded.pair import database_urls, running
from realtime.settings import Settings

MONGO = "mongodb://mongo.example/"
REDIS = "redis://redis.example/"


def test_configured_databases_are_not_started(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with database_urls(Settings(data=data, mongo_url=MONGO, redis_url=REDIS)) as urls:
        assert urls == (MONGO, REDIS)
    assert not data.exists()


def test_database_without_a_url_runs_until_the_block_ends(tmp_path: Path) -> None:
    with database_urls(Settings(data=tmp_path, mongo_url=MONGO)) as urls:
        assert urls.mongo == MONGO
        assert running(tmp_path) == ("", urls.redis)
    assert running(tmp_path) is None


def test_servers_stop_after_a_failure_in_the_block(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, mongo_url=MONGO)
    with pytest.raises(ZeroDivisionError), database_urls(settings):
        1 / 0  # noqa: B018
    assert running(tmp_path) is None
