"""The transports of the feed: the same events and cursors over WebSocket, Server-Sent Events and long poll."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from websockets.asyncio.client import ClientConnection, connect

from realtime.core.close_codes import CloseCode
from realtime.feed.messages import server_message
from realtime.feed.presence import MAX_CHANGES_BURST
from tests.support.harness import UNIT, Json, ServerProcess, create_note, eventually, note_in, rest_client
from tests.support.http import read_until_close


async def frames(socket: ClientConnection) -> AsyncIterator[Json]:
    async for text in socket:
        server_message.validate_json(text)  # each sent message matches the declared schema
        yield json.loads(text)


async def next_frame(socket: ClientConnection, type: str) -> Json:
    async with asyncio.timeout(10 * UNIT):
        async for frame in frames(socket):
            if frame["type"] == type:
                return frame
    raise AssertionError("the socket ended")


@asynccontextmanager
async def sse(url: str, **headers: str) -> AsyncIterator[AsyncIterator[tuple[str | None, Json]]]:
    """Yield the events of a stream as pairs of id and data."""

    async def events(answer: httpx.Response) -> AsyncIterator[tuple[str | None, Json]]:
        id = None
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                id = line[4:]
            elif line.startswith("data: "):
                yield id, json.loads(line[6:])
                id = None

    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("GET", url, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


# In this process


@pytest.mark.parametrize("path", ["/ws", "/ws/"])
def test_websocket_receives_created_updated_and_deleted_events(client: TestClient, path: str) -> None:
    with client.websocket_connect(path) as socket:
        ready = socket.receive_json()
        assert ready == {"type": "ready", "cursor": ready["cursor"]}
        made = create_note(client)
        event = socket.receive_json()
        assert event == {"type": "note.created", "cursor": event["cursor"], "id": 1, "version": 1, "note": made}
        changed = client.put("/notes/1/", json=note_in("other")).json()
        event = socket.receive_json()
        assert event == {"type": "note.updated", "cursor": event["cursor"], "id": 1, "version": 2, "note": changed}
        client.delete("/notes/1/")
        event = socket.receive_json()
        assert event == {"type": "note.deleted", "cursor": event["cursor"], "id": 1, "version": 3}


def test_resume_sends_the_latest_event_per_note_then_ready(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        cursor = socket.receive_json()["cursor"]
        for title in ("one", "two"):
            create_note(client, title)
        client.put("/notes/1/", json=note_in("one more"))
        for _ in range(3):
            socket.receive_json()  # the response can arrive before the event
    with client.websocket_connect(f"/ws?since={cursor}") as socket:
        received = [socket.receive_json() for _ in range(3)]
    assert [(frame["type"], frame.get("id"), frame.get("version")) for frame in received] == [
        ("note.created", 2, 1),
        ("note.updated", 1, 2),
        ("ready", None, None),
    ]
    with client.websocket_connect(f"/ws?since={received[0]['cursor']}") as socket:
        assert socket.receive_json() == received[1]


@pytest.mark.parametrize("since", ["nonsense", "ffff:3", "", ":", "a:b", "none:0"])
def test_unknown_cursor_gets_a_reset(client: TestClient, since: str) -> None:
    with client.websocket_connect(f"/ws?since={since}") as socket:
        reset, ready = socket.receive_json(), socket.receive_json()
    assert (reset["type"], ready["type"]) == ("reset", "ready")
    answer = client.get("/changes", params={"since": since, "timeout": 0}).json()
    assert answer["reset"] is True
    assert answer["changes"] == []
    assert answer["cursor"] == reset["cursor"] == ready["cursor"]


def test_websocket_filters_select_notes_and_omit_content(client: TestClient) -> None:
    with client.websocket_connect("/ws?notes=2,3") as some, client.websocket_connect("/ws?content=false") as slim:
        assert some.receive_json()["type"] == slim.receive_json()["type"] == "ready"
        for title in ("one", "two"):
            create_note(client, title, content="long text")
        assert some.receive_json()["note"]["content"] == "long text"
        assert "content" not in slim.receive_json()["note"]
        assert slim.receive_json()["id"] == 2


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("notes=0", "notes"),
        ("notes=", "notes"),
        ("notes=1,,2", "notes"),
        ("notes=a", "notes"),
        ("content=perhaps", "content"),
        ("since=" + "x" * 65, "since"),
        ("nonsense=1", "nonsense"),
    ],
)
def test_invalid_query_is_refused_with_the_parameter_name(client: TestClient, query: str, named: str) -> None:
    with client.websocket_connect(f"/ws?{query}") as socket:
        error = socket.receive_json()
        assert error["type"] == "error"
        assert named in error["detail"]
        assert read_until_close(socket) == (CloseCode.BAD_FRAME, [])
    for path in ("/events", "/changes"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code == 422
        assert named in str(answer.json()["detail"])


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("nonsense", CloseCode.BAD_FRAME),
        ('{"type": "nonsense"}', CloseCode.BAD_FRAME),
        ('{"type": "auth", "token": "x"}', CloseCode.BAD_FRAME),
        (json.dumps({"type": "presence", "id": 1, "state": {"x": "y" * 1024}}), CloseCode.BAD_FRAME),
        (json.dumps({"type": "pong", "x": "y" * 70_000}), CloseCode.TOO_BIG),
        ('"\\ud800"', CloseCode.BAD_FRAME),
    ],
)
def test_invalid_frame_closes_only_its_sender(client: TestClient, frame: str, code: CloseCode) -> None:
    with client.websocket_connect("/ws") as neighbour, client.websocket_connect("/ws") as socket:
        assert neighbour.receive_json()["type"] == socket.receive_json()["type"] == "ready"
        socket.send_text(frame)
        assert socket.receive_json()["type"] == "error"
        assert read_until_close(socket) == (code, [])
        create_note(client)
        assert neighbour.receive_json()["type"] == "note.created"


def test_binary_frame_is_refused_with_an_error(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        socket.receive_json()
        socket.send_bytes(b"\0\1")
        assert "binary" in socket.receive_json()["detail"]


def test_pong_frame_keeps_the_connection_open(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        socket.receive_json()
        socket.send_json({"type": "pong"})
        create_note(client)
        assert socket.receive_json()["type"] == "note.created"


CHANGED = {"type": "presence.changed", "id": 7}


def test_presence_is_sent_to_viewers_and_note_subscribers(client: TestClient) -> None:
    with (
        client.websocket_connect("/ws") as ann,
        client.websocket_connect("/ws") as ben,
        client.websocket_connect("/ws?notes=7") as asked,
    ):
        for socket in (ann, ben, asked):
            socket.receive_json()
        ann.send_json({"type": "presence", "id": 7, "state": {"name": "Ann"}})
        assert ann.receive_json() == {"type": "presence", "id": 7, "people": {}}
        came = ann.receive_json()
        assert came == asked.receive_json() == {**CHANGED, "person": came["person"], "state": {"name": "Ann"}}
        ben.send_json({"type": "presence", "id": 7, "state": {"name": "Ben"}})
        assert ben.receive_json() == {"type": "presence", "id": 7, "people": {came["person"]: {"name": "Ann"}}}
        other = ben.receive_json()
        assert other["person"] != came["person"]
        assert other == ann.receive_json() == asked.receive_json() == {**other, "state": {"name": "Ben"}}
        with client.websocket_connect("/ws?notes=7") as late:
            assert late.receive_json()["type"] == "ready"
            both = {came["person"]: {"name": "Ann"}, other["person"]: {"name": "Ben"}}
            assert late.receive_json() == {"type": "presence", "id": 7, "people": both}
        ann.send_json({"type": "presence", "id": 7, "state": {"name": "Ann", "at": 3}})
        changed = {**came, "state": {"name": "Ann", "at": 3}}
        assert ann.receive_json() == ben.receive_json() == asked.receive_json() == changed
        ann.send_json({"type": "presence", "id": 7, "state": None})
        left = {**came, "state": None}
        assert ben.receive_json() == asked.receive_json() == left
        ben.close()
        assert asked.receive_json() == {**other, "state": None}


def test_too_frequent_presence_changes_close_only_their_sender(client: TestClient) -> None:
    with client.websocket_connect("/ws?notes=7") as flood, client.websocket_connect("/ws?notes=7") as other:
        for number in range(2 * MAX_CHANGES_BURST):
            flood.send_json({"type": "presence", "id": 7, "state": {"number": number}})
        assert read_until_close(flood)[0] == CloseCode.TOO_MANY
        other.send_json({"type": "presence", "id": 7, "state": {"name": "Ann"}})
        frame = other.receive_json()
        while frame.get("state") != {"name": "Ann"}:
            frame = other.receive_json()


def test_poll_without_a_cursor_returns_the_current_cursor(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "ready"
        create_note(client)
        assert socket.receive_json()["type"] == "note.created"  # the response can arrive before the event
    for path in ("/changes", "/changes/"):
        assert client.get(path).json() == {
            "cursor": client.get("/notes/").headers["X-Cursor"],
            "reset": False,
            "changes": [],
        }


def test_poll_with_a_limit_returns_missed_changes_in_pages(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        cursor = socket.receive_json()["cursor"]
        for _ in range(5):
            create_note(client)
            socket.receive_json()  # the response can arrive before the event
    ids = []
    while True:
        answer = client.get("/changes", params={"since": cursor, "limit": 2, "timeout": 0}).json()
        if not answer["changes"]:
            break
        assert len(answer["changes"]) <= 2
        assert answer["changes"][-1]["cursor"] == answer["cursor"] or len(answer["changes"]) < 2
        ids += [change["id"] for change in answer["changes"]]
        cursor = answer["cursor"]
    assert ids == [1, 2, 3, 4, 5]


def test_poll_with_filters_advances_the_cursor(client: TestClient) -> None:
    with client.websocket_connect("/ws") as socket:
        cursor = socket.receive_json()["cursor"]
        create_note(client, content="text")
        socket.receive_json()  # the response can arrive before the event
    answer = client.get("/changes", params={"since": cursor, "notes": "9", "timeout": 0}).json()
    assert answer["changes"] == []
    assert answer["cursor"] != cursor
    slim = client.get("/changes", params={"since": cursor, "content": False, "timeout": 0}).json()
    assert "content" not in slim["changes"][0]["note"]


# Over real sockets


async def test_poll_returns_as_soon_as_a_change_arrives(shared_servers: list[ServerProcess]) -> None:
    server = shared_servers[0]
    async with rest_client(server.url) as rest:
        cursor = (await rest.get("/changes")).json()["cursor"]
        waiting = asyncio.create_task(rest.get("/changes", params={"since": cursor, "timeout": 20}))
        made = (await rest.post("/notes/", json=note_in())).json()
        async with asyncio.timeout(5 * UNIT):
            answer = (await waiting).json()
        assert [change["note"] for change in answer["changes"]] == [made]
        idle = (await rest.get("/changes", params={"since": answer["cursor"], "timeout": 0.2})).json()
        assert idle == {"cursor": answer["cursor"], "reset": False, "changes": []}


async def test_all_transports_deliver_the_same_event(shared_servers: list[ServerProcess]) -> None:
    server = shared_servers[0]
    async with (
        connect(server.ws) as socket,
        sse(f"{server.url}/events") as stream,
        rest_client(server.url) as rest,
    ):
        ready = await next_frame(socket, "ready")
        id, first = await anext(stream)
        assert first == ready
        assert id == ready["cursor"]
        await rest.post("/notes/", json=note_in(content="text"))
        event = await next_frame(socket, "note.created")
        poll = (await rest.get("/changes", params={"since": ready["cursor"]})).json()
        assert poll["changes"] == [event]
        while (received := await anext(stream))[1]["type"] != "note.created":
            pass
        assert received == (event["cursor"], event)


async def test_event_stream_resumes_from_the_last_event_id(shared_servers: list[ServerProcess]) -> None:
    server = shared_servers[0]
    async with rest_client(server.url) as rest:
        async with sse(f"{server.url}/events/") as stream:
            last, _ = await anext(stream)
        assert last is not None
        await rest.post("/notes/", json=note_in())
        async with sse(f"{server.url}/events?since=nonsense", Last_Event_ID=last) as stream:
            assert (await anext(stream))[1]["type"] == "note.created"
            assert (await anext(stream))[1]["type"] == "ready"


async def test_heartbeat_to_a_filtered_subscriber_carries_the_latest_cursor(serve: Any) -> None:
    server = serve(heartbeat=1)
    async with connect(server.ws + "?notes=99") as socket, rest_client(server.url) as rest:
        before = await next_frame(socket, "ready")
        await rest.post("/notes/", json=note_in())
        async with asyncio.timeout(10 * UNIT):
            while (beat := await next_frame(socket, "heartbeat"))["cursor"] == before["cursor"]:
                pass
        latest = (await rest.get("/notes/")).headers["X-Cursor"]
        assert beat["cursor"] == latest, "the cursor of a client that is subscribed to another note must advance"


async def test_presence_reaches_other_servers_and_ends_with_its_server(serve: Any) -> None:
    one, other = serve(), serve()
    async with connect(other.ws + "?notes=5") as watcher:
        await next_frame(watcher, "ready")
        async with connect(one.ws) as looker:
            await next_frame(looker, "ready")
            await looker.send(json.dumps({"type": "presence", "id": 5, "state": {"name": "Ann"}}))
            assert (await next_frame(watcher, "presence.changed"))["state"] == {"name": "Ann"}
            one.stop()
            assert (await next_frame(watcher, "presence.changed"))["state"] is None


async def test_client_metrics_drop_to_zero_after_disconnects(server: ServerProcess) -> None:
    async def connected() -> dict[str, float]:
        async with rest_client(server.url) as rest:
            lines = (await rest.get("/metrics")).text.splitlines()
        found = (line.removeprefix("realtime_clients").split() for line in lines if line.startswith("realtime_clients"))
        return {labels: float(value) for labels, value in found}

    async with connect(server.ws) as socket, sse(f"{server.url}/events") as stream:
        await next_frame(socket, "ready")
        await anext(stream)
        assert await connected() == {'{transport="ws"}': 1, '{transport="sse"}': 1, '{transport="sync"}': 0}

    async def none() -> bool:
        return set((await connected()).values()) == {0}

    await eventually(none)
