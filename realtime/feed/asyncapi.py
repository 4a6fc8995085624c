"""Generates the AsyncAPI 3 description of the feed from :mod:`realtime.feed.messages`."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, JsonValue
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from realtime.core.close_codes import CLOSE_REASONS, may_reconnect
from realtime.feed import messages
from realtime.feed.query import FeedQuery
from realtime.notes.models import EXAMPLE, Note
from realtime.version import __version__

EXAMPLE_CURSOR = "c2c16b7c2e32:17"
_EXAMPLE_NOTE = Note.model_validate(EXAMPLE)
_EXAMPLE_STATE: dict[str, JsonValue] = {"name": "Ada"}
EXAMPLES: list[BaseModel] = [
    messages.Ready(cursor=EXAMPLE_CURSOR),
    messages.NoteCreated(cursor=EXAMPLE_CURSOR, id=1, version=1, note=_EXAMPLE_NOTE.model_copy(update={"version": 1})),
    messages.NoteUpdated(cursor=EXAMPLE_CURSOR, id=1, version=3, note=_EXAMPLE_NOTE),
    messages.NoteDeleted(cursor=EXAMPLE_CURSOR, id=1, version=4),
    messages.PresenceShown(id=1, people={"8ad3c0e1b2f4-1": _EXAMPLE_STATE}),
    messages.PresenceChanged(id=1, person="8ad3c0e1b2f4-1", state=None),
    messages.Reset(cursor=EXAMPLE_CURSOR),
    messages.Heartbeat(cursor=EXAMPLE_CURSOR),
    messages.Error(detail="type: Input should be 'presence', 'auth' or 'pong'"),
    messages.PresenceSet(type="presence", id=1, state=_EXAMPLE_STATE),
    messages.Auth(type="auth", token="…"),
    messages.Pong(type="pong"),
]


def message_classes(union: Any) -> list[type[BaseModel]]:
    """Return the classes of a union of messages."""
    return list(get_args(get_args(union)[0]))


@cache
def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    sent, received = message_classes(messages.ServerMessage), message_classes(messages.ClientMessage)
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((message, "serialization") for message in sent),
        *((message, "validation") for message in received),
    ]
    _, definitions = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    query = FeedQuery.model_json_schema()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "realtime: the feed",
            "version": __version__,
            "description": "Every change to every note, in real time. Each event contains the full state of a note and"
            " its `version`. Apply the event if this version is higher than yours. Save the `cursor` of each frame, and"
            " pass it as `since=` to resume.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "feed": {
                "address": "/ws",
                "title": "The feed over a WebSocket",
                "description": "JSON text frames. `/events` sends the same messages as Server-Sent Events, and"
                " `/changes` returns them to a long poll.",
                "messages": {message.__name__: _ref("messages", message) for message in (*sent, *received)},
                "bindings": {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}},
                "x-close-codes": {
                    str(code.value): {"reason": reason, "comeBack": may_reconnect(code)}
                    for code, reason in CLOSE_REASONS.items()
                },
            }
        },
        "operations": {
            "sendEvents": {
                "action": "send",
                "summary": "Messages that the server sends",
                "channel": {"$ref": "#/channels/feed"},
                "messages": [_in_channel(message) for message in sent],
            },
            "receiveCommands": {
                "action": "receive",
                "summary": "Messages that a client can send",
                "channel": {"$ref": "#/channels/feed"},
                "messages": [_in_channel(message) for message in received],
            },
        },
        "components": {
            "messages": {message.__name__: _message(message) for message in (*sent, *received)},
            "schemas": definitions["$defs"],
        },
    }


def _ref(kind: str, message: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{message.__name__}"}


def _in_channel(message: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/channels/feed/messages/{message.__name__}"}


def _message(message: type[BaseModel]) -> dict[str, Any]:
    (example,) = (example for example in EXAMPLES if type(example) is message)
    return {
        "name": get_args(message.model_fields["type"].annotation)[0],
        "title": message.__name__,
        "summary": " ".join((message.__doc__ or "").split()),
        "payload": _ref("schemas", message),
        "examples": [{"payload": example.model_dump(mode="json")}],
    }
