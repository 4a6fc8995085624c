"""The AsyncAPI document of the feed: it describes every message, and all real frames match it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from realtime.core.close_codes import CLOSE_REASONS
from realtime.feed import messages
from realtime.feed.asyncapi import asyncapi, message_classes
from tests.support.harness import Json, note_in


def _schema_of(document: Json, type: str, sender: str) -> jsonschema_rs.Validator:
    """Return the schema of the payload of a message that an operation lists."""
    for reference in document["operations"][sender]["messages"]:
        name = reference["$ref"].rpartition("/")[2]
        message = document["components"]["messages"][name]
        if message["name"] == type:
            return jsonschema_rs.validator_for({**message["payload"], "components": document["components"]})
    raise AssertionError(f"{type} is not described")


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def test_asyncapi_describes_every_message_and_close_code() -> None:
    document = asyncapi()
    for union, sender in ((messages.ServerMessage, "sendEvents"), (messages.ClientMessage, "receiveCommands")):
        described = {reference["$ref"].rpartition("/")[2] for reference in document["operations"][sender]["messages"]}
        assert described == {message.__name__ for message in message_classes(union)}
    assert set(document["channels"]["feed"]["x-close-codes"]) == {str(code.value) for code in CLOSE_REASONS}


def test_asyncapi_references_can_be_resolved() -> None:
    document = asyncapi()
    for reference in _references(document):
        part: Any = document
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]


def test_asyncapi_examples_match_their_schemas() -> None:
    document = asyncapi()
    for sender in ("sendEvents", "receiveCommands"):
        for reference in document["operations"][sender]["messages"]:
            message = document["components"]["messages"][reference["$ref"].rpartition("/")[2]]
            for example in message["examples"]:
                _schema_of(document, message["name"], sender).validate(example["payload"])


def test_frames_of_a_server_match_the_asyncapi_schemas(client: TestClient) -> None:
    document = client.get("/asyncapi.json").json()
    assert document == json.loads(json.dumps(asyncapi()))
    seen = set()
    frames: list[Json] = []
    with client.websocket_connect("/ws?notes=1") as socket, client.websocket_connect("/ws?content=false") as slim:
        presence = {"type": "presence", "id": 1, "state": {"name": "Ada"}}
        _schema_of(document, "presence", "receiveCommands").validate(presence)
        socket.send_json(presence)
        slim.send_json({**presence, "id": 2})
        client.post("/notes/", json=note_in(content="text"))
        client.patch("/notes/1/", json={"title": "other"})
        client.delete("/notes/1/")
        client.post("/trash/1/restore")
        while not {("presence.changed", None), ("note.updated", 4)} <= {
            (frame["type"], frame.get("version")) for frame in frames
        }:
            frames.append(socket.receive_json())
        frames += [slim.receive_json() for _ in range(7)]
        socket.send_text("nonsense")
        while frames[-1]["type"] != "error":
            frames.append(socket.receive_json())
    with client.websocket_connect("/ws?since=gone:1") as socket:
        frames.append(socket.receive_json())
    for frame in frames:
        _schema_of(document, frame["type"], "sendEvents").validate(frame)
        seen.add(frame["type"])
    notes = {"note.created", "note.updated", "note.deleted"}
    assert seen == {"ready", *notes, "presence", "presence.changed", "error", "reset"}


def test_message_schema_rejects_missing_and_undeclared_fields() -> None:
    document = asyncapi()
    schema = _schema_of(document, "ready", "sendEvents")
    assert schema.is_valid({"type": "ready", "cursor": "a:1"})
    for frame in (
        {"type": "ready"},
        {"type": "ready", "cursor": "a:1", "more": 1},
        {"type": "readys", "cursor": "a:1"},
    ):
        assert not schema.is_valid(frame)


@pytest.mark.parametrize("name", ["NoteCreated", "NoteUpdated"])
def test_note_events_are_described_with_and_without_content(name: str) -> None:
    note = asyncapi()["components"]["schemas"][name]["properties"]["note"]
    assert {reference.rpartition("/")[2] for reference in _references(note)} == {"Note", "NoteHead"}
