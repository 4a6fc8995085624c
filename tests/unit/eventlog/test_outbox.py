"""The outbox: committed changes are published, and their marks are removed."""

from __future__ import annotations

import pytest
from pymongo.database import Database
from starlette.testclient import TestClient

from tests.support.harness import Json, eventually, note_in


async def wait_until_published(database: Database[Json]) -> None:
    await eventually(lambda: database.notes.count_documents({"dirty": True}) == 0)


async def test_dirty_mark_is_removed_after_publishing(client: TestClient, database: Database[Json]) -> None:
    for _ in range(10):
        assert client.post("/notes/", json=note_in()).status_code == 201
    await wait_until_published(database)
    assert database.notes.count_documents({}) == 10


@pytest.mark.slow
async def test_unpublished_change_of_a_dead_worker_is_published_later(
    client: TestClient, database: Database[Json]
) -> None:
    client.post("/notes/", json=note_in("first"))
    await wait_until_published(database)
    with client.websocket_connect("/ws?notes=1") as socket:
        assert socket.receive_json()["type"] == "ready"
        # A commit of a worker that died before it could publish.
        database.notes.update_one({"_id": 1}, {"$set": {"title": "orphan", "dirty": True}, "$inc": {"version": 1}})
        event = socket.receive_json()
        assert (event["type"], event["version"], event["note"]["title"]) == ("note.updated", 2, "orphan")
    await wait_until_published(database)


@pytest.mark.slow
async def test_change_already_in_the_log_is_not_published_again(client: TestClient, database: Database[Json]) -> None:
    client.post("/notes/", json=note_in())
    await wait_until_published(database)
    cursor = client.get("/changes").json()["cursor"]
    database.notes.update_one(
        {"_id": 1}, {"$set": {"dirty": True}}
    )  # the mark of a worker that died before clearing it
    await wait_until_published(database)
    assert client.get("/changes", params={"since": cursor, "timeout": 0}).json()["changes"] == []


async def test_dirty_notes_and_publishes_are_counted_in_metrics(client: TestClient) -> None:
    client.post("/notes/", json=note_in())

    def counted() -> bool:
        lines = client.get("/metrics").text.splitlines()
        return "realtime_dirty_notes 0.0" in lines and 'realtime_publishes_total{result="ok"} 1.0' in lines

    await eventually(counted)


@pytest.mark.slow
async def test_invalid_document_does_not_block_the_outbox(client: TestClient, database: Database[Json]) -> None:
    client.post("/notes/", json=note_in())
    await wait_until_published(database)
    database.notes.insert_one({"_id": 999, "version": 1, "dirty": True})
    database.notes.update_one({"_id": 1}, {"$set": {"title": "orphan", "dirty": True}, "$inc": {"version": 1}})
    await eventually(lambda: database.notes.count_documents({"_id": 1, "dirty": True}) == 0)
    assert client.get("/notes/1/").json()["title"] == "orphan"
