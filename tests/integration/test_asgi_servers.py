"""The WebSocket endpoints behave the same on the connections of ``realtime serve`` and on any ASGI server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from realtime import create_app
from realtime.core.close_codes import CloseCode
from realtime.rooms import protocol
from realtime.settings import Settings
from tests.support.harness import Json, eventually, note_in, rest_client, take_presence
from tests.support.http import Serve, wait_for_close
from tests.support.room_client import Wire
from tests.support.websocket import serving


@pytest.fixture(params=["realtime serve", "uvicorn"])
async def url(request: pytest.FixtureRequest, settings: Settings, serve: Serve) -> AsyncIterator[str]:
    """Run the application on this program's server, or on uvicorn alone, and return its URL."""
    if request.param == "realtime serve":
        yield serve().url
        return
    async with serving(create_app(settings), http="auto", ws="websockets-sansio", lifespan="on") as (port, _):
        yield f"http://127.0.0.1:{port}"


def feed(url: str) -> connect:
    return connect(f"{url.replace('http', 'ws', 1)}/ws", max_size=None)


async def receive_until(socket: object, kind: str) -> Json:
    """Return the next frame of this type."""
    while True:
        frame: Json = json.loads(await socket.recv())  # type: ignore[attr-defined]  # a client connection
        if frame["type"] == kind:
            return frame


async def test_feed_delivers_writes_in_order(url: str) -> None:
    async with rest_client(url) as rest, feed(url) as socket, asyncio.timeout(30):
        await receive_until(socket, "ready")
        await rest.post("/notes/", json=note_in())
        for _ in range(49):
            await rest.put("/notes/1/", json=note_in())
        versions = [(await receive_until(socket, "note.created"))["note"]["version"]]
        while versions[-1] < 50:
            versions.append((await receive_until(socket, "note.updated"))["note"]["version"])
        assert versions == sorted(versions)


async def test_feed_resumes_from_a_cursor(url: str) -> None:
    async with rest_client(url) as rest, asyncio.timeout(30):
        async with feed(url) as socket:
            cursor = (await receive_until(socket, "ready"))["cursor"]
        await rest.post("/notes/", json=note_in())
        async with connect(f"{url.replace('http', 'ws', 1)}/ws?since={cursor}") as socket:
            assert (await receive_until(socket, "note.created"))["id"] == 1


@pytest.mark.parametrize("message", ["no JSON", b"binary"])
async def test_bad_frame_is_explained_and_closes_the_feed(url: str, message: str | bytes) -> None:
    async with feed(url) as socket, asyncio.timeout(30):
        await receive_until(socket, "ready")
        await socket.send(message)
        assert (await receive_until(socket, "error"))["detail"]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == CloseCode.BAD_FRAME


async def test_presence_reaches_other_clients(url: str) -> None:
    async with rest_client(url) as rest, feed(url) as one, feed(url) as other, asyncio.timeout(30):
        await rest.post("/notes/", json=note_in())
        for socket in (one, other):
            await socket.send(json.dumps({"type": "presence", "id": 1, "state": {"name": "Ann"}}))
        people: dict[int, dict[str, Json]] = {}
        while len(people.get(1, {})) < 2:
            frame = json.loads(await other.recv())
            if frame["type"].startswith("presence"):
                take_presence(people, frame)


async def test_room_merges_the_edits_of_two_clients(url: str) -> None:
    async with rest_client(url) as rest:
        await rest.post("/notes/", json=note_in(content="start "))
        async with Wire(url, 1) as one, Wire(url, 1) as other:
            await asyncio.gather(
                *(wire.append(f"{name}{number} ") for number in range(20) for name, wire in (("a", one), ("b", other)))
            )
            await eventually(lambda: one.text.all_acknowledged and other.text.all_acknowledged, within=20)
            await eventually(lambda: str(one.text) == str(other.text))
            text = str(one.text)
        assert len(text.split()) == 41

        async def stored() -> bool:
            return bool((await rest.get("/notes/1/")).json()["content"] == text)

        await eventually(stored, within=20)


async def test_malformed_update_closes_the_room_connection(url: str) -> None:
    async with rest_client(url) as rest:
        await rest.post("/notes/", json=note_in())
    async with connect(f"{url.replace('http', 'ws', 1)}/sync/1") as socket, asyncio.timeout(30):
        await socket.send(protocol.update(b"\xff\xff"))
        assert await wait_for_close(socket) == CloseCode.BAD_FRAME


async def test_deleted_note_closes_its_room(url: str) -> None:
    async with rest_client(url) as rest, asyncio.timeout(30):
        await rest.post("/notes/", json=note_in())
        async with connect(f"{url.replace('http', 'ws', 1)}/sync/1") as socket:
            await socket.recv()
            await rest.delete("/notes/1/")
            assert await wait_for_close(socket) == CloseCode.NOTE_GONE
